"""The command line: what it prints, what it writes, how it fails. One line, never a traceback."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.extractors import load_extractor
from evaluation.metrics import fid_infinity
from evaluation.metrics.fid_infinity import Extrapolation
from evaluation.metrics.frechet import frechet_distance
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.fake_service import fake_service, noise
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.tiny_generator import write_tiny_generator


@pytest.fixture
def workspace(workspace: Path) -> Path:
    """A folder with pictures, an extractor and reference statistics of the pictures' test split."""
    done = run("reference", "folder:pictures@test", "--extractor", "e.onnx", "--output", "r.npz")
    assert done.exit_code == 0, done.output
    return workspace


def test_score_of_a_generator_file_reports_the_baseline(workspace: Path) -> None:
    done = run("score", "g.onnx", "--reference", "r.npz", "--num-images", 50, "--output", "out/report.json")
    assert done.exit_code == 0, done.output
    report = json.loads((workspace / "out/report.json").read_text(encoding="utf-8"))
    assert list(report["scores"]) == ["fd_tiny50"], "in no features but Inception's is it called FID"
    assert report["baseline"]["image_set"].endswith("pictures@train")
    assert report["baseline"]["n"] == report["n"] == 50
    assert report["baseline"]["scores"]["fd_tiny50"] < report["scores"]["fd_tiny50"]
    assert report["seeds"] == {"first": 0, "last": 49}
    assert report["extractor"]["digest"] == load_extractor("e.onnx").digest
    assert report["reference"]["n"] == 40
    assert "train against test" in done.stdout
    protocol = f"(50 images; tiny, resize none; against 40 of {report['reference']['image_set']['name']})"
    assert protocol in done.stdout.splitlines()[0]
    again = run("score", "g.onnx", "--reference", "r.npz", "--num-images", 50, "--no-baseline", "-o", "b.json")
    assert again.exit_code == 0
    assert json.loads((workspace / "b.json").read_text(encoding="utf-8"))["scores"] == report["scores"]


def test_score_is_the_distance_of_the_seeds_features(workspace: Path) -> None:
    from evaluation.sources import SeedRange, open_source

    run("score", "g.onnx", "--reference", "r.npz", "--num-images", 70, "--seed", 5, "-o", "r.json", "--no-baseline")
    images = np.concatenate([batch.images for batch in open_source("g.onnx").batches(SeedRange(5, 70), 0, 70, 9)])
    features = load_extractor("e.onnx")(images).features.astype(np.float64)
    with np.load("r.npz") as real:
        expected = frechet_distance(features.mean(0), np.cov(features, rowvar=False), real["mu"], real["sigma"])
    (value,) = json.loads((workspace / "r.json").read_text(encoding="utf-8"))["scores"].values()
    assert value == pytest.approx(expected, rel=1e-9)


def test_score_of_a_service_is_that_of_its_images(workspace: Path) -> None:
    with fake_service(noise) as url:
        done = run("score", url, "--reference", "r.npz", "--num-images", 200, "--output", "report.json")
    assert done.exit_code == 0, done.output
    report = json.loads((workspace / "report.json").read_text(encoding="utf-8"))
    assert report["source"]["url"] == url
    assert report["digest"] == "a" * 64
    assert report["scores"]["fd_tiny200"] < 3 * report["baseline"]["scores"]["fd_tiny60"], "noise against noise"


def test_score_of_the_reference_images_is_zero(workspace: Path) -> None:
    done = run("score", "folder:pictures@test", "--reference", "r.npz", "--output", "z.json")
    assert done.exit_code == 0, done.output
    report = json.loads((workspace / "z.json").read_text(encoding="utf-8"))
    assert report["scores"]["fd_tiny40"] < 1e-9
    assert report["seeds"] is None
    assert any("only 40 images" in text for text in report["warnings"])


def test_score_missing_its_threshold_exits_1_and_reports_it(workspace: Path) -> None:
    done = run("score", "g.onnx", "--reference", "r.npz", "--num-images", 30, "-o", "r.json", "--fail-above", 0.0001)
    assert "above 0.0001" in one_line(done, 1)
    assert json.loads((workspace / "r.json").read_text(encoding="utf-8"))["threshold"]["passed"] is False
    done = run("score", "g.onnx", "--reference", "r.npz", "--num-images", 30, "--fail-above", 1e9)
    assert done.exit_code == 0


