"""Rewrites a generator's graph as exactly the same function in a form that ONNX Runtime can quantize.

ONNX Runtime quantizes convolutions, but not transposed ones. With K = ⌈k/s⌉, a transposed convolution (kernel k,
stride s, padding p) is a K x K convolution, padded by K - 1, to s² times the channels, whose blocks of channels are
then arranged as blocks of s x s pixels (depth to space), less a border (Shi et al. 2016, "Is the deconvolution layer
the same as a convolutional layer?"). For k4 s2 p1 that is a 2x2 convolution padded by 1, and a border of one pixel.
Operations per channel that follow (a class's scale and shift, the ReLU) move before the depth to space. The latter has
the channels last, as the runtime's int8 convolutions do, so that its transpositions around them cancel with these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper

from trainer.onnx_export.graph_editing import GraphEditor, attributes_of

TO_THE_END = np.iinfo(np.int64).max


class Rewritten(NamedTuple):
    """The model, and the names of its nodes to quantize, empty where none can be."""

    model: onnx.ModelProto
    quantized: list[str]


def rewrite(model: onnx.ModelProto) -> Rewritten:
    """Return the same function with its inner transposed convolutions as convolutions, and every BatchNorm folded.

    The first and the last layer stay: quantized, they cost quality. A transposed convolution with groups, dilations or
    an unknown size stays too.
    """
    graph = GraphEditor(model)
    graph.fold_reshaped_weights()
    graph.fold_batch_norms()
    quantized: list[str] = []
    for layer in graph.layers()[1:-1]:
        if layer.op_type != "ConvTranspose":
            quantized.append(layer.name)
            if (user := graph.consumer(layer.output[0])) is not None and user.op_type == "Relu":
                quantized.append(user.name)
        elif (spec := _read_spec(graph, layer)) is not None:
            quantized += _replace(graph, spec)
    return Rewritten(graph.to_model(), quantized)


@dataclass(frozen=True)
class _ConvTransposeSpec:
    """A square transposed convolution: kernel k, stride s, and the rows removed before and after its output."""

    node: onnx.NodeProto
    weight: np.ndarray  # float32 [C_in, C, k, k]
    bias: np.ndarray  # float32 [C]
    side: tuple[int, int]  # height and width of the input
    stride: int
    before: int
    after: int

    @property
    def taps(self) -> int:
        return int(-(-self.weight.shape[2] // self.stride))  # K

    @property
    def channels(self) -> int:
        return int(self.weight.shape[1])

    def phases(self) -> np.ndarray:
        """Return the convolution's weights, float32 [s² C, C_in, K, K]: the kernel's taps by position in a block."""
        c_in, c, k, _ = self.weight.shape
        K, s = self.taps, self.stride
        padded = np.zeros((c_in, c, K * s, K * s), np.float32)
        padded[:, :, :k, :k] = self.weight
        blocks = padded.reshape(c_in, c, K, s, K, s).transpose(3, 5, 1, 0, 2, 4)
        return blocks[..., ::-1, ::-1].reshape(s * s * c, c_in, K, K)


@dataclass(frozen=True)
class _Step:
    """A node per channel, its other operand in the rewritten graph, and the nodes that make that operand."""

    node: onnx.NodeProto
    operand: str | None = None
    before: list[onnx.NodeProto] = field(default_factory=list)


def _read_spec(graph: GraphEditor, node: onnx.NodeProto) -> _ConvTransposeSpec | None:
    """Return what the rewriting needs of a ConvTranspose; None where it cannot be rewritten."""
    attributes = attributes_of(node)
    defaults = {"strides": [1], "pads": [0], "dilations": [1], "output_padding": [0]}
    square = {key: set(attributes.get(key, default)) for key, default in defaults.items()}
    shape = graph.shapes.get(node.input[0], [])
    weight = graph.constants[node.input[1]]
    bias = graph.constants.get(node.input[2]) if len(node.input) > 2 else np.zeros(weight.shape[1], np.float32)
    if (
        len(shape) != 4
        or shape[2] is None
        or shape[3] is None
        or bias is None
        or any(len(values) != 1 for values in square.values())
        or square["dilations"] != {1}
        or attributes.get("group", 1) != 1
        or attributes.get("auto_pad", b"NOTSET") != b"NOTSET"
        or "output_shape" in attributes
        or weight.ndim != 4
        or weight.shape[2] != weight.shape[3]
    ):
        return None
    s, p, extra = (next(iter(square[key])) for key in ("strides", "pads", "output_padding"))
    k = weight.shape[2]
    after = -(-k // s) * s - k + p - extra
    return _ConvTransposeSpec(node, weight, bias, (shape[2], shape[3]), s, p, after) if after >= 0 else None


def _replace(graph: GraphEditor, spec: _ConvTransposeSpec) -> list[str]:
    """Replace a transposed convolution and its chain, and return the names of the new nodes to quantize."""
    name, K, blocks = spec.node.output[0], spec.taps, spec.stride**2
    convolution = helper.make_node(
        "Conv",
        [
            spec.node.input[0],
            graph.add_constant(f"{name}.weight", spec.phases()),
            graph.add_constant(f"{name}.bias", np.tile(spec.bias, blocks)),
        ],
        [f"{name}.conv"],
        name=f"{name}.conv",
        kernel_shape=[K, K],
        pads=[K - 1] * 4,
    )
    chain = list(_read_chain(graph, name, spec.channels, blocks))
    end = chain[-1].node.output[0] if chain else name
    applied = list(_apply_chain(convolution.output[0], chain, f"{name}.flat"))
    arranged = list(_depth_to_space(graph, spec, f"{name}.flat", end))
    # A ReLU directly after becomes a part of the int8 convolution; other steps are few, and stay in float.
    within = [
        node.name for node in applied if node.op_type == "Transpose" or (len(chain) == 1 and node.op_type == "Relu")
    ]
    graph.replace_nodes([spec.node, *(step.node for step in chain)], [convolution, *applied, *arranged])
    return [convolution.name, *within, *(node.name for node in arranged)]


def _read_chain(graph: GraphEditor, name: str, channels: int, times: int) -> Iterator[_Step]:
    """Yield the operations per channel that follow, up to a ReLU, with operands for `times` as many channels."""
    while (node := graph.consumer(name)) is not None:
        if node.op_type in ("Relu", "LeakyRelu"):
            yield _Step(node)
            return
        if node.op_type not in ("Mul", "Add") or (step := _repeat_operand(graph, node, name, channels, times)) is None:
            return
        yield step
        name = node.output[0]


def _repeat_operand(graph: GraphEditor, node: onnx.NodeProto, name: str, channels: int, times: int) -> _Step | None:
    """Return a Mul or Add by [N or 1, C, 1, 1] with that operand as [N or 1, 1, 1, times C]; None otherwise."""
    operand = next((other for other in node.input if other != name), "")
    tag = f"{node.output[0]}.operand"
    if operand in graph.constants:
        value = graph.constants[operand]
        if value.ndim < 3 or value.size != channels or value.shape[-3] != channels:
            return None
        return _Step(node, graph.add_constant(tag, np.tile(value.reshape(-1), times)))
    # An operand per class: Unsqueeze(Gather(embedding [classes, C], labels)).
    unsqueeze = graph.producer(operand)
    gather = graph.producer(unsqueeze.input[0]) if unsqueeze is not None else None
    if unsqueeze is None or gather is None or (unsqueeze.op_type, gather.op_type) != ("Unsqueeze", "Gather"):
        return None
    axes, table = graph.constants.get(unsqueeze.input[1]), graph.constants.get(gather.input[0])
    if (
        table is None
        or table.shape[1:] != (channels,)
        or attributes_of(gather).get("axis", 0) != 0
        or gather.input[1] not in graph.inputs
        or axes is None
        or axes.tolist() not in ([2, 3], [-2, -1])
    ):
        return None
    tiled = graph.add_constant(f"{tag}.table", np.tile(table, (1, times)))
    before = [
        helper.make_node("Gather", [tiled, gather.input[1]], [f"{tag}.row"], name=f"{tag}.row"),
        helper.make_node(
            "Unsqueeze", [f"{tag}.row", graph.add_constant(f"{tag}.axes", np.array([1, 2]))], [tag], name=tag
        ),
    ]
    return _Step(node, tag, before)


def _apply_chain(name: str, chain: list[_Step], end: str) -> Iterator[onnx.NodeProto]:
    """Yield the chain from the convolution's output [N, s² C, H, W] to `end` [N, H, W, s² C]."""
    if [step.operand for step in chain] == [None]:
        (relu,) = chain
        yield _copy_node(relu.node, [name], f"{name}.relu")
        name, chain = f"{name}.relu", []
    following = f"{name}.nhwc" if chain else end
    yield helper.make_node("Transpose", [name], [following], name=f"{name}.nhwc", perm=[0, 2, 3, 1])
    for index, step in enumerate(chain):
        yield from step.before
        before, following = following, end if step is chain[-1] else f"{name}.{index}"
        yield _copy_node(step.node, [before, *([step.operand] if step.operand else [])], following)


