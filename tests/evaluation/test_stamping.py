"""Scores in a generator file: the digest stays, and each is told with what it was made of."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from evaluation.extractors import load_extractor
from evaluation.reference_files import load_reference
from service.generator_file import check
from tests.evaluation.test_cli import one_line, run
from tests.tiny_generator import write_tiny_generator


@pytest.fixture
def place(place: Path) -> Path:
    for split in ("test", "train"):
        done = run("reference", f"folder:pictures@{split}", "--extractor", "e.onnx", "--output", f"{split}.npz")
        assert done.exit_code == 0, done.output
    return place


def score(*words: object, reference: str = "test.npz", n: int = 30, stamp: str = "g.onnx") -> tuple:
    always = ("score", "g.onnx", "--reference", reference, "--num-images", n, "--stamp", stamp, "--no-baseline")
    return (*always, *words)


def told(path: str = "g.onnx") -> dict:
    return check(onnx.load(path)).evaluation


def test_a_stamp_changes_no_digest_and_the_service_reads_it(place: Path) -> None:
    write_tiny_generator(place / "other.onnx", seed=3)
    before = check(onnx.load("g.onnx")).digest
    done = run(*score("--metrics", "fid,precision"))
    assert done.exit_code == 0, done.output
    assert check(onnx.load("g.onnx")).digest == before
    numbers = {name for name, value in told().items() if isinstance(value, float)}
    assert numbers == {"fd_tiny30", "precision_tiny30"}, "what the studio shows of them"
    assert set(told()) == numbers | {f"{name}.protocol" for name in numbers}
    assert f"{told()['fd_tiny30']:.4f}" in done.stdout
    assert "its digest is" in one_line(run(*score(stamp="other.onnx")))


def test_each_score_keeps_the_protocol_that_it_was_made_by(place: Path) -> None:
    assert run(*score("--metrics", "fid,precision")).exit_code == 0
    first = told()
    assert run(*score("--truncation", 0.7, "--intervals", n=31, reference="train.npz")).exit_code == 0
    second = told()
    assert {name: second[name] for name in first} == first, "an older score keeps its own"
    made = first["fd_tiny30.protocol"]
    reference = load_reference("test.npz")
    assert made["extractor"] == "tiny"
    assert made["extractor_digest"] == load_extractor("e.onnx").digest
    assert made["reference"].endswith("pictures@test")
    assert made["reference_sha256"] == reference.sha256
    assert made["reference_fingerprint"] == reference.image_set["fingerprint"]
    expected = {"split": "test", "n_reference": 40, "resolution": 8, "n": 30, "resize": "none", "metric": "fid"}
    assert {key: made[key] for key in expected} == expected
    assert not {"truncation", "interval", "labels"} & set(made)
    assert first["precision_tiny30.protocol"]["details"] == {"k": 3}
    other = second["fd_tiny31.protocol"]
    assert (other["split"], other["n_reference"], other["truncation"]) == ("train", 60, 0.7)
    assert other["interval"]["low"] < other["interval"]["high"]


def test_a_score_of_the_same_name_is_replaced_with_its_protocol(place: Path) -> None:
    assert run(*score()).exit_code == 0
    first = told()
    model = onnx.load("g.onnx")
    model.metadata_props.add(key="evaluation.protocol", value='{"extractor": "of the last stamp"}')
    onnx.save(model, "g.onnx")
    assert run(*score(reference="train.npz")).exit_code == 0
    second = told()
    assert set(second) == set(first), "and one protocol for all of them is gone"
    assert second["fd_tiny30"] != first["fd_tiny30"]
    assert second["fd_tiny30.protocol"]["split"] == "train"
    assert second["fd_tiny30.protocol"]["reference_sha256"] == load_reference("train.npz").sha256
