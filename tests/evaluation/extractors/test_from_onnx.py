"""An ONNX file of one's own as an extractor file: what it computes, and what is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluation.extractors import load_extractor
from evaluation.extractors.resize import RESIZES
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.tiny_extractor import write_tiny_extractor

SIDE, DIM = 8, 6


def network(
    path: str = "net.onnx",
    *,
    shape: Sequence[Any] = ("N", 3, SIDE, SIDE),
    kind: int = TensorProto.FLOAT,
    opset: int = 18,
    nodes: Callable[[list], list] = lambda nodes: nodes,
    outputs: Sequence[str] = ("y",),
    output_kind: int = TensorProto.FLOAT,
    output_shape: Sequence[Any] = ("N", "d"),
    **saving: Any,
) -> np.ndarray:
    """An ONNX file `x` → `y` = flattened x times W, and W; other things by its arguments."""
    pixels = kind == TensorProto.UINT8
    channels = shape[3 if pixels else 1] if len(shape) == 4 else 3
    width = (channels if isinstance(channels, int) else 3) * SIDE * SIDE
    weight = np.random.default_rng(0).normal(size=(width, DIM)).astype(np.float32)
    made = nodes(
        [
            helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"]),
            helper.make_node("MatMul", ["flat", "W"], ["product"]),
            helper.make_node("Cast", ["product"], ["y"], to=output_kind),
        ]
    )
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, output_kind, output_shape) for name in outputs],
        [numpy_helper.from_array(weight, "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path, **saving)
    return weight


def seal(*words: object, file: str = "net.onnx") -> Any:
    return run("extractor", "seal", file, "--output", "own.onnx", "--name", "own2", *words)


def noise(n: int, channels: int = 3, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


@pytest.mark.parametrize("resize", RESIZES)
def test_seal_network_of_floats_gets_normalized_pixels(workspace: Path, resize: str) -> None:
    weight = network()
    done = seal("--resize", resize, "--mean", "0.1,0.2,0.3", "--std", "0.5,0.25,0.125")
    assert done.exit_code == 0, done.output
    extractor = load_extractor("own.onnx")
    images = noise(7)
    x = (images / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 0.125]
    expected = x.transpose(0, 3, 1, 2).reshape(7, -1) @ weight
    np.testing.assert_allclose(extractor(images).features, expected, rtol=1e-5, atol=1e-4)
    assert (extractor.metric, extractor.dim, extractor.metadata["resize"]) == ("fd_own2", DIM, resize)
    assert extractor(noise(2, 1, 50)).features.shape == (2, DIM), "gray, and of another size"


def test_seal_extractor_scores_under_its_own_name(workspace: Path) -> None:
    network()
    assert seal("--resize", "clean").exit_code == 0
    words = ("--extractor", "own.onnx", "--num-images", 50, "--no-baseline", "-o", "r.json")
    done = run("score", "g.onnx", "--reference", "pictures@test", *words)
    assert done.exit_code == 0, done.output
    assert list(json.loads(Path("r.json").read_text(encoding="utf-8"))["scores"]) == ["fd_own2_50"]


def test_seal_graph_of_pixels_keeps_its_own_resize(workspace: Path) -> None:
    weight = network(shape=("N", SIDE, SIDE, 3), kind=TensorProto.UINT8)
    done = seal()
    assert done.exit_code == 0, done.output
    assert "only takes images of 8x8" in done.stderr
    images, extractor = noise(5), load_extractor("own.onnx")
    np.testing.assert_allclose(extractor(images).features, images.reshape(5, -1) @ weight, rtol=1e-5)
    gray = images[..., :1]
    assert (extractor(gray).features == extractor(gray.repeat(3, axis=3)).features).all()


def test_seal_graph_of_gray_pixels_takes_luma(workspace: Path) -> None:
    weight = network(shape=("N", SIDE, SIDE, 1), kind=TensorProto.UINT8)
    assert seal().exit_code == 0
    images = noise(5)
    luma = np.round(images @ np.array([0.299, 0.587, 0.114], np.float32))
    got = load_extractor("own.onnx")(images).features
    np.testing.assert_allclose(got, luma.reshape(5, -1) @ weight, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"opset": 11},
        {"opset": 22},
        {"output_kind": TensorProto.FLOAT16},
        {"output_kind": TensorProto.DOUBLE},
        {"shape": ("N", 1, SIDE, SIDE)},
        {"shape": ("batch", "c", "h", "w")},
        {"save_as_external_data": True, "location": "net.data", "size_threshold": 0},
    ],
)
def test_seal_other_network_layouts_are_accepted(workspace: Path, options: dict[str, Any]) -> None:
    network(**options)
    side = ("--side", SIDE) if "h" in options.get("shape", ()) else ()
    done = seal("--resize", "torch", *side)
    assert done.exit_code == 0, done.output
    assert load_extractor("own.onnx")(noise(3)).features.shape == (3, DIM)


def pooled(nodes: list) -> list:
    """The output as [N, d, 1, 1], as a pooling layer leaves it."""
    shape = helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array([0, DIM, 1, 1])))
    return [*nodes[:3], shape, helper.make_node("Reshape", ["product", "shape"], ["y"])]


def test_seal_output_of_a_pooling_layer_is_flattened(workspace: Path) -> None:
    network(nodes=pooled, output_shape=("N", "d", 1, 1))
    assert seal("--resize", "torch").exit_code == 0
    assert load_extractor("own.onnx")(noise(3)).features.shape == (3, DIM)


def second_output(nodes: list) -> list:
    return [*nodes, helper.make_node("Tanh", ["product"], ["z"])]


def test_seal_several_outputs_uses_the_named_one(workspace: Path) -> None:
    network(nodes=second_output, outputs=("y", "z"))
    assert "name one with --features" in one_line(seal("--resize", "torch"))
    assert "has no output 'w'; it has y, z" in one_line(seal("--resize", "torch", "--features", "w"))
    assert seal("--resize", "torch", "--logits", "z").exit_code == 0
    extractor = load_extractor("own.onnx")
    assert extractor.has_logits
    got = extractor(noise(3))
    assert got.logits is not None
    np.testing.assert_allclose(got.logits, np.tanh(got.features), rtol=1e-5)


def random_features(nodes: list) -> list:
    more = [helper.make_node("RandomNormalLike", ["product"], ["r"]), helper.make_node("Add", ["product", "r"], ["s"])]
    return [*nodes[:3], *more, helper.make_node("Identity", ["s"], ["y"])]


def training(nodes: list) -> list:
    """A BatchNorm that was exported in training mode."""
    ones = helper.make_node("Constant", [], ["ones"], value=numpy_helper.from_array(np.ones(3, np.float32)))
    inputs, outputs = ["float", "ones", "ones", "ones", "ones"], ["normed", "mean", "var"]
    norm = helper.make_node("BatchNormalization", inputs, outputs, training_mode=1)
    return [nodes[0], ones, norm, helper.make_node("Flatten", ["normed"], ["flat"]), *nodes[2:]]


def of_the_batch(nodes: list) -> list:
    axis = helper.make_node("Constant", [], ["axis"], value=numpy_helper.from_array(np.array([0])))
    mean = helper.make_node("ReduceMean", ["product", "axis"], ["mean"])
    return [*nodes[:3], axis, mean, helper.make_node("Sub", ["product", "mean"], ["y"])]


def constant(nodes: list) -> list:
    return [*nodes[:3], helper.make_node("Sub", ["product", "product"], ["y"])]


def infinite(nodes: list) -> list:
    zero = helper.make_node("Sub", ["product", "product"], ["zero"])
    return [*nodes[:3], zero, helper.make_node("Div", ["product", "zero"], ["y"])]


def unknown_operation(nodes: list) -> list:
    return [*nodes[:3], helper.make_node("Nonsense", ["product"], ["y"])]


@pytest.mark.parametrize(
    ("options", "words", "reason"),
    [
        ({}, (), "needs --resize"),
        ({}, ("--resize", "cubic"), "has no resize 'cubic'"),
        ({}, ("--resize", "torch", "--side", 9), "takes 8 px, not --side 9"),
        ({}, ("--resize", "torch", "--mean", "0.5"), "--mean needs 3 finite numbers"),
        ({}, ("--resize", "torch", "--std", "1,0,1"), "--std must be above 0"),
        ({}, ("--resize", "torch", "--std", "1;1;1"), "--std is numbers with commas"),
        ({}, ("--resize", "torch", "--std", "nan,1,1"), "--std needs 3 finite numbers"),
        ({}, ("--resize", "torch", "--name", "fid"), "is reserved"),
        ({}, ("--resize", "torch", "--name", "../x"), "letters, digits"),
        ({}, ("--resize", "torch", "--features", "y", "--logits", "y"), "name one output"),
        ({"shape": ("N", 3, "h", "w")}, ("--resize", "torch"), "give --side"),
        ({"shape": ("N", 3, "h", "w")}, ("--resize", "torch", "--side", 0), "not between 1 and"),
        ({"shape": ("N", 3, 8, 4)}, ("--resize", "torch"), "must be square"),
        ({"shape": (1, 3, 8, 8)}, ("--resize", "torch"), "dynamic first axis"),
        ({"shape": ("N", 8, 8, 3)}, ("--resize", "torch"), "takes [N, C, H, W]"),
        ({"shape": ("N", 4, 8, 8)}, ("--resize", "torch"), "1 or 3 channels"),
        ({"shape": ("N", 192)}, ("--resize", "torch"), "not [N, C, H, W]"),
        ({"kind": TensorProto.INT64}, (), "is INT64"),
        ({"kind": TensorProto.UINT8}, (), "uint8 images are [N, H, W, C]"),
        ({"kind": TensorProto.UINT8, "shape": ("N", 8, 8, 3)}, ("--resize", "torch"), "leave out --resize"),
        ({"nodes": random_features}, ("--resize", "torch"), "draws random numbers"),
        ({"nodes": training}, ("--resize", "torch"), "is in training mode"),
        ({"nodes": of_the_batch}, ("--resize", "torch"), "inference mode"),
        ({"nodes": constant}, ("--resize", "torch"), "the same for different images"),
        ({"nodes": infinite}, ("--resize", "torch"), "not finite"),
        ({"nodes": unknown_operation}, ("--resize", "torch"), "Nonsense"),
    ],
)
def test_seal_invalid_network_is_a_one_line_error(
    workspace: Path, options: dict[str, Any], words: tuple, reason: str
) -> None:
    network(**options)
    assert reason in one_line(seal(*words))
    assert not Path("own.onnx").exists()


def test_seal_other_file_is_a_one_line_error(workspace: Path) -> None:
    network()
    Path("cut.onnx").write_bytes(Path("net.onnx").read_bytes()[:200])
    Path("text.onnx").write_text("no network", encoding="utf-8")
    Path("lfs.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", encoding="utf-8")
    Path("empty.onnx").touch()
    network("apart.onnx", save_as_external_data=True, location="apart.data", size_threshold=0)
    Path("apart.data").unlink()
    write_tiny_extractor(workspace / "sealed.onnx")
    for file, reason in {
        "absent.onnx": "does not exist",
        "pictures": "is a folder",
        "cut.onnx": "cut.onnx",
        "text.onnx": "text.onnx",
        "empty.onnx": "empty",
        "lfs.onnx": "git lfs pull",
        "apart.onnx": "apart.data",
        "sealed.onnx": "an extractor file already, called 'tiny'",
        "g.onnx": "is a generator",
    }.items():
        assert reason in one_line(seal("--resize", "torch", file=file)), file
    assert "cannot write" in one_line(run("extractor", "seal", "net.onnx", "--name", "a", "-o", "pictures"))
