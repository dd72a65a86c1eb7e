"""The same images in every form give equal arrays; a file that was cut gives them too, or one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imagesets import ImageSet, ImageSetError
from tests.support.image_archives import (
    CLASSES,
    labels_of,
    pictures,
    png,
    webdataset_files,
    write_folder,
    write_npz,
    write_parquet,
    write_stylegan,
    write_tar,
    write_zip,
)

N = 12
PNGS = [png(image) for image in pictures(N)]


def stylegan_folder(root: Path, labels: list[int] | None) -> Path:
    import zipfile

    with zipfile.ZipFile(write_stylegan(root.with_name("unpacked.zip"), pictures(N), labels)) as archive:
        archive.extractall(root)
    return root


def tar_shards(root: Path, labels: list[int] | None) -> Path:
    root.mkdir()
    for shard in range(3):
        part = slice(4 * shard, 4 * shard + 4)
        files = webdataset_files(pictures(N)[part], labels and labels[part], 4 * shard)
        write_tar(root / f"{shard:06}.tar", files)
    return root


def parquet_shards(root: Path, labels: list[int] | None) -> Path:
    for shard in range(2):
        part = slice(6 * shard, 6 * shard + 6)
        path = root / "data" / f"train-{shard:05}-of-00002.parquet"
        write_parquet(path, PNGS[part], labels and labels[part], row_group_size=4)
    return root


def plain_tar(path: Path, labels: list[int] | None) -> Path:
    """A tar of folders, its members in another order than their names'."""
    files = {(f"photos/{CLASSES[labels[i]]}/" if labels else "photos/") + f"{i:04}.png": PNGS[i] for i in range(N)}
    return write_tar(path, dict(reversed(files.items())))


def npz(path: Path, labels: list[int] | None) -> Path:
    return write_npz(path, images=pictures(N), **({"labels": np.array(labels)} if labels else {}))


def npy(root: Path, labels: list[int] | None) -> Path:
    root.mkdir()
    np.save(root / "images.npy", pictures(N).transpose(0, 3, 1, 2).copy())
    if labels:
        np.save(root / "labels.npy", np.array(labels))
    return root


FORMS: dict[str, tuple[str, Callable[[Path, list[int] | None], Path]]] = {
    "stylegan zip": ("s.zip", lambda path, labels: write_stylegan(path, pictures(N), labels)),
    "stylegan folder": ("s", stylegan_folder),
    "webdataset": ("w.tar", lambda path, labels: write_tar(path, webdataset_files(pictures(N), labels))),
    "webdataset shards": ("shards", tar_shards),
    "plain tar": ("p.tar", plain_tar),
    "parquet": ("p.parquet", lambda path, labels: write_parquet(path, PNGS, labels)),
    "parquet shards": ("hf", parquet_shards),
    "npz": ("a.npz", npz),
    "npy, channels first": ("arrays", npy),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("labeled", [True, False])
def test_form_gives_the_arrays_of_a_folder(tmp_path: Path, load, form: str, labeled: bool) -> None:
    labels = labels_of(N) if labeled else None
    expected = load(f"folder:{write_folder(tmp_path / 'folder', pictures(N), labels)}")
    name, write = FORMS[form]
    found = load(f"folder:{write(tmp_path / name, labels)}")
    assert np.array_equal(found.images, expected.images)
    assert np.array_equal(expected.images, pictures(N))
    assert found.fingerprint == expected.fingerprint  # of the labels too
    assert (found.labels is not None) == labeled
    named = form.startswith(("plain", "parquet"))
    assert found.class_names == (() if not labeled else CLASSES if named else ("0", "1", "2"))
    assert f"{N} of {N} " in found.info["contents"]
    assert "left out" not in found.info["contents"]


@pytest.mark.parametrize("form", FORMS)
def test_form_resized_to_gray_equals_a_folder(tmp_path: Path, load, form: str) -> None:
    expected = load(f"folder:{write_folder(tmp_path / 'folder', pictures(N), None)}", resolution=5, channels=1)
    name, write = FORMS[form]
    found = load(f"folder:{write(tmp_path / name, None)}", resolution=5, channels=1)
    assert np.array_equal(found.images, expected.images)


@pytest.mark.parametrize("form", FORMS)
def test_form_that_changed_is_read_again(tmp_path: Path, load, form: str) -> None:
    name, write = FORMS[form]
    path = write(tmp_path / name, labels_of(N))
    first = load(f"folder:{path}")
    assert load(f"folder:{path}").info["created"] == first.info["created"]
    if path.is_dir():
        path.rename(tmp_path / "old")
    changed = write(path, [*labels_of(N)[1:], 0])
    again = load(f"folder:{changed}")
    assert again.fingerprint != first.fingerprint


WITHOUT_SPLITS: dict[str, Callable[[Path, np.ndarray, list[int]], object]] = {
    "s.zip": write_stylegan,
    "w.tar": lambda path, images, labels: write_tar(path, webdataset_files(images, labels)),
    "p.parquet": lambda path, images, labels: write_parquet(path, [png(image) for image in images], labels),
    "a.npz": lambda path, images, labels: write_npz(path, images=images, labels=np.array(labels)),
}


@pytest.mark.parametrize("name", WITHOUT_SPLITS)
def test_form_holds_out_a_test_split_that_shares_nothing(tmp_path: Path, load, name: str) -> None:
    images = pictures(60)
    WITHOUT_SPLITS[name](tmp_path / name, images, labels_of(60))
    train, test = load(f"folder:{tmp_path / name}@train"), load(f"folder:{tmp_path / name}@test")
    both = np.concatenate([train.images, test.images])
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in images)
    assert 0 < len(test) < len(train)
    assert test.class_names == train.class_names
    assert len(test.class_names) == len(CLASSES)


