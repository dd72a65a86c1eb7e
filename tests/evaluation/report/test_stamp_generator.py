"""Scores in a generator file: the digest stays, and each has its protocol."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest

from artifacts.generator_file import check
from evaluation.extractors import load_extractor
from evaluation.references.reference_file import load_reference
from evaluation.report.stamp_generator import stamp
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.tiny_generator import write_tiny_generator


@pytest.fixture
def workspace(workspace: Path) -> Path:
    for split in ("test", "train"):
        done = run("reference", f"folder:pictures@{split}", "--extractor", "e.onnx", "--output", f"{split}.npz")
        assert done.exit_code == 0, done.output
    return workspace


def score(*words: object, reference: str = "test.npz", n: int = 30, stamp: str = "g.onnx") -> tuple:
    always = ("score", "g.onnx", "--reference", reference, "--num-images", n, "--stamp", stamp, "--no-baseline")
    return (*always, *words)


def stamped(path: str = "g.onnx") -> dict:
    return check(onnx.load(path)).evaluation


def test_stamp_keeps_the_digest_and_is_read_by_the_service(workspace: Path) -> None:
    write_tiny_generator(workspace / "other.onnx", seed=3)
    before = check(onnx.load("g.onnx")).digest
    done = run(*score("--metrics", "fid,precision"))
    assert done.exit_code == 0, done.output
    assert check(onnx.load("g.onnx")).digest == before
    numbers = {name for name, value in stamped().items() if isinstance(value, float)}
    assert numbers == {"fd_tiny30", "precision_tiny30"}, "what the studio shows of them"
    assert set(stamped()) == numbers | {f"{name}.protocol" for name in numbers}
    assert f"{stamped()['fd_tiny30']:.4f}" in done.stdout
    assert "its digest is" in one_line(run(*score(stamp="other.onnx")))


def test_stamp_each_score_has_its_own_protocol(workspace: Path) -> None:
    assert run(*score("--metrics", "fid,precision")).exit_code == 0
    first = stamped()
    assert run(*score("--truncation", 0.7, "--intervals", n=31, reference="train.npz")).exit_code == 0
    second = stamped()
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


def test_stamp_score_of_the_same_name_is_replaced(workspace: Path) -> None:
    assert run(*score()).exit_code == 0
    first = stamped()
    model = onnx.load("g.onnx")
    model.metadata_props.add(key="evaluation.protocol", value='{"extractor": "of the last stamp"}')
    onnx.save(model, "g.onnx")
    assert run(*score(reference="train.npz")).exit_code == 0
    second = stamped()
    assert set(second) == set(first), "and one protocol for all of them is gone"
    assert second["fd_tiny30"] != first["fd_tiny30"]
    assert second["fd_tiny30.protocol"]["split"] == "train"
    assert second["fd_tiny30.protocol"]["reference_sha256"] == load_reference("train.npz").sha256


def set_scores(**scores: tuple[float, dict]) -> None:
    """Stamp scores into g.onnx as an earlier version did."""
    model = onnx.load("g.onnx")
    for name, (value, protocol) in scores.items():
        model.metadata_props.add(key=f"evaluation.{name}", value=json.dumps(value))
        model.metadata_props.add(key=f"evaluation.{name}.protocol", value=json.dumps(protocol))
    onnx.save(model, "g.onnx")


def test_stamp_former_names_become_the_present_ones(workspace: Path) -> None:
    distance = {"metric": "fid", "n": 10_000}
    kernel = {"metric": "kid", "n": 10_000, "details": {"subset_size": 500}}
    set_scores(
        fd_dinov210k=(1.5, distance),
        fd_classifier_infinity10k=(2.5, distance),
        kid10k=(3.5, kernel),
        fd_old=(4.5, {}),
    )
    assert run(*score()).exit_code == 0
    found = {name: value for name, value in stamped().items() if isinstance(value, float)}
    del found["fd_tiny30"]
    assert found == {
        "fd_dinov2_10k": 1.5,
        "fd_classifier_infinity_10k": 2.5,
        "kid10k_subset500": 3.5,
        "fd_old": 4.5,
    }
    assert json.loads(json.dumps(stamped()["fd_dinov2_10k.protocol"])) == distance


def test_stamp_different_scores_do_not_replace_each_other(workspace: Path) -> None:
    write_tiny_extractor(workspace / "i.onnx", metric="fd_tiny_infinity", name="tiny_infinity")
    assert run(*score("--metrics", "fid_infinity,kid", "--kid-subset-size", 10, "--extractor", "e.onnx")).exit_code == 0
    words = ("--metrics", "fid,kid", "--kid-subset-size", 15, "--extractor", "i.onnx")
    assert run(*score(*words, reference="folder:pictures@test")).exit_code == 0
    numbers = {name for name, value in stamped().items() if isinstance(value, float)}
    assert numbers == {
        "fd_tiny_infinity30",
        "fd_tiny_infinity_30",
        "kd_tiny30_subset10",
        "kd_tiny_infinity_30_subset15",
    }


def test_stamp_over_a_score_of_another_protocol_warns(workspace: Path) -> None:
    assert run(*score()).exit_code == 0
    assert "replaces" not in run(*score()).stderr, "the same score again"
    old = stamped()["fd_tiny30"]
    done = run(*score(reference="train.npz"))
    assert done.exit_code == 0
    assert f"fd_tiny30 replaces the stamped {old}, which was made with another reference" in done.stderr


def test_stamp_two_jobs_at_once_keeps_both(workspace: Path) -> None:
    documents = []
    for n in (30, 31, 32, 33):
        assert run(*score(n=n)[:-3], "--no-baseline", "-o", f"{n}.json").exit_code == 0
        documents.append(json.loads(Path(f"{n}.json").read_text(encoding="utf-8")))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda document: stamp(Path("g.onnx"), document), documents))
    assert {f"fd_tiny{n}" for n in (30, 31, 32, 33)} <= set(stamped())
