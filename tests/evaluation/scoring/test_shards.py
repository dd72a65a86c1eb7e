"""Shares of a job, done anywhere and added, are the job; and what else a job can be asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.metrics.frechet import FeatureStatistics
from evaluation.scoring.shards import parse_shard
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.tiny_generator import write_tiny_generator

METRICS = "fid,kid,precision,recall,is,fid_infinity"


def score(*words: object) -> tuple:
    return ("score", "g.onnx", "--reference", "folder:pictures@test", "--extractor", "e.onnx", "--num-images", *words)


@pytest.mark.parametrize("dim", [3, 300])
def test_feature_statistics_of_parts_add_up(dim: int) -> None:
    """In any order of unequal parts, to 1e-12 of one pass over all rows; singular covariances too."""
    rows = np.random.default_rng(0).normal(5, 2, (200, dim)).astype(np.float32)
    whole = FeatureStatistics.from_features(rows)
    merged = FeatureStatistics(dim)
    for start, stop in ((150, 200), (0, 1), (1, 70), (70, 70), (70, 150)):
        part = FeatureStatistics(dim)
        part.update(rows[start:stop])
        merged.merge(FeatureStatistics.from_state(**dict(part.state())))  # type: ignore[arg-type]
    assert merged.n == 200
    assert np.linalg.norm(merged.mu - whole.mu) <= 1e-12 * np.linalg.norm(whole.mu)
    assert np.linalg.norm(merged.sigma - whole.sigma) <= 1e-12 * np.linalg.norm(whole.sigma)
    np.testing.assert_allclose(merged.sigma, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dim", [4, 90])
def test_merge_of_all_shards_equals_the_whole_job(workspace: Path, dim: int) -> None:
    """Also with more features than reference images (40), where the covariance has not full rank."""
    write_tiny_extractor(workspace / "e.onnx", dim=dim)
    metrics = "fid,precision,is,fid_infinity" if dim == 4 else "fid,precision,is"
    words = ("--metrics", metrics, "--intervals", "--no-baseline")
    assert run(*score(61, *words, "--output", "whole")).exit_code == 0
    for index in (2, 0, 1):  # by whichever machine comes first
        done = run(*score(61, *words, "--output", "parts", "--shard", f"{index}/3"))
        assert done.exit_code == 0, done.output
        assert done.stdout.strip() == f"parts/shard-{index}-of-3"
    done = run("merge", "parts", "--output", "merged", "--no-baseline")
    assert done.exit_code == 0, done.output
    whole, merged = (
        json.loads((workspace / name / "report.json").read_text(encoding="utf-8")) for name in ("whole", "merged")
    )
    assert list(whole["scores"]) == list(merged["scores"])
    for name, value in whole["scores"].items():
        assert merged["scores"][name] == pytest.approx(value, rel=1e-6), name
    for ours, theirs in zip(whole["results"], merged["results"], strict=True):
        if ours["interval"] is not None:
            assert theirs["interval"]["values"] == pytest.approx(ours["interval"]["values"], rel=1e-6)
    for key in ("n", "seeds", "digest", "model"):
        assert merged[key] == whole[key]
    assert (np.load("merged/images/samples.npy") == np.load("whole/images/samples.npy")).all()


def test_merge_of_shards_of_different_jobs_fails(workspace: Path) -> None:
    for index in (0, 1):
        assert run(*score(40, "--output", "parts", "--shard", f"{index}/3")).exit_code == 0
    assert "shard 2 of 3 is missing" in one_line(run("merge", "parts"))
    assert run(*score(40, "--output", "parts", "--shard", "2/3")).exit_code == 0
    again = run(*score(40, "--output", "parts", "--shard", "2/3"))
    assert again.exit_code == 0, "a job that is started again finds its share done"
    assert "other arguments" in one_line(run(*score(50, "--output", "parts", "--shard", "2/3")))
    assert run(*score(40, "--output", "other", "--shard", "1/3", "--seed", 7)).exit_code == 0
    shutil.rmtree("parts/shard-1-of-3")
    line = one_line(run("merge", "parts", "other"))
    assert "different jobs: their first_seed differ" in line
    assert "given twice" in one_line(run("merge", "parts", "parts/shard-0-of-3"))
    assert "no shard in" in one_line(run("merge", "pictures"))
    assert "needs an --output folder" in one_line(run(*score(40, "--shard", "0/3")))
    assert "cannot be shared by 90" in one_line(run(*score(40, "--output", "many", "--shard", "0/90")))
    for text in ("3/3", "1", "-1/2", "a/b"):
        with pytest.raises(EvaluationError, match="I from 0 to N - 1"):
            parse_shard(text)


def test_score_interval_is_over_disjoint_seeds(workspace: Path) -> None:
    done = run(*score(30, "--intervals", "--seed", 100, "-o", "five.json", "--no-baseline"))
    assert done.exit_code == 0, done.output
    report = json.loads((workspace / "five.json").read_text(encoding="utf-8"))
    (result,) = report["results"]
    assert report["seeds"] == {"first": 100, "last": 249}
    apart = []
    for first in range(100, 250, 30):
        assert run(*score(30, "--seed", first, "-o", f"{first}.json", "--no-baseline")).exit_code == 0
        apart.append(
            next(iter(json.loads((workspace / f"{first}.json").read_text(encoding="utf-8"))["scores"].values()))
        )
    assert result["interval"]["values"] == apart
    assert result["value"] == report["scores"][result["name"]] == pytest.approx(np.mean(apart), rel=1e-12)
    assert result["details"]["first_range"] == apart[0], "what the same job without intervals would have said"
    assert result["interval"]["low"] < result["value"] < result["interval"]["high"]
    line = one_line(run("score", "folder:pictures@train", *score(30)[2:], "--intervals"))
    assert "5 x 30 images, and there are 60; take --num-images 12" in line


def test_score_of_classes_scores_each_and_a_choice(workspace: Path) -> None:
    """A conditional generator against a labelled set of the same classes, whatever their order."""
    rng = np.random.default_rng(2)
    np.savez("real.npz", images=rng.integers(0, 256, (90, 8, 8, 1), dtype=np.uint8), labels=np.arange(90) % 3)
    from PIL import Image

    for index, image in enumerate(np.load("real.npz")["images"]):
        folder = workspace / "real" / ("2", "0", "1")[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0]).save(folder / f"{index}.png")
    write_tiny_generator(workspace / "c.onnx", num_classes=3)
    words = ("--reference", "folder:real", "--extractor", "e.onnx", "--num-images", 60, "--no-baseline")
    done = run("score", "c.onnx", *words, "--metrics", "per_class", "--labels", "balanced", "-o", "c.json")
    assert done.exit_code == 0, done.output
    report = json.loads((workspace / "c.json").read_text(encoding="utf-8"))
    assert report["labels"] == "balanced"
    assert not any("classes have too few" in text for text in report["warnings"])
    write_tiny_extractor(workspace / "wide.onnx", dim=25)
    wide = run("score", "c.onnx", *words, "--extractor", "wide.onnx", "--metrics", "per_class", "-o", "w.json")
    assert wide.exit_code == 0, wide.output
    (warning,) = (
        text for text in json.loads((workspace / "w.json").read_text(encoding="utf-8"))["warnings"] if "classes" in text
    )
    assert warning.startswith("3 of 3 classes have too few images for 25 features (class "), "60 in all are enough"
    assert warning in " ".join(wide.stderr.split())
    classes = report["results"][0]["details"]["classes"]
    assert [(entry["class"], entry["n"], entry["n_reference"]) for entry in classes] == [
        ("0", 20, 30),
        ("1", 20, 30),
        ("2", 20, 30),
    ]
    one = run("score", "c.onnx", *words, "--labels", "1", "-o", "one.json")
    assert one.exit_code == 0
    assert "a class (0, 1, 2), not '7'" in one_line(run("score", "c.onnx", *words, "--labels", "7"))
    assert "has no classes" in one_line(run("score", "g.onnx", *words, "--labels", "balanced"))
    assert "needs images with labels" in one_line(run("score", "g.onnx", *words, "--metrics", "per_class"))
    write_tiny_generator(workspace / "d.onnx", num_classes=2)
    assert "not the same" in one_line(run("score", "d.onnx", *words, "--metrics", "per_class"))


def test_score_with_truncation_records_it_and_lowers_diversity(workspace: Path) -> None:
    reports = {}
    for truncation in ("0.1", "2"):
        assert run(*score(60, "--truncation", truncation, "-o", f"{truncation}.json")).exit_code == 0
        reports[truncation] = json.loads((workspace / f"{truncation}.json").read_text(encoding="utf-8"))
    assert reports["0.1"]["truncation"] == 0.1
    assert reports["0.1"]["scores"] != reports["2"]["scores"]
    write_tiny_generator(workspace / "u.onnx", z_distribution="uniform")
    words = ("--reference", "folder:pictures@test", "--extractor", "e.onnx", "--truncation", 1)
    assert "are uniform" in one_line(run("score", "u.onnx", *words))


def test_score_of_memorized_images_finds_and_shows_them(workspace: Path) -> None:
    """A source that repeats training images beside one that does not, with the pairs to look at."""
    from imagesets import load_image_set

    train = load_image_set("folder:pictures@train").images
    np.save(
        "copies.npy", np.concatenate([train[:30], np.random.default_rng(9).integers(0, 256, (30, 8, 8, 1), np.uint8)])
    )
    words = ("--reference", "folder:pictures@test", "--extractor", "e.onnx", "--metrics", "memorization")
    done = run("score", "copies.npy", *words, "--output", "report")
    assert done.exit_code == 0, done.output
    report = json.loads((workspace / "report" / "report.json").read_text(encoding="utf-8"))
    (result,) = report["results"]
    assert result["value"] >= 0.5
    held_out = result["details"]["held_out_share"]
    assert held_out < 0.2
    ratio = result["details"]["median"] / result["details"]["held_out_median"]
    assert result["details"]["median_ratio"] == ratio < 0.9, "half of them lie at 0"
    assert f"(real images: {held_out:.4f})" in " ".join(done.stdout.split())
    for view in ("report.md", "report.html"):
        text = " ".join((workspace / "report" / view).read_text(encoding="utf-8").split())
        assert f"{ratio:.4g}; well below 1" in text
    neighbours = np.load(workspace / "report" / report["pictures"]["neighbours"])
    assert neighbours.shape == (8, 5, 8, 8, 1)
    assert (neighbours[:, 0] == neighbours[:, 1]).all(), "each beside the training image that it is"
    assert report["baseline"] is None, "the held-out images beside are its own"


def test_merge_of_both_spellings_of_memorization_is_one_job(workspace: Path) -> None:
    for index in (0, 1):
        assert run(*score(40, "--output", "parts", "--metrics", "memorization", "--shard", f"{index}/2")).exit_code == 0
    manifest = Path("parts/shard-0-of-2/shard.json")
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("memorization", "memorisation"), encoding="utf-8")
    done = run("merge", "parts", "-o", "merged.json", "--no-baseline")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("part", "value", "option"),
    [("metrics", ["fid", "evil_metric:f"], "--metrics fid,"), ("reference", {"name": "evil_metric:f"}, "--reference ")],
)
def test_merge_of_shards_that_name_a_module_runs_no_code(
    part: str, value: object, option: str, workspace: Path
) -> None:
    assert run(*score(20, "--metrics", "fid", "--output", "parts", "--shard", "0/1")).exit_code == 0
    (workspace / "evil_metric.py").write_text("open('sprung', 'w')\n", encoding="utf-8")
    manifest = workspace / "parts/shard-0-of-1/shard.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text("utf-8")) | {part: value}), encoding="utf-8")
    line = one_line(run("merge", "parts", "--output", "merged"))
    assert f"no code that a file names is run; to allow it: {option}evil_metric:f" in line
    assert not (workspace / "sprung").exists()
