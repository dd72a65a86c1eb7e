"""Labels of `dataset.json`, `metadata.csv` and `metadata.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagesets import ImageSetError
from imagesets.formats.labels import LabelError, LabelReader
from tests.support.image_archives import labels_of, pictures, png, write_folder, write_stylegan, write_zip

N = 6
IMAGES = pictures(N)


def stylegan(labels: Any) -> bytes:
    return json.dumps({"labels": labels}).encode()


def test_dataset_json_labels_are_classes_in_the_order_of_their_numbers(tmp_path: Path, load) -> None:
    found = load(f"folder:{write_stylegan(tmp_path / 's.zip', IMAGES, [10, 2, 2, 0, 10, 0])}")
    assert found.class_names == ("0", "2", "10")
    assert found.labels.tolist() == [2, 1, 1, 0, 2, 0]


def test_dataset_json_classes_take_the_names_of_class_folders(tmp_path: Path, load) -> None:
    entries = [["eels/1.png", 1], ["eels/2.png", 1], ["cats/3.png", 0], ["cats/4.png", 0]]
    files = {path: png(IMAGES[i]) for i, (path, _) in enumerate(entries)}
    found = load(f"folder:{write_zip(tmp_path / 's.zip', {**files, 'dataset.json': stylegan(entries)})}")
    assert found.class_names == ("cats", "eels")
    mixed = [["eels/1.png", 1], ["eels/2.png", 0], ["cats/3.png", 0], ["cats/4.png", 0]]
    found = load(f"folder:{write_zip(tmp_path / 's.zip', {**files, 'dataset.json': stylegan(mixed)})}")
    assert found.class_names == ("0", "1")
    assert found.labels.tolist() == [0, 0, 1, 0]  # in the order of the paths


def test_dataset_json_without_labels_makes_no_class_of_a_numbered_folder(tmp_path: Path, load) -> None:
    found = load(f"folder:{write_stylegan(tmp_path / 's.zip', IMAGES, None)}")
    assert (found.labels, found.class_names) == (None, ())
    assert found.info["contents"].endswith("; folders that only number the images are not classes")


def test_dataset_json_without_labels_keeps_class_folders(tmp_path: Path, load) -> None:
    folder = write_folder(tmp_path / "f", IMAGES, labels_of(N), {"dataset.json": stylegan(None)})
    assert load(f"folder:{folder}").class_names == ("cats", "dogs", "eels")


def test_dataset_json_in_each_split_labels_that_split(tmp_path: Path, load) -> None:
    files: dict[str, bytes] = {}
    for split, labels in (("train", [0, 1]), ("test", [1, 1])):
        files |= {f"{split}/{i}.png": png(IMAGES[i]) for i in range(2)}
        files[f"{split}/dataset.json"] = stylegan([[f"{i}.png", label] for i, label in enumerate(labels)])
    path = write_zip(tmp_path / "s.zip", files)
    assert load(f"folder:{path}@train").labels.tolist() == [0, 1]
    assert load(f"folder:{path}@test").labels.tolist() == [1, 1]


def test_dataset_json_in_each_zip_labels_that_zip(tmp_path: Path, load) -> None:
    for split, labels in (("train", [0, 1, 2, 0, 1, 2]), ("test", [1] * N)):
        write_stylegan(tmp_path / f"{split}.zip", IMAGES, labels)
    assert load(f"folder:{tmp_path}@train").labels.tolist() == [0, 1, 2, 0, 1, 2]
    test = load(f"folder:{tmp_path}@test")
    assert test.labels.tolist() == [1] * N
    assert test.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda entries: entries[:-2], "no classes: 2 of 6 images have no label"),
        (
            lambda entries: [[path, [0.5, 1.0]] for path, _ in entries],
            "no classes from dataset.json: a label is a list",
        ),
        (lambda entries: [[path, 0.5] for path, _ in entries], "a label is 0.5, not a whole number"),
        (lambda entries: [[path, -1] for path, _ in entries], "a label is -1, below 0"),
        (lambda entries: [[path, True] for path, _ in entries], "a label is true or false"),
        (lambda entries: [[f"x/{path}", 0] for path, _ in entries], "it names none of the 6 images"),
        (lambda entries: [[path, 7] for path, _ in entries], "no classes: all images have the label 7"),
    ],
)
def test_dataset_json_that_gives_no_classes_is_a_note(tmp_path: Path, load, change: Any, note: str) -> None:
    entries = [[f"00000/{i}.png", i % 2] for i in range(N)]
    files = {f"00000/{i}.png": png(IMAGES[i]) for i in range(N)} | {"dataset.json": stylegan(change(entries))}
    found = load(f"folder:{write_zip(tmp_path / 's.zip', files)}")
    assert found.labels is None
    assert np.array_equal(found.images, IMAGES)
    assert note in found.info["contents"]


def test_dataset_json_labels_of_missing_files_are_counted(tmp_path: Path, load) -> None:
    entries = [[f"{i}.png", i % 2] for i in range(N + 3)]
    files = {f"{i}.png": png(IMAGES[i]) for i in range(N)} | {"dataset.json": stylegan(entries)}
    found = load(f"folder:{write_zip(tmp_path / 's.zip', files)}")
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert "dataset.json has labels of 3 files that are not there" in found.info["contents"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"labels": [', "cannot be read"),
        (b'{"labels": "x"}', "`labels` is not a list"),
        (b'{"labels": [["0.png"]]}', "entry 0 of `labels` is not"),
        (b'{"labels": [["0.png", 1], ["0.png", 2]]}', "two labels"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_dataset_json_that_is_damaged_is_one_line(tmp_path: Path, load, data: bytes, reason: str) -> None:
    with pytest.raises(ImageSetError, match=reason) as caught:
        load(f"folder:{write_zip(tmp_path / 's.zip', {'0.png': png(IMAGES[0]), 'dataset.json': data})}")
    assert "dataset.json" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("data", [b"[]", b'{"name": "ours"}', b'"text"'])
def test_dataset_json_of_another_program_is_only_counted(tmp_path: Path, load, data: bytes) -> None:
    folder = write_folder(tmp_path / "f", IMAGES, labels_of(N), {"dataset.json": data})
    found = load(f"folder:{folder}")
    assert found.class_names == ("cats", "dogs", "eels")
    assert found.info["contents"].endswith("left out: 1 .json")


def test_metadata_csv_and_jsonl_give_numbers_or_names(tmp_path: Path, load) -> None:
    rows = "file_name,label\n" + "".join(f"{i:04}.png,{i % 3}\n" for i in range(N))
    found = load(f"folder:{write_folder(tmp_path / 'a', IMAGES, None, {'metadata.csv': rows.encode()})}")
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
    lines = "".join(json.dumps({"file_name": f"{i:04}.png", "label": "ox" if i else "ant"}) + "\n" for i in range(N))
    found = load(f"folder:{write_folder(tmp_path / 'b', IMAGES, None, {'metadata.jsonl': lines.encode()})}")
    assert found.class_names == ("ant", "ox")
    assert found.labels.tolist() == [0, 1, 1, 1, 1, 1]


def test_metadata_without_labels_is_only_counted(tmp_path: Path, load) -> None:
    rows = "file_name,text\n" + "".join(f"{i:04}.png,a photo\n" for i in range(N))
    found = load(f"folder:{write_folder(tmp_path / 'a', IMAGES, None, {'metadata.csv': rows.encode()})}")
    assert found.labels is None
    assert found.info["contents"].endswith("left out: 1 .csv")


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, True, -1, 2**60, 0.5, float("nan"), float("inf"), "", "x\ny"])
def test_label_reader_refuses_what_is_no_class(value: object) -> None:
    with pytest.raises(LabelError):
        LabelReader()(value)


def test_label_reader_reads_numbers_names_and_names_of_numbers() -> None:
    assert [LabelReader()(value) for value in (3, 3.0, "3", " 3\n", "cat")] == [(3, "3")] * 4 + [(0, "cat")]
    assert LabelReader(["a", "b"])(1) == (1, "b")
    with pytest.raises(LabelError, match="2, but there are 2 class names"):
        LabelReader(["a", "b"])(2)
