"""Several sources as one image set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imagesets import ImageSetError, full_name, load, native_channels, split_of_union, union_parts
from tests.support.image_archives import (
    labels_of,
    pictures,
    png,
    webdataset_files,
    write_folder,
    write_parquet,
    write_tar,
    write_zip,
)

N = 12
IMAGES, LABELS = pictures(N), labels_of(N)


def two_folders(root: Path) -> tuple[Path, Path]:
    """The pictures in two folders: cats and dogs, then dogs and eels."""
    return write_folder(root / "a", IMAGES[:6], LABELS[:6]), write_folder(root / "b", IMAGES[6:], LABELS[6:])


def test_union_of_two_halves_is_the_whole_folder(tmp_path: Path, load) -> None:
    first, second = two_folders(tmp_path)
    whole = load(f"folder:{write_folder(tmp_path / 'whole', IMAGES, LABELS)}")
    found = load(f"folder:{first}+folder:{second}")
    assert found.fingerprint == whole.fingerprint
    assert found.class_names == whole.class_names == ("cats", "dogs", "eels")
    assert found.name == f"folder:{first}+folder:{second}@all"


def test_union_of_different_forms_merges_classes_by_name(tmp_path: Path, load) -> None:
    folder = write_folder(tmp_path / "a", IMAGES[:4], [2, 2, 0, 0])
    parquet = write_parquet(tmp_path / "b.parquet", [png(image) for image in IMAGES[4:8]], [1, 1, 2, 2])
    tar = write_tar(tmp_path / "c.tar", webdataset_files(IMAGES[8:], [0, 1, 0, 1]))
    found = load(f"folder:{folder}+folder:{parquet}+folder:{tar}")
    assert found.class_names == ("cats", "eels", "dogs", "0", "1")
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2, 1, 1, 3, 4, 3, 4]
    assert np.array_equal(found.images, IMAGES[[2, 3, 0, 1, *range(4, 12)]])


def test_union_line_accounts_for_every_part(tmp_path: Path, load) -> None:
    first, second = two_folders(tmp_path)
    (second / "notes.txt").write_text("x", encoding="utf-8")
    line = load(f"folder:{first}+folder:{second}").info["contents"]
    assert line == (
        f"12 images of 2 parts (3 classes); folder:{first}@all: 6 of 6 files are images (2 classes); "
        f"folder:{second}@all: 6 of 7 files are images (2 classes); left out: 1 .txt"
    )


def test_union_of_labeled_and_unlabeled_parts_has_no_classes_and_says_so(tmp_path: Path, load) -> None:
    first = write_folder(tmp_path / "a", IMAGES[:6], LABELS[:6])
    second = write_folder(tmp_path / "b", IMAGES[6:], None)
    for _ in range(2):  # built, and from the cache
        found = load(f"folder:{first}+folder:{second}")
        assert found.labels is None
        assert found.info["contents"].endswith(f"; no classes: folder:{second}@all has none")


def test_union_counts_broken_images_of_each_part(tmp_path: Path, load) -> None:
    first = write_folder(tmp_path / "a", np.tile(IMAGES, (10, 1, 1, 1)), None)
    second = write_folder(tmp_path / "b", IMAGES, None, {"x.png": b"broken"})
    found = load(f"folder:{first}+folder:{second}")
    assert [entry["file"] for entry in found.info["skipped"]] == [f"folder:{second}@all: x.png"]
    assert "120 of 120 files are images" in found.info["contents"]
    assert "12 of 13 files are images; left out: 1 unreadable" in found.info["contents"]


def test_union_split_is_that_of_every_part_without_one(tmp_path: Path, load) -> None:
    for name, offset in (("a", 0), ("b", 6)):
        for split, part in (("train", slice(offset, offset + 4)), ("test", slice(offset + 4, offset + 6))):
            write_folder(tmp_path / name / split, IMAGES[part], LABELS[part])
    a, b = f"folder:{tmp_path}/a", f"folder:{tmp_path}/b"
    test = load(f"{a}+{b}@test")
    assert np.array_equal(test.images, IMAGES[[4, 5, 10, 11]])
    assert (test.name, test.info["split"]) == (f"{a}+{b}@test", "test")
    assert load(f"{a}@test+{b}@test").info["source"] == f"{a}+{b}"
    mixed = load(f"{a}@train+{b}@test")
    assert np.array_equal(mixed.images, IMAGES[[0, 1, 2, 3, 10, 11]])
    again = load(mixed.info["source"])
    assert again.fingerprint == mixed.fingerprint


def test_union_with_a_named_dataset(tmp_path: Path, load) -> None:
    folder = write_folder(tmp_path / "a", IMAGES[..., 0], LABELS)
    digits = load("digits@test", resolution=8)
    found = load(f"digits@test+folder:{folder}@test", resolution=8)
    assert np.array_equal(found.images[: len(digits)], digits.images)
    assert found.class_names[-3:] == ("cats", "dogs", "eels")


def test_union_of_gray_and_color_is_in_color(tmp_path: Path, load) -> None:
    gray = write_folder(tmp_path / "a", IMAGES[..., 0], None)
    color = write_folder(tmp_path / "b", IMAGES, None)
    found = load(f"folder:{gray}+folder:{color}")
    assert found.images.shape == (2 * N, 8, 8, 3)
    assert np.array_equal(found.images[:N, ..., 1], IMAGES[..., 0])
    assert native_channels(f"folder:{gray}+folder:{color}", cache_root=tmp_path / "cache") == 3
    assert native_channels(f"folder:{gray}+digits", resolution=8, cache_root=tmp_path / "cache") == 1
    as_gray = load(f"folder:{gray}+folder:{color}", channels=1)
    assert as_gray.info["contents"].endswith("12 in color, read as gray")


def test_union_of_different_sizes_needs_a_resolution(tmp_path: Path, load) -> None:
    first = write_folder(tmp_path / "a", IMAGES, None)
    second = write_folder(tmp_path / "b", pictures(N, 16), None)
    with pytest.raises(ImageSetError, match=r"different sizes \(.*8 px, .*16 px\); give a resolution"):
        load(f"folder:{first}+folder:{second}")
    assert load(f"folder:{first}+folder:{second}", resolution=16).images.shape[1] == 16


def test_union_names_a_part_once_and_every_part_exists(tmp_path: Path, load) -> None:
    folder = write_folder(tmp_path / "a", IMAGES, None)
    with pytest.raises(ImageSetError, match="is given twice; name each part of a union once"):
        load(f"folder:{folder}+folder:{folder}")
    with pytest.raises(ImageSetError, match=r"there is no folder or file at .*/typo"):
        load(f"folder:{folder}+folder:{tmp_path}/typo")
    with pytest.raises(ImageSetError, match="digits has no split 'valid'"):
        load(f"folder:{folder}@train+digits@valid", data_root=tmp_path)


def test_plus_in_a_path_is_no_union(tmp_path: Path, load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a+b", "a+digits", "c+folder:d", "e"):
        write_folder(tmp_path / name, IMAGES[:2], None)
    for name in ("a+b", "a+digits", "c+folder:d"):
        assert union_parts(f"folder:{name}") == (f"folder:{name}",)
        assert len(load(f"folder:{name}")) == 2
        assert full_name(name) == f"folder:{name}"
    assert union_parts("folder:a+b+folder:e") == ("folder:a+b", "folder:e")
    assert len(load("folder:a+b+folder:e")) == 4
    assert union_parts("folder:e+digits@test") == ("folder:e", "digits@test")
    assert full_name("e+folder:a+b") == "folder:e+folder:a+b"


def test_union_runs_no_function_of_a_module(tmp_path: Path) -> None:
    """A reference file may name a union, and no code that a file names is run."""
    folder = write_folder(tmp_path / "a", IMAGES, None)
    with pytest.raises(ImageSetError, match="there is no folder or file"):
        load(f"folder:{folder}+this_module:function", cache_root=tmp_path / "cache")
    with pytest.raises(ImageSetError, match="this_module:function cannot be a part of a union"):
        load("this_module:function+digits@train", cache_root=tmp_path / "cache")


def test_split_of_union_is_the_common_one(tmp_path: Path) -> None:
    first, second = two_folders(tmp_path)
    a, b = f"folder:{first}", f"folder:{second}"
    assert split_of_union(f"{a}+{b}") == (f"{a}+{b}", None)
    assert split_of_union(f"{a}+{b}@test") == (f"{a}+{b}", "test")
    assert split_of_union(f"{a}@test+{b}@test") == (f"{a}+{b}", "test")
    assert split_of_union(f"{a}@train+{b}@test") == (f"{a}@train+{b}@test", None)


def test_union_is_read_again_when_a_part_changes(tmp_path: Path, load) -> None:
    first, second = two_folders(tmp_path)
    before = load(f"folder:{first}+folder:{second}")
    (second / "eels" / "0005.png").write_bytes(png(255 - IMAGES[5]))
    assert load(f"folder:{first}+folder:{second}").fingerprint != before.fingerprint
    zipped = write_zip(tmp_path / "b.zip", {"1.png": png(IMAGES[0])})
    assert len(load(f"folder:{first}+folder:{zipped}")) == 7


def test_union_split_of_the_first_part_is_its_own(tmp_path: Path, load) -> None:
    first, second = two_folders(tmp_path)
    name = f"folder:{first}@train+folder:{second}"
    assert union_parts(name) == (f"folder:{first}@train", f"folder:{second}")
    assert len(load(name)) == len(load(f"folder:{first}@train")) + 6


@pytest.mark.parametrize("name", ["folder:{a}+digits", "digits+folder:{a}", "folder:{a}@train+folder:{b}"])
def test_union_source_loads_the_same_images_again(tmp_path: Path, load, name: str) -> None:
    first, second = two_folders(tmp_path)
    found = load(name.format(a=first, b=second), resolution=8)
    again = load(found.info["source"], resolution=8)
    assert (again.fingerprint, again.info["source"]) == (found.fingerprint, found.info["source"])


def test_split_all_is_everything_unless_a_folder_has_its_name(tmp_path: Path, load) -> None:
    first, _ = two_folders(tmp_path)
    assert len(load(f"folder:{first}@all")) == len(load(f"folder:{first}")) == 6
    write_folder(first / "all", IMAGES[:2], None)
    assert len(load(f"folder:{first}@all")) == 2
