"""`.npz` and `.npy` files: arrays by their names, and arrays that are no images."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagesets import ImageSetError
from imagesets.formats import arrays as array_files
from tests.support.image_archives import pictures, write_npz

N = 6
IMAGES = pictures(N)
LABELS = np.array([2, 0, 1, 1, 0, 2])


@pytest.mark.parametrize("key", ["images", "image", "x", "X", "imgs", "data", "arr_0", "samples", "my_pictures"])
def test_npz_images_are_found_by_their_name_or_as_the_only_ones(tmp_path: Path, load, key: str) -> None:
    path = write_npz(tmp_path / "a.npz", **{key: IMAGES, "seeds": np.arange(N), "fid": np.array(1.0)})
    assert np.array_equal(load(f"folder:{path}").images, IMAGES)


@pytest.mark.parametrize("key", ["labels", "label", "y", "targets", "arr_1"])
def test_npz_labels_are_found_by_their_name(tmp_path: Path, load, key: str) -> None:
    for labels in (LABELS, LABELS[:, None].astype(np.uint8), LABELS.astype(np.float32), LABELS.astype(str)):
        found = load(f"folder:{write_npz(tmp_path / 'a.npz', images=IMAGES, **{key: labels})}")
        assert found.labels.tolist() == LABELS.tolist()
        assert found.class_names == ("0", "1", "2")


def test_npz_class_names_name_the_labels(tmp_path: Path, load) -> None:
    names = np.array(["ox", "ape", "cat"])
    found = load(f"folder:{write_npz(tmp_path / 'a.npz', images=IMAGES, labels=LABELS, class_names=names)}")
    assert (found.class_names, found.labels.tolist()) == (("ox", "ape", "cat"), LABELS.tolist())


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("XTrain", "YTrain", "XTest", "YTest"),
    ],
)
def test_npz_names_hold_the_splits(tmp_path: Path, load, keys: tuple[str, ...]) -> None:
    values = (IMAGES[:4], LABELS[:4], IMAGES[4:], LABELS[4:])
    path = write_npz(tmp_path / "a.npz", **dict(zip(keys, values, strict=True)))
    train, test = load(f"folder:{path}@train"), load(f"folder:{path}@test")
    assert np.array_equal(train.images, IMAGES[:4])
    assert np.array_equal(test.images, IMAGES[4:])
    assert test.labels.tolist() == LABELS[4:].tolist()
    assert len(load(f"folder:{path}")) == N


def test_npz_files_of_a_folder_are_splits_or_one_set(tmp_path: Path, load) -> None:
    for name, part in (("train.npz", slice(0, 4)), ("test.npz", slice(4, 6))):
        write_npz(tmp_path / name, images=IMAGES[part], labels=LABELS[part])
    assert np.array_equal(load(f"folder:{tmp_path}@test").images, IMAGES[4:])
    (tmp_path / "test.npz").rename(tmp_path / "batch_2.npz")
    (tmp_path / "train.npz").rename(tmp_path / "batch_1.npz")
    found = load(f"folder:{tmp_path}")
    assert np.array_equal(found.images, IMAGES)
    assert found.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("shape", [(N, 8, 8), (N, 8, 8, 1), (N, 1, 8, 8)])
def test_npz_gray_images_have_any_of_three_shapes(tmp_path: Path, load, shape: tuple[int, ...]) -> None:
    gray = IMAGES[..., 0].copy()
    found = load(f"folder:{write_npz(tmp_path / 'a.npz', images=gray.reshape(shape))}")
    assert np.array_equal(found.images[..., 0], gray)


def test_npz_images_that_are_not_square_are_cropped_like_files(tmp_path: Path, load) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (N, 8, 12, 3), dtype=np.uint8)
    found = load(f"folder:{write_npz(tmp_path / 'a.npz', images=wide)}", resolution=8)
    assert np.array_equal(found.images, wide[:, :, 2:10])


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((N, 8, 8, 3), np.float32), r"is float32 .* not uint8; .* in \[0, 1\]: \(images \* 255\)"),
        (np.zeros((N, 8, 8), np.int64), r"is int64 .*images\.astype\('uint8'\)"),
        (np.zeros((N, 8, 8), bool), r"is bool .*images\.astype\('uint8'\) \* 255"),
        (np.zeros((N, 8, 8, 2), np.uint8), "neither its second nor its last axis has 1, 3 or 4 channels"),
        (np.zeros((N, 3, 8, 3), np.uint8), "either its second or its last axis may be the channels"),
        (np.zeros((8, 8, 3), np.uint8), r"is it one image \[H, W, C\]"),
        (np.zeros((N, 64), np.uint8), r"not uint8 \[N, H, W\]"),
        (np.zeros((0, 8, 8), np.uint8), r"not uint8 \[N, H, W\]"),
        (np.asfortranarray(IMAGES), "Fortran order; save np.ascontiguousarray"),
        (np.array(["a", "b"]), r"not uint8 \[N, H, W\]"),
        (np.array(3), r"not uint8 \[N, H, W\]"),
    ],
)
def test_npz_of_other_arrays_says_how_to_convert_them(tmp_path: Path, load, images: np.ndarray, reason: str) -> None:
    with pytest.raises(ImageSetError, match=reason) as caught:
        load(f"folder:{write_npz(tmp_path / 'a.npz', images=images)}")
    assert "images in " in str(caught.value)
    assert str(caught.value).count(str(tmp_path)) == 1


def test_conversion_that_a_message_names_gives_the_images(tmp_path: Path, load) -> None:
    lines = array_files._TO_UINT8
    zero_one, minus_one = (re.sub(r"^.*?: ", "", part) for part in lines.split("; "))
    for expression, values in ((zero_one, IMAGES / 255.0), (minus_one, IMAGES / 127.5 - 1)):
        converted = eval(expression, {"images": values.astype(np.float32)})
        assert np.array_equal(converted, IMAGES)


def test_npz_without_images_lists_what_it_has(tmp_path: Path, load) -> None:
    path = write_npz(tmp_path / "a.npz", features=np.zeros((2, 3)))
    with pytest.raises(ImageSetError, match=r"no array that is called `images`.*there are features float64 \[2, 3\]"):
        load(f"folder:{path}")
    path = write_npz(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.zeros((3, 3)))
    with pytest.raises(ImageSetError, match="statistics of images, which are a --reference"):
        load(f"folder:{path}")
    path = write_npz(tmp_path / "a.npz", left=IMAGES, right=IMAGES)
    with pytest.raises(ImageSetError, match="no array that is called `images`"):
        load(f"folder:{path}")


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (np.eye(3)[LABELS], "no classes: labels in .* is float64 \\[6, 3\\], not a class number per image"),
        (LABELS + 0.5, "no classes: a value of labels in .* is 2.5, not a whole number"),
        (LABELS - 1, "no classes: a value of labels in .* is -1, below 0"),
    ],
)
def test_npz_labels_that_are_no_classes_are_a_note(tmp_path: Path, load, labels: np.ndarray, note: str) -> None:
    found = load(f"folder:{write_npz(tmp_path / 'a.npz', images=IMAGES, labels=labels)}")
    assert found.labels is None
    assert re.search(note, found.info["contents"])


def test_npz_of_more_labels_than_images_is_one_line(tmp_path: Path, load) -> None:
    with pytest.raises(ImageSetError, match=r"has 6 images but labels in .* is \[5\]"):
        load(f"folder:{write_npz(tmp_path / 'a.npz', images=IMAGES, labels=LABELS[:5])}")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/atelier-was-unpickled"),))


def test_npz_of_objects_is_never_unpickled(tmp_path: Path, load) -> None:
    Path("/tmp/atelier-was-unpickled").unlink(missing_ok=True)
    path = tmp_path / "a.npz"
    np.savez(path, images=np.array([Bomb(), Bomb()], dtype=object))
    np.save(tmp_path / "b.npy", np.array([Bomb()], dtype=object))
    for file in (path, tmp_path / "b.npy"):
        with pytest.raises(ImageSetError, match="Python objects, which are never unpickled"):
            load(f"folder:{file}")
    assert not Path("/tmp/atelier-was-unpickled").exists()


def test_npy_header_that_claims_more_is_refused_without_allocating(tmp_path: Path, load) -> None:
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 1000, 1000)}
    np.lib.format.write_array_header_1_0(buffer, header)
    (tmp_path / "a.npy").write_bytes(buffer.getvalue() + bytes(100))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", buffer.getvalue() + bytes(100))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ImageSetError, match=r"uint8 \[1000000000, 1000, 1000\] in 100 bytes"):
            load(f"folder:{tmp_path / name}")


def test_npz_that_is_compressed_is_read_in_any_order(tmp_path: Path) -> None:
    from imagesets.formats.archives import all_contents

    np.savez_compressed(tmp_path / "a.npz", images=IMAGES)
    members = all_contents(tmp_path / "a.npz").members
    for row in (3, 0, 5, 5, 1):
        assert members[row].read().endswith(IMAGES[row].tobytes())


def test_npz_arrays_that_are_not_images_may_be_of_any_kind(tmp_path: Path, load) -> None:
    others = {"meta": np.array([{"a": 1}], dtype=object), "features": np.asfortranarray(np.zeros((N, 3)))}
    found = load(f"folder:{write_npz(tmp_path / 'a.npz', images=IMAGES, labels=LABELS, **others)}")
    assert np.array_equal(found.images, IMAGES)
    assert found.labels.tolist() == LABELS.tolist()


def test_npz_labels_that_are_objects_are_a_note(tmp_path: Path, load) -> None:
    labels = np.array(["cat", "dog"] * (N // 2), dtype=object)
    found = load(f"folder:{write_npz(tmp_path / 'a.npz', images=IMAGES, labels=labels)}")
    assert found.labels is None
    assert f"no classes: labels in {tmp_path}/a.npz is object [{N}]" in found.info["contents"]


def test_npz_images_in_fortran_order_are_one_line(tmp_path: Path, load) -> None:
    path = write_npz(tmp_path / "a.npz", images=np.asfortranarray(IMAGES))
    with pytest.raises(ImageSetError, match=r"is in Fortran order; save np\.ascontiguousarray of it"):
        load(f"folder:{path}")


def test_npz_with_two_arrays_of_one_meaning_is_one_line(tmp_path: Path, load) -> None:
    path = write_npz(tmp_path / "a.npz", x_train=IMAGES, train_x=255 - IMAGES)
    with pytest.raises(ImageSetError, match="whose names mean the same, x_train and train_x; keep one"):
        load(f"folder:{path}")


def test_npz_of_more_images_than_bytes_is_refused(tmp_path: Path, load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_files, "MAX_EMPTY_ROWS", 1000)
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((100_000, 1, 1), np.uint8))
    with pytest.raises(ImageSetError, match=r"images in .* has 100,000 rows in [0-9,]+ bytes, which images do not"):
        load(f"folder:{tmp_path}/a.npz")
