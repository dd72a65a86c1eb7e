"""An extractor file is held to its contract, and its resize is exactly its peer's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from PIL import Image

from evaluation.errors import EvaluationError
from evaluation.extractors import load_extractor
from evaluation.extractors.extractor_export import preprocessing_model, seal
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.tiny_generator import write_tiny_generator

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)


def prepared(resize: str, images: np.ndarray, side: int, channels: int = 3) -> np.ndarray:
    session = ort.InferenceSession(preprocessing_model(resize, side, channels).SerializeToString())
    return session.run(None, {"images": images})[0]


def test_extractor_any_batch_size_and_channels_runs(tmp_path: Path) -> None:
    extractor = load_extractor(write_tiny_extractor(tmp_path / "e.onnx", dim=5))
    assert extractor.dim == 5
    assert extractor.class_names == ("0", "1")
    features, logits = extractor(IMAGES)
    assert features.shape == (3, 5)
    assert logits.shape == (3, 2)
    assert extractor(IMAGES[:1, :, :, :1]).features.shape == (1, 5)


def test_extractor_float_images_fails(tmp_path: Path) -> None:
    extractor = load_extractor(write_tiny_extractor(tmp_path / "e.onnx"))
    with pytest.raises(TypeError, match="uint8"):
        extractor(IMAGES / 255)
    with pytest.raises(TypeError, match="1, 3 or 4"):
        extractor(IMAGES.transpose(0, 3, 1, 2))


def test_extractor_nan_features_fails(tmp_path: Path) -> None:
    path = write_tiny_extractor(tmp_path / "e.onnx")
    model = onnx.load(path)
    for constant in model.graph.initializer:
        if constant.name == "W":
            weights = np.full((64, 4), np.nan, np.float32)
            constant.CopyFrom(onnx.numpy_helper.from_array(weights, "W"))
    seal(model, {prop.key: prop.value for prop in model.metadata_props if prop.key != "digest"})
    onnx.save(model, path)
    with pytest.raises(EvaluationError, match="not finite"):
        load_extractor(path)(IMAGES)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("absent", "there is no extractor file"),
        ("truncated", "truncated|not an ONNX"),
        ("text", "not an ONNX"),
        ("generator", "metadata lack"),
        ("altered", "digest does not match"),
        ("output", "no float32 output `features`"),
        ("version", "extractor format 99"),
    ],
)
def test_load_extractor_damaged_file_is_a_one_line_error(tmp_path: Path, damage: str, reason: str) -> None:
    path = tmp_path / "e.onnx"
    if damage == "generator":
        write_tiny_generator(path)
    elif damage == "text":
        path.write_text("<!DOCTYPE html>", encoding="utf-8")
    elif damage == "version":
        write_tiny_extractor(path, format_version="99")
    elif damage != "absent":
        write_tiny_extractor(path)
        model = onnx.load(path)
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-300])
        elif damage == "altered":
            model.graph.initializer[3].raw_data = bytes(len(model.graph.initializer[3].raw_data))
            onnx.save(model, path)
        else:
            model.graph.node.append(helper.make_node("Cast", ["features"], ["other"], to=TensorProto.INT64))
            model.graph.output[0].CopyFrom(helper.make_tensor_value_info("other", TensorProto.INT64, ["N", 4]))
            onnx.save(model, path)
    with pytest.raises(EvaluationError, match=reason) as caught:
        load_extractor(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [12, 40])
def test_resize_torch_equals_interpolate(size: int) -> None:
    import torch

    images = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    peer = 2 * torch.nn.functional.interpolate(x, (29, 29), mode="bilinear", align_corners=False) - 1
    assert np.abs(prepared("torch", images, 29) - peer.numpy()).max() < 2e-5
    assert np.abs(prepared("tf1", images, 29) - peer.numpy()).max() > 1e-2


@pytest.mark.parametrize("size", [12, 40])
def test_resize_clean_equals_pil_bicubic_on_floats(size: int) -> None:
    """To a thousandth of a level: a wrong treatment of the border is off by several."""
    images = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    got = prepared("clean", images, 29) * 128 + 128
    for i, channel in np.ndindex(2, 3):
        plane = Image.fromarray(images[i, :, :, channel].astype(np.float32))
        peer = np.asarray(plane.resize((29, 29), Image.Resampling.BICUBIC)).clip(0, 255)
        assert np.abs(got[i, channel] - peer).max() < 1e-3


def test_resize_tf1_samples_from_the_corner() -> None:
    """TensorFlow 1 bilinear: output pixel i reads position i * in/out, clamped; no half pixels."""
    images = np.random.default_rng(1).integers(0, 256, (1, 6, 6, 1), dtype=np.uint8)
    position = np.arange(9) * 6 / 9
    low = np.floor(position).astype(int)
    high, part = np.minimum(low + 1, 5), position - low
    plane = images[0, :, :, 0].astype(float)
    rows = plane[low] * (1 - part)[:, None] + plane[high] * part[:, None]
    expected = rows[:, low] * (1 - part) + rows[:, high] * part
    got = prepared("tf1", images, 9)
    np.testing.assert_allclose(got[0, 2] * 128 + 128, expected, atol=1e-3)


def test_preprocessing_gray_is_repeated_and_rgb_becomes_luma() -> None:
    grey = IMAGES[..., :1]
    as_rgb = prepared("torch", grey, 12)
    assert (as_rgb[:, 0] == as_rgb[:, 2]).all()
    back = prepared("linear-antialias", grey.repeat(3, axis=3), 12, channels=1)
    np.testing.assert_allclose(back[:, 0] * 127.5 + 127.5, grey[..., 0], atol=1e-3)
    luma = prepared("linear-antialias", IMAGES, 12, channels=1)[:, 0] * 127.5 + 127.5
    np.testing.assert_allclose(luma, IMAGES @ np.array([0.299, 0.587, 0.114]), atol=1e-3)


def altered(path: Path, alter: Callable[[onnx.ModelProto], None]) -> Path:
    """The tiny extractor with another graph, sealed anew."""
    model = onnx.load(write_tiny_extractor(path))
    metadata = {prop.key: prop.value for prop in model.metadata_props if prop.key != "digest"}
    alter(model)
    seal(model, metadata)
    onnx.save(model, path)
    return path


def doubled(model: onnx.ModelProto) -> None:
    """Two rows an image, as a transformer's tokens would be."""
    for node in model.graph.node:
        node.output[:] = ["once" if name == "features" else name for name in node.output]
        node.input[:] = ["once" if name == "features" else name for name in node.input]
    model.graph.node.append(helper.make_node("Concat", ["once", "once"], ["features"], axis=0))