def test_score_negative_extrapolation_warns_and_fails(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Extrapolation(-2.47, (20, 30), (1.0, 0.5), 0.75)
    monkeypatch.setattr(fid_infinity, "fid_infinity", lambda *arguments, **settings: found)
    words = ("--metrics", "fid_infinity", "--num-images", 30, "--fail-above", 5, "--no-baseline", "-o", "r.json")
    done = run("score", "g.onnx", "--reference", "r.npz", *words)
    assert one_line(done, 1) == "failed: fd_tiny_infinity30 -2.4700 is negative, so not a distance: use more images"
    assert "WARNING: fd_tiny_infinity30 is -2.4700" in done.stderr
    report = json.loads((workspace / "r.json").read_text(encoding="utf-8"))
    assert report["threshold"]["passed"] is False
    assert report["results"][0]["details"]["standard_error"] == 0.75
    assert any("standard error 0.7500" in text for text in report["warnings"])


def test_score_extrapolation_of_few_images_fails_first(workspace: Path) -> None:
    write_tiny_extractor(workspace / "wide.onnx", dim=50)
    words = ("--reference", "folder:pictures@test", "--extractor", "wide.onnx", "--metrics", "fid_infinity")
    for more in ((), ("--shard", "0/2", "--output", "parts")):
        done = run("score", "g.onnx", *words, "--num-images", 200, *more)
        assert "fid_infinity needs 225 images or more for 50 features, and there are 200" in one_line(done)


def test_score_of_fewer_images_than_features_warns(workspace: Path) -> None:
    write_tiny_extractor(workspace / "wide.onnx", dim=50)
    run("reference", "folder:pictures@test", "--extractor", "wide.onnx", "--output", "wide.npz")
    done = run("score", "g.onnx", "--reference", "wide.npz", "--num-images", 20, "-o", "r.json")
    assert done.exit_code == 0, done.output
    assert "WARNING: 20 images for 50 features" in done.stderr
    assert "WARNING: 40 reference images for 50 features" in done.stderr
    assert len(json.loads((workspace / "r.json").read_text(encoding="utf-8"))["warnings"]) == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fail_after": 2}, "it broke"),
        ({"change_after": 2}, "replaced|changed"),
        ({"shape": (16, 16, 1)}, "16x16"),
    ],
)
def test_score_of_a_service_that_fails_midway_leaves_no_report(workspace: Path, options: dict, reason: str) -> None:
    import re

    with fake_service(noise, **options) as url:
        done = run("score", url, "--reference", "r.npz", "--num-images", 1000, "--output", "report.json")
    assert re.search(reason, one_line(done))
    assert not list(workspace.glob("report*"))


def test_score_of_images_of_another_size_than_listed_fails(workspace: Path) -> None:
    with fake_service(lambda seed: np.zeros((9, 9, 1), np.uint8)) as url:
        assert "[9, 9, 1]" in one_line(run("score", url, "--reference", "r.npz", "--num-images", 100))


