"""A network of one's own as an extractor file, on a small vision transformer with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from evaluation.errors import EvaluationError
from evaluation.extractors import load_extractor
from evaluation.extractors.extractor_export import centered_relative_error
from evaluation.extractors.from_torch import IMAGENET_MEAN, IMAGENET_STD, Normalized, build_extractor
from evaluation.extractors.resize import RESIZES
from evaluation.metrics import result_name


def small_transformer() -> nn.Module:
    torch.manual_seed(0)
    network = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=48)
    network.heads = nn.Identity()  # the class token, as DINOv2's forward gives it
    return network.eval()


@pytest.mark.slow
def test_build_extractor_vision_transformer_is_normalized(tmp_path: Path) -> None:
    network = small_transformer()
    built = build_extractor(network, tmp_path / "vit.onnx", name="small-vit", side=32)
    assert built.export_error < 1e-5
    extractor = load_extractor(built.path)
    assert (extractor.dim, extractor.has_logits, extractor.metric) == (24, False, "fd_small-vit")
    assert result_name("kid", extractor.metric, 10_000) == "kd_small-vit10k_subset1k"
    images = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = network((x - mean) / std).numpy()
        unnormalised = network(x).numpy()
    assert centered_relative_error(extractor(images).features, expected) < 1e-5
    assert centered_relative_error(unnormalised, expected) > 1e-3
    assert extractor(images[:1, :20, :25, :1]).features.shape == (1, 24)  # other sizes, grey


def test_build_extractor_invalid_input_fails_before_writing(tmp_path: Path) -> None:
    maps = nn.Conv2d(3, 4, 3)
    with pytest.raises(EvaluationError, match=r"not \[5, 4, 6, 6\]"):
        build_extractor(maps, tmp_path / "maps.onnx", name="maps", side=8)
    with pytest.raises(EvaluationError, match="letters"):
        build_extractor(maps, tmp_path / "maps.onnx", name="a name", side=8)
    with pytest.raises(EvaluationError, match="no resize"):
        build_extractor(maps, tmp_path / "maps.onnx", name="maps", side=8, resize="bilinear")
    assert not list(tmp_path.iterdir())


class PixelMeans(nn.Module):
    """[N, 3, S, S] → each color's mean, float32 [N, 3]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("resize", RESIZES)
def test_build_extractor_white_and_black_are_1_and_0(resize: str, tmp_path: Path) -> None:
    built = build_extractor(
        PixelMeans(), tmp_path / "e.onnx", name="e", side=16, mean=[0] * 3, std=[1] * 3, resize=resize
    )
    extractor = load_extractor(built.path)
    for level in (0, 128, 255):
        images = np.full((1, 16, 16, 3), level, np.uint8)
        np.testing.assert_allclose(extractor(images).features, np.full((1, 3), level / 255), atol=1e-6)


@pytest.mark.parametrize("resize", ["tf1", "clean"])
def test_build_extractor_wrong_normalization_is_not_written(
    resize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Normalized, "forward", lambda self, x: self.network(((x + 1) / 2 - self.mean) / self.std))
    with pytest.raises(EvaluationError, match="differs from torch"):
        build_extractor(PixelMeans(), tmp_path / "e.onnx", name="e", side=16, resize=resize)
    assert not list(tmp_path.iterdir())
