"""Random convolutions: their definition, and the extractor file of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evaluation.extractors import load_extractor
from evaluation.extractors.extractor_export import centered_relative_error
from evaluation.metrics import result_name
from evaluation.networks.random_convolutions import RandomConvolutions
from tests.support.evaluation.commands import one_line, run


def expected_features(images: np.ndarray) -> np.ndarray:
    """Features float32 [N, 256] of images uint8 [N, H, W, C]: what training measured before there was a file."""
    rng, channels = torch.Generator().manual_seed(0), images.shape[3]
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    for index, (into, out) in enumerate(((channels, 32), (32, 64), (64, 64))):
        weight = torch.randn(out, into, 3, 3, generator=rng) * math.sqrt(2 / (9 * into))
        x = F.relu(F.conv2d(x, weight, padding=1))
        if index < 2 and x.shape[-1] >= 4:
            x = F.avg_pool2d(x, 2)
    return F.adaptive_avg_pool2d(x, 2).flatten(1).numpy()


def noise(side: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, side, side, channels), dtype=np.uint8)


@pytest.mark.parametrize(("side", "channels"), [(4, 1), (28, 1), (32, 3), (33, 3)])
def test_random_convolutions_equal_their_definition(side: int, channels: int) -> None:
    images = noise(side, channels)
    torch.manual_seed(5)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    found = RandomConvolutions(channels)(pixels / 127.5 - 1.0).numpy()
    np.testing.assert_array_equal(found, expected_features(images))


@pytest.mark.parametrize(("side", "channels"), [(28, 1), (32, 3)])
def test_random_convolutions_as_a_file_equal_their_definition(side: int, channels: int, tmp_path: Path) -> None:
    path, images = tmp_path / "r.onnx", noise(side, channels)
    done = run("extractor", "random-convolutions", "--resolution", side, "--channels", channels, "-o", path)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == f"{path}: random_convolutions, metric fd_random_convolutions"
    extractor = load_extractor(path)
    assert extractor.dim == RandomConvolutions.dim == 256
    assert len(extractor.metadata["weights_sha256"]) == 64
    assert result_name("fid", extractor.metric, 10_000) == "fd_random_convolutions10k"
    assert centered_relative_error(extractor(images).features, expected_features(images)) < 1e-5
    assert extractor(noise(50, 4 - channels)).features.shape == (5, 256), "another size, and gray or color"


@pytest.mark.parametrize(("option", "value"), [("--channels", 2), ("--resolution", 3), ("--resolution", 257)])
def test_random_convolutions_of_other_images_are_one_line(option: str, value: int, tmp_path: Path) -> None:
    done = run("extractor", "random-convolutions", option, value, "-o", tmp_path / "r.onnx")
    assert done.exit_code == 2
    assert not list(tmp_path.iterdir())
    if option == "--channels":
        assert "1 or 3 channels, not 32 px and 2" in one_line(done)