def test_score_user_error_is_one_line(workspace: Path) -> None:
    write_tiny_extractor(workspace / "other.onnx", seed=9)
    write_tiny_generator(workspace / "big.onnx", size=16)
    write_tiny_generator(workspace / "forged.onnx", digest="0" * 64)
    (workspace / "cut.onnx").write_bytes((workspace / "g.onnx").read_bytes()[:-200])
    (workspace / "cut.npz").write_bytes((workspace / "r.npz").read_bytes()[:-200])
    score = ("score", "g.onnx", "--reference", "r.npz", "--num-images", 30)
    for arguments, reason in (
        ((*score, "--extractor", "other.onnx"), "cannot be compared"),
        ((*score, "--extractor", "absent.onnx"), "no extractor file at absent.onnx"),
        ((*score, "--output", "g.onnx"), "it is a file"),
        ((*score, "--metrics", "fdi"), "there is no metric fdi"),
        ((*score, "--output", "g.onnx/x.json"), "cannot write"),
        ((*score, "--seed", 2**53), "2^53"),
        ((*score, "--model", "x"), "--model names a model of a service"),
        (("score", "g.onnx", "--reference", "absent.npz"), "no reference statistics"),
        (("score", "g.onnx", "--reference", "cut.npz"), "cut.npz"),
        (("score", "g.onnx", "--reference", "e.onnx"), "a reference is of real images"),
        (("score", "big.onnx", "--reference", "r.npz"), "--resolution 16"),
        (("score", "forged.onnx", "--reference", "r.npz"), "changed after"),
        (("score", "cut.onnx", "--reference", "r.npz"), "cut.onnx"),
        (("score", "e.onnx", "--reference", "r.npz"), "not a generator file"),
        (("score", "r.npz", "--reference", "r.npz"), "statistics, which are a --reference"),
        (("score", "absent.pt", "--reference", "r.npz"), "no checkpoint at absent.pt"),
        (("score", "mnits", "--reference", "r.npz"), "did you mean mnist"),
        (("reference", "folder:absent", "--extractor", "e.onnx"), "no folder"),
        (("classify", "g.onnx", "--extractor", "g.onnx"), "not an extractor file"),
        (("extractor", "inception", "--weights", "r.npz", "--resize", "torch", "-o", "i.onnx"), "sha256"),
    ):
        assert reason in one_line(run(*arguments)), arguments
    (workspace / "e.onnx").unlink()
    assert "give --extractor" in one_line(run(*score))


def test_classify_reports_confidence_and_shares_with_minimums(workspace: Path) -> None:
    done = run("classify", "g.onnx", "--extractor", "e.onnx", "--num-images", 64, "--sure", 0.5, "-o", "c.json")
    assert done.exit_code == 0, done.output
    assert "confidence of at least 0.5: 100.0% of 64 images" in done.stdout
    report = json.loads((workspace / "c.json").read_text(encoding="utf-8"))
    assert sum(report["class_shares"].values()) == pytest.approx(1)
    line = one_line(run("classify", "g.onnx", "--extractor", "e.onnx", "--sure", 1, "--min-sure-share", 0.9), 1)
    assert "with confidence 1, less than 90.0%" in line
    line = one_line(run("classify", "g.onnx", "--extractor", "e.onnx", "--min-class-share", 0.6), 1)
    assert "of the images, less than 60.0%" in line


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, evaluation.cli; "
        "print([m for m in ('torch', 'numpy', 'onnx', 'scipy', 'httpx', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "evaluation", "score", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 1.0, "seconds of the processor: half of one by itself, whatever else the machine does"


def test_score_needs_no_torch(workspace: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'sklearn'): sys.modules[name] = None\n"
        "from evaluation.cli import app\n"
        "app(['score', 'g.onnx', '--reference', 'r.npz', '--num-images', '20'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=workspace, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fd_tiny20 = ")


def test_option_misspelled_is_one_line(workspace: Path) -> None:
    words = ("score", "g.onnx", "--reference", "r.npz")
    assert "'--num-images'" in one_line(run(*words, "--num-images", 1))
    assert "--sead" in one_line(run(*words, "--sead", 1))
    assert "'--reference'" in one_line(run("score", "g.onnx"))
    assert "scare" in one_line(run("scare"))
    nothing = run()
    assert nothing.exit_code == 2
    assert "Commands" in nothing.output
    assert run("score", "--help").exit_code == 0


def test_data_root_is_that_of_the_trainer(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_OFFLINE", "1")
    monkeypatch.setenv("DATA_ROOT", "elsewhere")
    for words in (("reference", "mnist@test"), ("score", "g.onnx", "--reference", "mnist@test")):
        line = one_line(run(*words, "--extractor", "e.onnx"))
        assert "elsewhere/MNIST/raw" in line
        assert "--data-root" in line
        assert "given/MNIST/raw" in one_line(run(*words, "--extractor", "e.onnx", "--data-root", "given"))