def _depth_to_space(graph: GraphEditor, spec: _ConvTransposeSpec, name: str, end: str) -> Iterator[onnx.NodeProto]:
    """Yield the nodes from `name` [N, H, W, s² C] to `end` [N, C, s H - before - after, s W - before - after]."""
    s, c = spec.stride, spec.channels
    h, w = (side + spec.taps - 1 for side in spec.side)
    steps: list[tuple[str, list[list[int]], dict[str, Any]]] = []
    if s > 1:
        steps += [
            ("Reshape", [[-1, h, w, s, s * c]], {}),
            ("Transpose", [], {"perm": [0, 1, 3, 2, 4]}),  # [N, H, s, W, s C]: a row of pixels is contiguous
            ("Reshape", [[-1, h * s, w * s, c]], {}),
        ]
    if spec.before or spec.after:
        steps.append(("Slice", [[spec.before] * 2, [-spec.after or TO_THE_END] * 2, [1, 2]], {}))
    steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    for index, (kind, parameters, attributes) in enumerate(steps):
        tag = f"{name}.{index}"
        operands = [graph.add_constant(f"{tag}.{at}", np.array(value)) for at, value in enumerate(parameters)]
        following = end if index == len(steps) - 1 else tag
        yield helper.make_node(kind, [name, *operands], [following], name=f"{tag}.{kind}", **attributes)
        name = following


def _copy_node(node: onnx.NodeProto, inputs: list[str], output: str) -> onnx.NodeProto:
    made = helper.make_node(node.op_type, inputs, [output], name=output)
    made.attribute.extend(node.attribute)
    return made