def fixed(axis: int, size: int) -> Callable[[onnx.ModelProto], None]:
    def alter(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size

    return alter


def test_extractor_without_one_row_per_image_fails(tmp_path: Path) -> None:
    extractor = load_extractor(altered(tmp_path / "e.onnx", doubled))
    with pytest.raises(EvaluationError, match=r"returned features \[6, 4\] and logits \[3, 2\] for 3 images"):
        extractor(np.zeros((3, 8, 8, 1), np.uint8))


def test_extractor_that_cannot_run_is_a_one_line_error(tmp_path: Path, capfd) -> None:
    extractor = load_extractor(altered(tmp_path / "e.onnx", fixed(1, 28)))
    with pytest.raises(EvaluationError, match=r"extractor tiny cannot run on images \[3, 8, 8, 1\]") as caught:
        extractor(np.zeros((3, 8, 8, 1), np.uint8))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == "", "ONNX Runtime's own log line would be a second one"


def test_load_extractor_fixed_batch_fails(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="only takes batches of 4"):
        load_extractor(altered(tmp_path / "e.onnx", fixed(0, 4)))


def test_extractor_endless_loop_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.onnx_runtime.DEADLINE_S", 0.5)
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["state", "state"], ["next"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("state", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("Loop", ["", "yes", "flat"], ["features"], body=body),
    ]
    graph = helper.make_graph(
        nodes,
        "endless",
        [value("images", TensorProto.UINT8, ["N", "H", "W", "C"])],
        [value("features", TensorProto.FLOAT, ["N", 432])],
        [helper.make_tensor("yes", TensorProto.BOOL, [], [True])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    metadata = {"name": "x", "network": "x", "metric": "fd_x", "weights_sha256": "0" * 64, "resize": "none"}
    seal(model, metadata)
    onnx.save(model, tmp_path / "e.onnx")
    with pytest.raises(EvaluationError, match=r"took longer than 0\.5 s"):
        load_extractor(tmp_path / "e.onnx")(IMAGES)
