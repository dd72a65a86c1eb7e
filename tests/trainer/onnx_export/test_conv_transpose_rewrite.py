"""The rewritten graph is the same function, to the last digits, for every network that the config can make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from artifacts.latents import seeds_to_labels, seeds_to_latents
from tests.support.trainer.generators import CLASSES, random_generator
from trainer.config.schema import Config
from trainer.onnx_export import exporter
from trainer.onnx_export.conv_transpose_rewrite import rewrite

Tiny = Callable[..., Config]

GENERATORS: dict[str, dict[str, Any]] = {
    "28 px, odd widths, biases": {"data": {"resolution": 28}, "model": {"g_widths": [13, 7, 5], "bias": "all"}},
    "28 px, ends in doubling": {"data": {"resolution": 28}, "model": {"g_widths": [9, 5]}},
    "32 px, color": {"data": {"resolution": 32, "channels": 3}, "model": {"g_widths": [12, 7, 3], "bias": "none"}},
    "64 px, color": {"data": {"resolution": 64, "channels": 3}, "model": {"g_widths": [16, 9, 8, 5]}},
    "64 px, ends in 3x3": {"data": {"resolution": 64}, "model": {"g_widths": [8, 8, 5, 4, 3], "bias": "all"}},
    "conditional, odd widths": {
        "data": {"resolution": 32, "class_names": CLASSES},
        "model": {"g_widths": [11, 7, 5], "conditional": True, "bias": "all"},
    },
    "conditional, 28 px": {
        "data": {"resolution": 28, "class_names": CLASSES},
        "model": {"g_widths": [8, 6, 3], "conditional": True},
    },
    "mlp": {"data": {"resolution": 28}, "model": {"architecture": "mlp", "g_widths": [32, 48, 17]}},
}


def run(model: onnx.ModelProto, output: str, feed: dict[str, np.ndarray]) -> np.ndarray:
    """A tensor of a graph, be it an output or not."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    if output not in {value.name for value in exposed.graph.output}:
        exposed.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([output], feed)[0]


def run_in_double(model: onnx.ModelProto, output: str, feed: dict[str, np.ndarray]) -> np.ndarray:
    """A tensor of a graph, computed in float64 by ONNX's reference, so that no runtime's rounding is in it."""
    exact = onnx.ModelProto()
    exact.CopyFrom(model)
    graph = exact.graph
    for weights in graph.initializer:
        widen(weights)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.name == "value":
            widen(attribute.t)
        elif attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.DOUBLE, None))
    found = ReferenceEvaluator(exact).run([output], feed | {"latents": feed["latents"].astype(np.float64)})[0]
    assert found.dtype == np.float64
    return found


def widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


@pytest.mark.slow
@pytest.mark.parametrize("kind", GENERATORS)
def test_rewrite_of_a_generator_is_the_same_function(kind: str, tiny: Tiny) -> None:
    config = tiny(**GENERATORS[kind])
    model = exporter.to_onnx(random_generator(config))
    before = model.SerializeToString()
    rewritten = rewrite(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(rewritten.model, full_check=True)

    (tanh,) = (node.output[0] for node in model.graph.node if node.op_type == "Tanh")
    classes = len(config.data.class_names) if config.model.conditional else 0
    feed = {"latents": seeds_to_latents(range(5), config.model.z_dim)[0]}
    if (y := seeds_to_labels(range(5), config.model.z_dim, classes)) is not None:
        feed["labels"] = y
    ours, theirs = (run_in_double(m, tanh, feed) for m in (rewritten.model, model))
    assert np.ptp(theirs) > 1  # of the two that there are; a gray image would prove nothing
    assert np.abs(ours - theirs).max() <= 2e-7  # what folding rounds of the weights, on any processor
    assert np.abs(run(rewritten.model, tanh, feed) - theirs).max() <= 1e-6

    kinds = [node.op_type for node in rewritten.model.graph.node]
    assert "BatchNormalization" not in kinds or config.model.conditional
    if config.model.architecture == "dcgan":
        inner = len(config.model.g_widths) - (1 if kinds.count("ConvTranspose") else 0)
        assert kinds.count("ConvTranspose") == 1
        assert kinds.count("Conv") == inner
        assert len([name for name in rewritten.quantized if name.endswith(".conv")]) == inner
    else:
        gemms = [name for name in rewritten.quantized if "Gemm" in name]
        assert len(gemms) == len(config.model.g_widths) - 1


def chain(middle: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: list[int]) -> onnx.ModelProto:
    """Conv 1x1 → `middle` (from `a` to `b`) → Conv 1x1: only what lies between may be rewritten."""
    c_in, c_out = shape[1], next(iter(constants.values())).shape[1]
    ends = {"first": np.eye(c_in, dtype=np.float32)[..., None, None], "last": np.ones((1, c_out, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Conv", ["latents", "first"], ["a"]),
        *middle,
        helper.make_node("Conv", ["b", "last"], ["images"]),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("latents", TensorProto.FLOAT, ["N", *shape[1:]])],
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (ends | constants).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    ("k", "s", "p", "extra"),
    [(4, 2, 1, 0), (3, 1, 1, 0), (4, 1, 0, 0), (7, 1, 0, 0), (2, 2, 0, 0), (3, 2, 1, 1), (5, 2, 2, 1), (5, 3, 1, 0)],
)
@pytest.mark.parametrize("size", [(1, 1), (5, 6)])
def test_rewrite_replaces_every_plain_transposed_convolution(
    k: int, s: int, p: int, extra: int, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(k * 100 + s * 10 + p)
    weights = {
        "w": rng.normal(0, 0.2, (6, 5, k, k)).astype(np.float32),
        "bias": rng.normal(0, 1, 5).astype(np.float32),
    }
    attributes = {"strides": [s] * 2, "pads": [p] * 4, "output_padding": [extra] * 2}
    middle = [
        helper.make_node("ConvTranspose", ["a", "w", "bias"], ["c"], **attributes),
        helper.make_node("LeakyRelu", ["c"], ["b"], alpha=0.2),
    ]
    shape = [3, 6, *size]
    if min(s * (side - 1) - 2 * p + k + extra for side in size) < 1:
        pytest.fail("the case has no output; choose another")
    model = chain(middle, weights, shape)
    rewritten = rewrite(model)
    assert "ConvTranspose" not in {node.op_type for node in rewritten.model.graph.node}
    feed = {"latents": rng.normal(0, 1, shape).astype(np.float32)}
    ours, theirs = run(rewritten.model, "images", feed), run(model, "images", feed)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-6 * max(1.0, float(np.abs(theirs).max()))


@pytest.mark.parametrize("attributes", [{"group": 2}, {"dilations": [2, 2]}, {"pads": [1, 0, 1, 0]}])
def test_rewrite_leaves_other_transposed_convolutions(attributes: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    group = attributes.get("group", 1)
    weights = {"w": rng.normal(0, 1, (4, 4 // group, 4, 4)).astype(np.float32)}
    node = helper.make_node("ConvTranspose", ["a", "w"], ["b"], strides=[2, 2], **attributes)
    model = chain([node], {"pad": np.zeros((1, 4), np.float32)} | weights, [2, 4, 3, 3])
    rewritten = rewrite(model)
    assert rewritten.quantized == []
    feed = {"latents": rng.normal(0, 1, (2, 4, 3, 3)).astype(np.float32)}
    np.testing.assert_array_equal(run(rewritten.model, "images", feed), run(model, "images", feed))
