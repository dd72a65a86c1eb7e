"""One rule for what a name refers to, whichever side it is on."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluation
import imagesets
from evaluation.errors import EvaluationError
from evaluation.sources import resolve
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.fake_service import fake_service, noise
from tests.support.image_archives import write_parquet, write_tar
from tests.support.image_files import write_pictures


@pytest.fixture
def workspace(workspace: Path) -> Path:
    """The same real images as a folder, a zip, an npy and an npz."""
    images = np.stack([np.asarray(Image.open(path)) for path in sorted(Path("pictures/test").iterdir())])
    np.save("real.npy", images)
    np.savez("real.npz", images=images)
    with zipfile.ZipFile("real.zip", "w") as archive:
        for path in sorted(Path("pictures").rglob("*.png")):
            archive.write(path, path.relative_to("pictures"))
    (workspace / "UP.ZIP").write_bytes((workspace / "real.zip").read_bytes())
    pixels = [path.read_bytes() for path in sorted(Path("pictures/test").iterdir())]
    write_parquet(workspace / "hf" / "data" / "test-00000-of-00001.parquet", pixels)
    write_tar(workspace / "real.tar", {f"{i:06}.png": data for i, data in enumerate(pixels)})
    write_tar(workspace / "half.tar", {f"{i:06}.png": data for i, data in enumerate(pixels[:20])})
    write_parquet(workspace / "rest.parquet", pixels[20:])
    (workspace / "runs").mkdir()
    (workspace / "runs/config.json").write_text("{}", encoding="utf-8")
    np.savez("statistics.npz", mu=np.zeros(4), sigma=np.eye(4))
    (workspace / "mnist").mkdir()
    return workspace


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("http://h:1/x", "service", ""),
        ("HTTPS://h", "service", ""),
        ("g.onnx", "generator", ""),
        ("absent.PT", "checkpoint", ""),
        ("runs", "checkpoint", ""),
        ("real.npy", "arrays", ""),
        ("real.npz", "arrays", ""),
        ("absent.npz", "arrays", ""),
        ("statistics.npz", "statistics", ""),
        ("pictures", "images", "folder:pictures"),
        ("pictures/", "images", "folder:pictures/"),
        ("pictures@test", "images", "folder:pictures@test"),
        ("folder:pictures@test", "images", "folder:pictures@test"),
        ("folder:runs", "images", "folder:runs"),
        ("real.zip", "images", "folder:real.zip"),
        ("folder:real.zip", "images", "folder:real.zip"),
        ("real.zip@train", "images", "folder:real.zip@train"),
        ("UP.ZIP@test", "images", "folder:UP.ZIP@test"),
        ("real.tar", "images", "folder:real.tar"),
        ("real.tar@train", "images", "folder:real.tar@train"),
        ("rest.parquet", "images", "folder:rest.parquet"),
        ("hf@test", "images", "folder:hf@test"),
        ("folder:real.npz", "images", "folder:real.npz"),
        ("real.npz@test", "images", "folder:real.npz@test"),
        ("folder:pictures+folder:hf@test", "images", "folder:pictures+folder:hf@test"),
        ("folder:pictures@test+folder:hf@test", "images", "folder:pictures+folder:hf@test"),
        ("mnist+folder:hf@test", "images", "mnist+folder:hf@test"),
        ("mnist", "images", "mnist"),
        ("mnist@test", "images", "mnist@test"),
        ("./mnist", "images", "folder:./mnist"),
    ],
)
def test_resolve_names_are_of_one_kind_each(workspace: Path, text: str, kind: str, name: str) -> None:
    found = resolve(text)
    assert (found.kind, found.name) == (kind, name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("folder:", "names no folder"),
        ("a/b", "no file or folder"),
        ("folder:a+folder:b", "there is no folder or file at b"),
        ("e.txt", "not a source"),
        ("photoz", "there is no file, folder or dataset 'photoz'; the datasets are digits, mnist"),
        ("mnizt@test", "there is no file, folder or dataset 'mnizt@test'; did you mean mnist"),
        ("n" * 5000, "cannot read nnn.*: File name too long"),
        ("n" * 5000 + "@test", "cannot read nnn.*: File name too long"),
        (Path("n" * 5000 + ".npz"), "cannot read nnn.*: File name too long"),
    ],
)
def test_resolve_of_nothing_known_fails(workspace: Path, text: str | Path, words: str) -> None:
    Path("e.txt").write_text("x", encoding="utf-8")
    with pytest.raises(EvaluationError, match=words):
        resolve(text)


@pytest.mark.parametrize("value", [None, b"pictures", Image.new("L", (8, 8)), iter([]), 3, [[1]], {"a": 1}])
def test_resolve_of_another_type_lists_the_accepted_ones(value: object) -> None:
    with pytest.raises(EvaluationError, match=rf"path, URL or name .*ImageSet.*, not as {type(value).__name__}$"):
        resolve(value)


@pytest.mark.parametrize("images", [[], (), [np.zeros((2, 2), np.uint8), np.zeros((3, 3), np.uint8)]])
def test_resolve_of_a_list_needs_equally_sized_arrays(images: list) -> None:
    with pytest.raises(EvaluationError, match="arrays of one size"):
        resolve(images)


@pytest.mark.parametrize("command", ["score", "fid", "classify", "reference"])
def test_command_of_no_such_name_says_so_before_the_extractor(workspace: Path, command: str) -> None:
    words = {"score": ("--reference", "pictures@test"), "fid": ("pictures@test",)}.get(command, ())
    line = one_line(run(command, "photoz", *words, "--extractor", "absent.onnx"))
    assert "there is no file, folder or dataset 'photoz'" in line


def test_score_takes_an_image_set_and_a_list(workspace: Path) -> None:
    options = {"extractor": "e.onnx", "baseline": False}
    test, train = (imagesets.load(f"folder:pictures@{split}") for split in ("test", "train"))
    expected = evaluation.score("pictures@train", "pictures@test", **options)["fd_tiny60"]
    assert evaluation.score(train, test, **options)["fd_tiny60"] == expected
    pictures = list(train.images)
    assert evaluation.score(pictures, test, **options)["fd_tiny60"] == expected
    assert evaluation.fid(test, list(test.images), extractor="e.onnx") < 1e-9
    changed = dataclasses.replace(test, images=255 - test.images)
    with pytest.raises(EvaluationError, match=r"give the array, `\.images`"):
        evaluation.fid(train, changed, extractor="e.onnx")
    with pytest.raises(EvaluationError, match="loaded at 8x8 and 16x16 are needed"):
        evaluation.score(np.zeros((9, 16, 16, 1), np.uint8), test, **options)


NAMES = (
    "pictures@test",
    "folder:pictures@test",
    "real.zip@test",
    "folder:real.zip@test",
    "real.npy",
    "real.npz",
    "real.tar",
    "hf@test",
    "folder:real.npz",
    "folder:half.tar+folder:rest.parquet",
)


@pytest.mark.parametrize("name", NAMES)
def test_score_each_name_is_taken_on_both_sides(workspace: Path, name: str) -> None:
    words = ("--extractor", "e.onnx", "--num-images", 40, "--no-baseline", "--metrics", "fid,recall", "-o", "r.json")
    done = run("score", name, "--reference", "UP.ZIP@test", *words)
    assert done.exit_code == 0, done.output
    first = json.loads(Path("r.json").read_text(encoding="utf-8"))
    done = run("score", "folder:UP.ZIP@test", "--reference", name, *words)
    assert done.exit_code == 0, done.output
    second = json.loads(Path("r.json").read_text(encoding="utf-8"))
    for report in (first, second):
        assert report["scores"]["fd_tiny40"] < 1e-9
        assert report["scores"]["recall_tiny40"] == 1.0
    contents = {first["source"]["fingerprint"], second["reference"]["image_set"]["fingerprint"]}
    assert len(contents) == 1, "one content under any name"


def test_score_against_a_union_has_the_baseline_of_its_other_split(workspace: Path) -> None:
    write_pictures(workspace / "more", 30, 20)
    words = ("--extractor", "e.onnx", "--num-images", 40, "--metrics", "fid", "-o", "r.json")
    done = run("score", "g.onnx", "--reference", "folder:pictures+folder:more@test", *words)
    assert done.exit_code == 0, done.output
    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert report["reference"]["n"] == 60
    folders = "+".join(f"folder:{workspace / name}" for name in ("pictures", "more"))
    assert report["reference"]["image_set"]["source"] == folders
    assert report["baseline"]["image_set"] == f"{folders}@train"


def test_reference_of_an_array_file_is_made_and_used(workspace: Path) -> None:
    assert run("reference", "real.npy", "--extractor", "e.onnx", "-o", "made.npz").exit_code == 0
    done = run("score", "real.zip@test", "--reference", "made.npz", "--num-images", 40)
    assert done.exit_code == 0, done.output
    assert "no train-against-test baseline: the reference is of real.npy, not of a train or test split" in done.stderr


@pytest.mark.parametrize("name", ["g.onnx", "http://127.0.0.1:9", "runs"])
def test_reference_of_a_generator_fails(workspace: Path, name: str) -> None:
    line = one_line(run("score", "g.onnx", "--reference", name, "--extractor", "e.onnx"))
    assert "a reference is of real images" in line
    assert "a reference is of real images" in one_line(run("reference", name, "--extractor", "e.onnx"))


def test_reference_array_file_of_another_size_fails(workspace: Path) -> None:
    np.save("large.npy", np.zeros((5, 16, 16), np.uint8))
    line = one_line(run("score", "g.onnx", "--reference", "large.npy", "--extractor", "e.onnx"))
    assert "16x16 and 8x8 are needed" in line
    assert "--resolution reference" in line


@pytest.mark.parametrize("key", ["", "wrong"])
def test_service_with_a_key_names_the_variable(workspace: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("ATELIER_API_KEY", key)
    with fake_service(noise, key="right") as url:
        line = one_line(run("score", url, "--reference", "pictures@test", "--extractor", "e.onnx"))
    assert ("$ATELIER_API_KEY is set to another key" if key else "set $ATELIER_API_KEY to its key") in line


@pytest.mark.parametrize("key", ["a b", "ключ", "a\nb"])
def test_service_key_that_no_header_carries_is_one_line(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("ATELIER_API_KEY", key)
    line = one_line(run("score", "http://127.0.0.1:9", "--reference", "pictures@test", "--extractor", "e.onnx"))
    assert "$ATELIER_API_KEY is not a key" in line
    assert key not in line


def test_service_key_may_end_in_a_line_break(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_API_KEY", "right\r\n")
    with fake_service(noise, key="right") as url:
        done = run("score", url, "--reference", "pictures@test", "--extractor", "e.onnx", "--num-images", 20)
    assert done.exit_code == 0, done.output
