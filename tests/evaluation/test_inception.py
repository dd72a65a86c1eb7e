"""FID's Inception, on a seeded random state dict that pytorch-fid loads too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_fid import inception as pytorch_fid

from evaluation.errors import EvaluationError
from evaluation.extractors import load_extractor
from evaluation.extractors.graph import centred_relative_error
from evaluation.extractors.inception import FidInception, build_inception

TOLERANCE = 1e-5


def random_state() -> dict:
    """Features near 0.7, where a default initialisation's are 1e-8 and agree with anything."""
    torch.manual_seed(0)
    network = FidInception()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_in")
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return network.state_dict()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(random_state(), path)
    return path


@pytest.mark.slow
def test_features_are_pytorch_fids_and_a_wrong_resize_is_not(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.load(weights, weights_only=True)
    monkeypatch.setattr(pytorch_fid, "load_state_dict_from_url", lambda *_, **__: state)
    peer = pytorch_fid.InceptionV3([3]).eval()
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    images[:3] //= 3  # images that differ in more than noise
    with torch.no_grad():
        expected = peer(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)[0][:, :, 0, 0].numpy()
    assert 0.1 < expected.mean() < 10
    for resize in ("torch", "tf1"):
        path = tmp_path / f"{resize}.onnx"
        build_inception(weights, resize, path, expected_sha256_prefix=None)
        extractor = load_extractor(path)
        assert extractor.dim == 2048
        assert extractor.metric == "fd_inception_unverified", "no other weights' distance is a FID"
        features, logits = extractor(images)
        assert logits.shape == (6, 1008)
        error = centred_relative_error(features, expected)
        if resize == "torch":
            assert error < TOLERANCE
        else:
            assert error > 100 * TOLERANCE


def test_other_weights_are_refused_before_anything_is_written(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="sha256 begins"):
        build_inception(weights, "torch", tmp_path / "i.onnx")
    with pytest.raises(EvaluationError, match="cannot read"):
        build_inception(tmp_path / "absent.pth", "torch", tmp_path / "i.onnx")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(EvaluationError, match="does not hold"):
        build_inception(tmp_path / "junk.pth", "torch", tmp_path / "i.onnx", expected_sha256_prefix=None)
    with pytest.raises(EvaluationError, match="no resize"):
        build_inception(weights, "nearest", tmp_path / "i.onnx")
    assert not (tmp_path / "i.onnx").exists()


def test_without_weights_or_network_it_says_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_OFFLINE", "1")
    monkeypatch.setenv("ATELIER_WEIGHTS", str(tmp_path))
    with pytest.raises(EvaluationError, match="--weights PATH"):
        build_inception(None, "torch", tmp_path / "i.onnx")