CUT = {
    "zip": lambda path: write_zip(path, {f"{i}.png": data for i, data in enumerate(PNGS)}),
    "stylegan.zip": lambda path: write_stylegan(path, pictures(N), labels_of(N)),
    "webdataset.tar": lambda path: write_tar(path, webdataset_files(pictures(N), labels_of(N))),
    "x.parquet": lambda path: write_parquet(path, PNGS, labels_of(N), row_group_size=4),
    "x.npz": lambda path: write_npz(path, images=pictures(N), labels=np.array(labels_of(N))),
    "x.npy": lambda path: np.save(path, pictures(N)),
}


def loaded_or_line(load, path: Path) -> ImageSet | str:
    """Return the image set of a file, or the error's line."""
    try:
        found: ImageSet = load(f"folder:{path}")
    except ImageSetError as error:
        line = str(error)
    else:
        return found
    assert len(line.splitlines()) == 1
    return line


@pytest.mark.parametrize("name", CUT)
def test_file_that_was_cut_is_one_line_or_whole(tmp_path: Path, load, name: str) -> None:
    path = tmp_path / (name if "." in name else f"set.{name}")
    CUT[name](path)
    whole, data = load(f"folder:{path}"), path.read_bytes()
    # Every block border of a tar is among them, where it looks complete.
    lengths = {*range(0, len(data), max(1, len(data) // 97)), *range(0, len(data), 512), len(data) - 1}
    refused = 0
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        found = loaded_or_line(load, path)
        if isinstance(found, str):
            refused += 1
            assert path.name in found, (length, found)
        else:
            assert found.fingerprint == whole.fingerprint, length
    assert refused > 0.8 * len(lengths)


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_with_a_changed_byte_is_one_line_or_whole(tmp_path: Path, load, compressed: bool) -> None:
    path = tmp_path / "a.npz"
    write = np.savez_compressed if compressed else np.savez
    write(path, images=pictures(N), labels=np.array(labels_of(N)))
    whole, data = load(f"folder:{path}"), path.read_bytes()
    for at in range(0, len(data), len(data) // 80):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        found = loaded_or_line(load, path)
        assert isinstance(found, str) or np.array_equal(found.images, whole.images), at


def test_archives_in_a_folder_are_accounted_for(tmp_path: Path, load) -> None:
    write_parquet(tmp_path / "set" / "train-00000-of-00001.parquet", PNGS)
    (tmp_path / "set" / "README.md").write_text("about", encoding="utf-8")
    np.save(tmp_path / "set" / "features.npy", np.zeros(3))
    line = load(f"folder:{tmp_path / 'set'}").info["contents"]
    assert "@all: 12 of 12 rows are images (train 12); left out: 1 ." in line
    assert "1 .md" in line
    assert "1 .npy" in line


def test_images_next_to_archives_are_read_and_the_line_names_these(tmp_path: Path, load) -> None:
    write_parquet(tmp_path / "set" / "train-00000-of-00001.parquet", PNGS)
    (tmp_path / "set" / "logo.png").write_bytes(PNGS[0])
    found = load(f"folder:{tmp_path / 'set'}")
    assert len(found) == 1
    assert (
        "left out: 1 .parquet; archives next to images are not read; to read one, name it (train-00000-of"
        in (found.info["contents"])
    )


@pytest.mark.parametrize("blob", ["blob", "blob.bin"])
def test_archive_without_its_extension_is_known_by_its_content(tmp_path: Path, load, blob: str) -> None:
    for form in ("webdataset", "parquet", "stylegan zip"):
        name, write = FORMS[form]
        write(tmp_path / name, None).rename(tmp_path / blob)
        (tmp_path / name).symlink_to(tmp_path / blob)  # as in Hugging Face's cache
        for path in (tmp_path / blob, tmp_path / name):
            assert len(load(f"folder:{path}")) == N
