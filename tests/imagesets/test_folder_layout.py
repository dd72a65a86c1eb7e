"""Which folders are splits and classes, under the names that people give them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagesets import ImageSetError
from tests.support.image_files import encoded, packed, tree


@pytest.mark.parametrize(("train", "test"), [("training", "testing"), ("Train", "Test"), ("TRAIN", "Testing")])
@pytest.mark.parametrize("zipped", [False, True])
def test_splits_by_their_usual_names_are_no_classes(tmp_path: Path, load, train: str, test: str, zipped: bool) -> None:
    folder = tree(
        tmp_path / "set", [f"{split}/{name}/{i}.png" for split in (train, test) for name in "01" for i in "ab"]
    )
    if zipped:
        files = sorted(folder.rglob("*.png"))
        folder = packed(tmp_path / "set.zip", [(str(file.relative_to(folder)), file.read_bytes()) for file in files])
    everything = load(f"folder:{folder}")
    assert (len(everything), everything.class_names) == (8, ("0", "1"))
    for name in ("test", test):
        found = load(f"folder:{folder}@{name}")
        assert found.name.endswith("@test")
        assert (found.images[:, 0, 0, 0] >= 4).all()
        assert len(found) == 4


def test_zips_by_the_usual_names_of_splits_are_splits(tmp_path: Path, load) -> None:
    for name, value in (("set_Training", 7), ("set_Testing", 9)):
        packed(tmp_path / f"{name}.zip", [(f"{label}/1.png", encoded(value)) for label in "ab"])
    assert (load(f"folder:{tmp_path}@train").images == 7).all()
    assert load(f"folder:{tmp_path}").class_names == ("a", "b")


def test_split_that_links_to_another_has_its_images(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", [f"train/{name}/{i}.png" for name in "ab" for i in range(4)])
    (folder / "test").symlink_to("train")
    train, test, everything = (load(f"folder:{folder}{split}") for split in ("@train", "@test", ""))
    assert len(train) == len(test) == len(everything) == 8
    assert train.fingerprint == test.fingerprint
    assert "left out: 8 images that a link repeats" in everything.info["contents"]


def test_folder_train_next_to_classes_is_refused_as_a_split(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "vehicles", [f"{name}/{i}.png" for name in ("bus", "car", "train") for i in "12"])
    assert load(f"folder:{folder}").class_names == ("bus", "car", "train")
    for split in ("train", "test"):
        with pytest.raises(ImageSetError, match=f"a split or a class\\? Name the folder \\({folder}/train\\)"):
            load(f"folder:{folder}@{split}")


def test_splits_next_to_other_folders_need_a_split(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", [f"{name}/{i}.png" for name in ("train", "test", "extra") for i in "12"])
    with pytest.raises(ImageSetError, match=r"has the splits test, train next to extra; name a split"):
        load(f"folder:{folder}")
    assert "left out: 2 images outside the splits" in load(f"folder:{folder}@train").info["contents"]


def test_two_folders_of_one_split_are_refused(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", ["train/1.png", "Training/2.png", "test/3.png"])
    with pytest.raises(ImageSetError, match=r"has Training, train, which are one split"):
        load(f"folder:{folder}@train")
    assert len(load(f"folder:{folder}@test")) == 1


@pytest.mark.parametrize("wrap", ["", "set/"])
def test_stray_image_does_not_end_the_classes(tmp_path: Path, load, wrap: str) -> None:
    folder = tree(tmp_path / "set", [f"{wrap}{name}/{i}.png" for name in "ab" for i in range(5)] + ["cover.png"])
    found = load(f"folder:{folder}")
    assert (found.class_names, len(found)) == (("a", "b"), 10)
    assert found.info["contents"].endswith("left out: 1 image next to the class folders")


def test_stray_image_in_one_split_does_not_end_the_classes(tmp_path: Path, load) -> None:
    paths = [f"{split}/{name}/{i}.png" for split in ("train", "test") for name in "ab" for i in range(3)]
    folder = tree(tmp_path / "set", [*paths, "train/cover.png", "cover.png"])
    found = load(f"folder:{folder}")
    assert (found.class_names, len(found)) == (("a", "b"), 12)
    assert "left out: 2 images next to the class folders" in found.info["contents"]


def test_many_images_outside_class_folders_are_kept_without_classes(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", ["a/1.png", "b/1.png", *(f"{i}.png" for i in range(10))])
    found = load(f"folder:{folder}")
    assert (found.labels, len(found)) == (None, 12)
    assert "no classes: 10 images are outside the class folders" in found.info["contents"]


@pytest.mark.parametrize("folders", [("one",), ()])
def test_flat_images_lose_none(tmp_path: Path, load, folders: tuple[str, ...]) -> None:
    folder = tree(tmp_path / "set", ["1.png", *(f"{name}/2.png" for name in folders)])
    assert len(load(f"folder:{folder}")) == 1 + len(folders)


def test_one_class_name_in_two_unicode_forms_is_one_class(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", ["train/\u00e9/1.png", "train/b/1.png", "test/e\u0301/1.png"])
    assert load(f"folder:{folder}@train").class_names == ("b", "\u00e9")
    assert load(f"folder:{folder}@test").labels.tolist() == [1]
    both = tree(tmp_path / "both", ["\u00e9/1.png", "e\u0301/2.png", "b/1.png"])
    assert load(f"folder:{both}").labels.tolist().count(1) == 2


def test_split_without_class_folders_ends_the_classes_with_a_note(tmp_path: Path, load) -> None:
    paths = [f"train/{name}/{i}.png" for name in "ab" for i in range(4)] + [f"test/{i}.png" for i in range(3)]
    folder = tree(tmp_path / "set", paths)
    for split in ("", "@test"):
        found = load(f"folder:{folder}{split}")
        assert found.labels is None
        assert "no classes: 3 images are outside the class folders" in found.info["contents"]
    trained = load(f"folder:{folder}@train")
    assert trained.class_names == ("a", "b")
    assert "no classes" not in trained.info["contents"]


@pytest.mark.parametrize("names", [("train2017", "val2017"), ("test_images", "train_images"), ("trainA", "trainB")])
def test_classes_called_like_splits_are_remarked_on(tmp_path: Path, load, names: tuple[str, str]) -> None:
    found = load(f"folder:{tree(tmp_path / 'set', [f'{name}/{i}.png' for name in names for i in range(4)])}")
    assert found.class_names == names
    assert f"called like splits are classes: {', '.join(names)}" in found.info["contents"]


def test_classes_that_differ_by_case_are_remarked_on(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", ["train/Cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png"])
    assert "classes that differ by case or spaces: Cat, cat" in load(f"folder:{folder}").info["contents"]


def test_usual_class_names_are_not_remarked_on(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", [f"{name}/{i}.png" for name in ("Valley", "contest", "trainer") for i in range(4)])
    assert load(f"folder:{folder}").info["contents"].endswith("(3 classes)")


def test_classes_and_hold_out_do_not_depend_on_the_locale(tmp_path: Path, load) -> None:
    folder = tree(tmp_path / "set", [f"{name}/{i}.png" for name in ("é", "→") for i in range(40)])
    (folder / "\udcff").mkdir()
    (folder / "\udcff/1.png").write_bytes(encoded(9))
    (folder / "ø").symlink_to("é")
    words = "folder:set@test"
    program = (
        "from imagesets import load_image_set\n"
        f"found = load_image_set({words!r}, cache_root='cache', progress=False)\n"
        "print(ascii(found.class_names), found.fingerprint)"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    expected = load(f"folder:{folder}@test")
    assert done.stdout.strip() == f"{expected.class_names!a} {expected.fingerprint}"
