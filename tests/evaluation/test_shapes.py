"""Scores of rectangular and transparent images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluation
from artifacts.images.alpha import over_white
from evaluation.extractors import load_extractor
from evaluation.extractors.from_torch import build_random_convolutions
from evaluation.sources.resized import resize
from tests.support.evaluation.commands import one_line, run
from tests.support.tiny_generator import write_tiny_generator

E = {"extractor": "e.onnx"}


def rgba(n: int, height: int = 8, width: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 4), dtype=np.uint8)


def write(folder: Path, images: np.ndarray) -> Path:
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / split / f"{index:03}.png")
    return folder


@pytest.fixture
def shapes(workspace: Path) -> Path:
    """The workspace with stickers/ (RGBA, 8x12) and clear.onnx, a generator of such images."""
    write(workspace / "stickers", rgba(40, seed=3))
    write_tiny_generator(workspace / "clear.onnx", size=(8, 12), channels=4)
    return workspace


def test_extractor_draws_rgba_over_white(workspace: Path) -> None:
    extractor, images = load_extractor("e.onnx"), rgba(5)
    assert np.array_equal(extractor(images).features, extractor(over_white(images)).features)


def test_score_of_rgba_rectangles_states_the_composition(shapes: Path) -> None:
    words = ("--reference", "stickers@test", "--extractor", "e.onnx", "--num-images", 40, "-o", "report")
    done = run("score", "clear.onnx", *words)
    assert done.exit_code == 0, done.output
    document = json.loads((shapes / "report/report.json").read_text())
    assert document["results"][0]["resolution"] == "8x12"
    assert "RGBA images were drawn over white for the features, generated and real ones alike" in document["warnings"]
    assert "12 x 8 px, RGBA, drawn over white for the features" in (shapes / "report/report.md").read_text()
    assert run("report", "report").exit_code == 0


def test_score_of_rgba_equals_that_of_the_images_over_white(shapes: Path) -> None:
    images = rgba(30)
    clear = evaluation.fid(images, rgba(30, seed=3), **E)
    assert clear == pytest.approx(evaluation.fid(over_white(images), over_white(rgba(30, seed=3)), **E), rel=1e-9)


def test_reference_of_rgba_keeps_the_alpha_that_is_requested(shapes: Path) -> None:
    for channels in (3, 4):
        words = ("stickers@test", "--extractor", "e.onnx", "--channels", channels, "-o", f"{channels}.npz")
        assert run("reference", *words, "--resolution", "8x12").exit_code == 0
        done = run("score", "clear.onnx", "--reference", f"{channels}.npz", "--extractor", "e.onnx", "--num-images", 30)
        assert done.exit_code == 0, done.output
        assert "the reference's have" not in done.stderr


def test_score_of_another_aspect_ratio_names_both_sizes(shapes: Path) -> None:
    assert (
        run("reference", "stickers@test", *("--extractor", "e.onnx", "--resolution", 8, "-o", "r.npz")).exit_code == 0
    )
    words = ("score", "clear.onnx", "--reference", "r.npz", "--extractor", "e.onnx", "--num-images", 30)
    assert "the images are 8x12 and the reference's 8x8" in one_line(run(*words))
    done = run(*words, "--resolution", "reference")
    assert "resized from 8x12 to 8x8 (pil-bicubic), to another aspect ratio" in done.stderr


@pytest.mark.parametrize("resolution", ["16x24", (16, 24)])
def test_fid_resizes_both_sides_to_a_rectangle(shapes: Path, resolution: object) -> None:
    with pytest.warns(UserWarning, match="resized from 8x12 to 16x24"):
        assert evaluation.fid(rgba(30), rgba(30), resolution=resolution, **E) < 1e-9  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0x8", "8x5000", "8x", "x8", "8x8x8"])
def test_option_resolution_that_is_none_is_one_line(workspace: Path, text: str) -> None:
    line = one_line(
        run("score", "g.onnx", "--reference", "pictures@test", "--extractor", "e.onnx", "--resolution", text)
    )
    assert "--resolution is `reference` or a side in pixels or HEIGHTxWIDTH" in line


def test_option_resolution_out_of_range_is_one_line(workspace: Path) -> None:
    line = run("extractor", "random-convolutions", "--resolution", "8x300", "-o", "r.onnx")
    assert line.exit_code == 2
    assert "8x300 is not in the range 4<=x<=256" in " ".join(line.output.split())


def test_resize_of_rgba_does_not_mix_in_hidden_colors() -> None:
    images = np.zeros((1, 8, 8, 4), np.uint8)
    images[..., 1] = 255  # hidden green
    images[:, :, :3] = (200, 30, 30, 255)
    resized = resize(images, "4x4")
    assert resized[resized[..., 3] > 0][:, 1].max() <= 35


def test_random_convolutions_of_a_rectangle_resize_nothing(tmp_path: Path) -> None:
    built = build_random_convolutions(tmp_path / "r.onnx", "8x12", 3)
    assert built.metadata["resolution"] == "8x12"
    features = load_extractor(built.path)(rgba(4)).features
    assert features.shape == (4, 256)
