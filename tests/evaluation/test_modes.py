"""`evaluation modes`: known digits in known channels, and what it rejects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.fake_service import fake_service
from tests.support.evaluation.tiny_extractor import drawn_digits, write_digit_reader, write_tiny_extractor
from tests.support.image_files import write_mnist
from tests.support.tiny_generator import write_tiny_generator

N = 1000


@pytest.fixture
def digits(workspace: Path) -> np.ndarray:
    """The digits int [N, 3] of the images in rgb.npz; d.onnx reads them."""
    write_digit_reader(workspace / "d.onnx")
    # Of each channel other digits, so that a mix-up of channels or images gives other counts.
    drawn = np.random.default_rng(0).integers(0, [10, 7, 3], (N, 3))
    np.savez(workspace / "rgb.npz", images=drawn_digits(drawn))
    return drawn


def test_modes_are_the_digits_of_the_channels(workspace: Path, digits: np.ndarray) -> None:
    words = ("--extractor", "d.onnx", "--num-images", N, "--no-baseline", "-o", "m.json")
    done = run("modes", "rgb.npz", *words)
    assert done.exit_code == 0, done.output
    report = json.loads((workspace / "m.json").read_text(encoding="utf-8"))
    counts = np.unique(digits, axis=0, return_counts=True)[1]
    assert (report["kind"], report["n"], report["modes"], report["num_modes"]) == ("modes", N, len(counts), 1000)
    assert report["kl"] == pytest.approx((counts / N * np.log(1000 * counts / N)).sum())
    assert report["mean_confidence"] == pytest.approx(np.exp(8) / (np.exp(8) + 9), rel=1e-5)
    assert (report["extractor"]["name"], report["source"]["path"]) == ("tiny", "rgb.npz")
    assert "baseline" not in report
    share = f"{report['mean_confidence']:.1%}"
    line = f"{len(counts)} of 1000 modes, KL {report['kl']:.4f}, mean confidence {share} ({N} images)"
    assert done.stdout.splitlines() == [line]


def test_modes_baseline_is_that_of_real_images(workspace: Path, digits: np.ndarray) -> None:
    write_mnist(workspace / "data/mnist")
    done = run("modes", "rgb.npz", "--extractor", "d.onnx", "--num-images", N, "-o", "m.json")
    assert done.exit_code == 0, done.output
    baseline = json.loads((workspace / "m.json").read_text(encoding="utf-8"))["baseline"]
    assert (baseline["n"], baseline["source"]["name"]) == (N, "stacked-mnist@test")
    assert done.stdout.splitlines()[1].startswith(f"real images: {baseline['modes']} of 1000 modes, KL ")


def test_modes_of_a_generator_are_those_of_its_seeds(workspace: Path, digits: np.ndarray) -> None:
    write_tiny_generator(workspace / "rgb.onnx", channels=3)
    words = ("--extractor", "d.onnx", "--num-images", N, "--no-baseline")
    first, again, other = (run("modes", "rgb.onnx", *words, "--seed", seed).stdout for seed in (0, 0, N))
    assert first == again != other


def test_modes_user_error_is_one_line(workspace: Path, digits: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_OFFLINE", "1")
    rgb = ("modes", "rgb.npz", "--num-images", N)
    for arguments, reason in (
        (("modes", "g.onnx", "--extractor", "d.onnx", "--no-baseline"), "the images are gray"),
        ((*rgb, "--extractor", "e.onnx", "--no-baseline"), "e.onnx is not a classifier of ten digits: make one with"),
        (("modes", "rgb.npz", "--extractor", "d.onnx", "--no-baseline"), "1000 images, fewer than --num-images 26000"),
        ((*rgb, "--extractor", "d.onnx"), "mnist is not here"),
        (("modes", "rgb.npz", "--extractor", "d.onnx", "--num-images", 999), "'--num-images'"),
        (("modes", "mnits", "--extractor", "d.onnx"), "did you mean mnist"),
    ):
        assert reason in one_line(run(*arguments)), arguments


def test_modes_of_images_of_another_size_than_listed_fails(workspace: Path, digits: np.ndarray) -> None:
    with fake_service(lambda seed: np.zeros((9, 9, 3), np.uint8), shape=(8, 8, 3)) as url:
        done = run("modes", url, "--extractor", "d.onnx", "--num-images", N, "--no-baseline")
    assert "[9, 9, 3]" in one_line(done)


def test_modes_by_a_classifier_of_other_images_warns(workspace: Path, digits: np.ndarray) -> None:
    known = {"dataset": "fashion-mnist@train", "accuracy": 0.9, "chance": 0.1}
    write_tiny_extractor(workspace / "f.onnx", classes=10, **known)
    done = run("modes", "rgb.npz", "--extractor", "f.onnx", "--num-images", N, "--no-baseline")
    assert done.exit_code == 0, done.output
    assert "trained on fashion-mnist@train" in done.stderr
    write_tiny_extractor(workspace / "m.onnx", classes=10, **known | {"dataset": "mnist@train"})
    assert not run("modes", "rgb.npz", "--extractor", "m.onnx", "--num-images", N, "--no-baseline").stderr
