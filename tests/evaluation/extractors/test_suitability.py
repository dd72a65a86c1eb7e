"""What an extractor file claims about itself, and whether it fits the images that it scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from evaluation.cli import app
from evaluation.errors import EvaluationError
from evaluation.extractors import load_extractor
from evaluation.extractors.extractor import FID_NETWORK, FID_WEIGHTS_SHA256
from evaluation.extractors.suitability import accuracy_limits, suitability_warnings
from tests.support.evaluation.tiny_extractor import write_tiny_extractor

SCORE = ("score", "g.onnx", "--reference", "folder:pictures@test", "--extractor", "e.onnx", "--num-images", "30")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def write_classifier(path: Path, accuracy: float, **metadata: Any) -> Path:
    """Write a tiny extractor file that is a classifier of the 10 digits, as its metadata have it."""
    known = {"dataset": "digits@train", "test_dataset": "digits@test", "accuracy": accuracy, "seed": 0}
    return write_tiny_extractor(path, classes=10, **(known | metadata))


@pytest.mark.parametrize(("chance", "limits"), [(0.1, (0.2, 0.55)), (0.5, (0.75, 0.75)), (0.9, (0.95, 0.95))])
def test_accuracy_limits_of_any_chance_are_reachable(chance: float, limits: tuple[float, float]) -> None:
    assert accuracy_limits(chance) == pytest.approx(limits)


def test_score_with_a_chance_classifier_fails(workspace: Path) -> None:
    write_classifier(workspace / "e.onnx", 0.11, dataset=f"folder:{workspace / 'pictures'}@train")
    done = run(*SCORE, "--output", "out")
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert "accuracy of 11.0%, and chance is 10.0%" in line
    assert "--force" in line
    assert not (workspace / "out").exists()


def test_score_with_force_warns_at_the_top_of_the_report(workspace: Path) -> None:
    dataset = f"folder:{workspace / 'pictures'}@train"
    write_classifier(workspace / "e.onnx", 0.11, dataset=dataset)
    done = run(*SCORE, "--output", "out", "--force")
    assert done.exit_code == 0, done.output
    text = f"tiny, trained on {dataset}, has an accuracy of 11.0%"
    assert f"WARNING: the classifier {text}" in done.stderr
    document = json.loads((workspace / "out/report.json").read_text(encoding="utf-8"))
    assert any(text in warning for warning in document["warnings"])
    page = (workspace / "out/report.html").read_text(encoding="utf-8")
    assert page.index("has an accuracy of 11.0%") < page.index("fd_tiny30")


def test_score_with_a_classifier_of_another_set_warns(workspace: Path) -> None:
    write_classifier(workspace / "e.onnx", 0.98)
    done = run(*SCORE, "--output", "out.json")
    assert done.exit_code == 0, done.output
    assert "trained on digits@train, has an accuracy of 98.0%, and the real images are of folder:" in done.stderr


def test_merge_and_shards_with_a_chance_classifier_fail(workspace: Path) -> None:
    write_classifier(workspace / "e.onnx", 0.11)
    assert run(*SCORE, "--shard", "0/1", "--output", "parts").exit_code == 2
    assert run(*SCORE, "--shard", "0/1", "--output", "parts", "--force").exit_code == 0
    assert "--force" in run("merge", "parts", "--output", "merged").stderr
    assert run("merge", "parts", "--output", "merged", "--force").exit_code == 0


def test_classify_with_a_chance_classifier_fails(workspace: Path) -> None:
    write_classifier(workspace / "e.onnx", 0.11)
    words = ("classify", "g.onnx", "--extractor", "e.onnx", "--num-images", "8")
    assert run(*words).exit_code == 2
    done = run(*words, "--force")
    assert done.exit_code == 0, done.output
    assert "accuracy of 11.0%" in done.stderr


def test_suitability_of_its_own_training_set_has_no_warning(tmp_path: Path) -> None:
    extractor = load_extractor(
        write_classifier(tmp_path / "e.onnx", 0.98, dataset_fingerprint="a", test_fingerprint="b")
    )
    digits = {"source": "digits", "name": "digits@test", "split": "test"}
    assert suitability_warnings(extractor, digits | {"fingerprint": "b"}) == []
    assert suitability_warnings(extractor, {"source": "folder:/moved", "fingerprint": "b"}) == []
    assert suitability_warnings(extractor, digits | {"fingerprint": "c", "resolution": 16}) == []


def test_suitability_of_changed_images_of_one_name_warns(tmp_path: Path) -> None:
    known = {"dataset_fingerprint": "a", "test_fingerprint": "b", "resolution": 32, "channels": 1}
    extractor = load_extractor(write_classifier(tmp_path / "e.onnx", 0.98, **known))
    changed = {"source": "digits", "name": "digits@test", "split": "test", "resolution": 32, "channels": 1}
    (text,) = suitability_warnings(extractor, changed | {"fingerprint": "c"})
    assert "digits@test with other content" in text


def test_suitability_below_halfway_to_perfect_warns(tmp_path: Path) -> None:
    (text,) = suitability_warnings(load_extractor(write_classifier(tmp_path / "e.onnx", 0.4)))
    assert "accuracy of 40.0%" in text
    assert "with care" in text


def test_suitability_of_inception_has_no_warning(tmp_path: Path) -> None:
    extractor = load_extractor(write_tiny_extractor(tmp_path / "e.onnx", dataset="imagenet"))
    assert suitability_warnings(extractor, {"source": "digits"}) == []


# --- what a file claims


@pytest.mark.parametrize("metric", ["fid", "clean_fid"])
def test_load_extractor_fid_with_other_weights_fails(metric: str, tmp_path: Path) -> None:
    path = write_tiny_extractor(tmp_path / "e.onnx", metric=metric, network=FID_NETWORK, resize="tf1 (linear)")
    with pytest.raises(
        EvaluationError, match=f"claims the metric {metric}, which belongs to Inception's published weights"
    ):
        load_extractor(path)


def test_load_extractor_fid_with_another_resize_fails(tmp_path: Path) -> None:
    known = {"metric": "fid", "network": FID_NETWORK, "weights_sha256": FID_WEIGHTS_SHA256}
    with pytest.raises(EvaluationError, match="with the resize 'clean"):
        load_extractor(write_tiny_extractor(tmp_path / "e.onnx", resize="clean (PIL)", **known))
    assert load_extractor(write_tiny_extractor(tmp_path / "e.onnx", resize="tf1 (linear)", **known)).metric == "fid"


@pytest.mark.parametrize("metric", ["", "fd_a b", "fd_../x", "fd_x\n", "fd_" + "x" * 200])
def test_load_extractor_invalid_metric_fails(metric: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="its metric"):
        load_extractor(write_tiny_extractor(tmp_path / "e.onnx", metric=metric))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[31mred", "x" * 300])
def test_load_extractor_name_of_two_lines_fails(name: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="its name"):
        load_extractor(write_tiny_extractor(tmp_path / "e.onnx", name=name))


@pytest.mark.parametrize("value", ["high", "nan", "-inf", ""])
@pytest.mark.parametrize("key", ["accuracy", "chance"])
def test_load_extractor_invalid_number_fails(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="not a number"):
        load_extractor(write_tiny_extractor(tmp_path / "e.onnx", **{key: value}))


@pytest.mark.parametrize("value", ["-0.1", "1.01", "97"])
@pytest.mark.parametrize("key", ["accuracy", "chance"])
def test_load_extractor_accuracy_above_1_fails(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="not between 0 and 1"):
        load_extractor(write_tiny_extractor(tmp_path / "e.onnx", **{key: value}))


@pytest.mark.parametrize("name", ["../../../evil/x", "/absolute/x", "..", "a/b", "über ß", "~/x"])
def test_file_stem_of_any_name_stays_inside_the_cache(
    name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(workspace / "a/b/c/cache"))
    write_tiny_extractor(workspace / "e.onnx", name=name)
    before = {path for path in workspace.rglob("*") if path.is_file()}
    assert run(*SCORE, "--output", "out.json").exit_code == 0
    assert run("reference", "folder:pictures@test", "--extractor", "e.onnx").exit_code == 0
    made = {path for path in workspace.rglob("*") if path.is_file()} - before - {workspace / "out.json"}
    assert any(path.suffix == ".npz" for path in made)
    for path in made:
        assert path.is_relative_to(workspace / "a/b/c/cache") or path.parent == workspace / "reference"
