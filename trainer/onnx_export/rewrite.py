"""A generator's graph in a form that can be quantised and is exactly the same function.

ONNX Runtime quantises convolutions, not transposed ones. With K = ⌈k/s⌉, a transposed convolution (kernel k, stride s,
padding p) is a K x K convolution, padded by K - 1, to s² times the channels, whose blocks of channels are then laid out
as blocks of s x s pixels, less a border (Shi et al. 2016, "Is the deconvolution layer the same as a convolutional
layer?"); for k4 s2 p1: a 2x2 convolution padded by 1, and a border of one pixel. What follows a channel at a time
(a class's scale and shift, the ReLU) moves in front of the laying out. That is written with the channels last, which is
how the runtime's int8 convolutions hold their maps: its own transpositions around them cancel with these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper

from trainer.onnx_export.graph_editing import Graph, attributes_of

TO_THE_END = np.iinfo(np.int64).max


class Rewritten(NamedTuple):
    """The model, and the names of the nodes in it that are to be quantised (none: nothing can be)."""

    model: onnx.ModelProto
    quantized: list[str]


def rewrite(model: onnx.ModelProto) -> Rewritten:
    """The same function with its inner transposed convolutions as convolutions, every BatchNorm folded.

    The first and the last layer stay as they are: quantised, they cost quality. A transposed convolution that has no
    such form here (groups, dilations, a size that is not known) stays too.
    """
    graph = Graph(model)
    graph.fold_reshaped_weights()
    graph.fold_batch_norms()
    quantized: list[str] = []
    for layer in graph.layers()[1:-1]:
        if layer.op_type != "ConvTranspose":
            quantized.append(layer.name)
            if (user := graph.user(layer.output[0])) is not None and user.op_type == "Relu":
                quantized.append(user.name)
        elif (form := _form(graph, layer)) is not None:
            quantized += _replace(graph, form)
    return Rewritten(graph.finished(), quantized)


@dataclass(frozen=True)
class _Form:
    """A transposed convolution, square and plain: kernel k, stride s, and rows cut off above and below its output."""

    node: onnx.NodeProto
    weight: np.ndarray  # float32 [C_in, C, k, k]
    bias: np.ndarray  # float32 [C]
    side: tuple[int, int]  # height and width of what comes in
    stride: int
    before: int
    after: int

    @property
    def taps(self) -> int:
        return -(-self.weight.shape[2] // self.stride)  # K

    @property
    def channels(self) -> int:
        return self.weight.shape[1]

    def phases(self) -> np.ndarray:
        """Weights of the convolution, float32 [s² C, C_in, K, K]: the kernel's taps by their place in a block."""
        c_in, c, k, _ = self.weight.shape
        K, s = self.taps, self.stride
        padded = np.zeros((c_in, c, K * s, K * s), np.float32)
        padded[:, :, :k, :k] = self.weight
        blocks = padded.reshape(c_in, c, K, s, K, s).transpose(3, 5, 1, 0, 2, 4)
        return blocks[..., ::-1, ::-1].reshape(s * s * c, c_in, K, K)


@dataclass(frozen=True)
class _Step:
    """A node of the chain, its other operand in the rewritten graph, and the nodes that make that."""

    node: onnx.NodeProto
    operand: str | None = None
    before: list[onnx.NodeProto] = field(default_factory=list)


def _form(graph: Graph, node: onnx.NodeProto) -> _Form | None:
    """What the rewriting needs to know of a ConvTranspose; None when it has no such form."""
    told = attributes_of(node)
    defaults = {"strides": [1], "pads": [0], "dilations": [1], "output_padding": [0]}
    square = {key: set(told.get(key, default)) for key, default in defaults.items()}
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
        or told.get("group", 1) != 1
        or told.get("auto_pad", b"NOTSET") != b"NOTSET"
        or "output_shape" in told
        or weight.ndim != 4
        or weight.shape[2] != weight.shape[3]
    ):
        return None
    s, p, extra = (next(iter(square[key])) for key in ("strides", "pads", "output_padding"))
    k = weight.shape[2]
    after = -(-k // s) * s - k + p - extra
    return _Form(node, weight, bias, (shape[2], shape[3]), s, p, after) if after >= 0 else None


def _replace(graph: Graph, form: _Form) -> list[str]:
    """Put the convolution and the laying out in the place of a transposed convolution and its chain.

    Returns the names of those of the new nodes that are to be quantised.
    """
    name, K, blocks = form.node.output[0], form.taps, form.stride**2
    convolution = helper.make_node(
        "Conv",
        [
            form.node.input[0],
            graph.constant(f"{name}.weight", form.phases()),
            graph.constant(f"{name}.bias", np.tile(form.bias, blocks)),
        ],
        [f"{name}.conv"],
        name=f"{name}.conv",
        kernel_shape=[K, K],
        pads=[K - 1] * 4,
    )
    chain = list(_chain(graph, name, form.channels, blocks))
    end = chain[-1].node.output[0] if chain else name
    applied = list(_applied(convolution.output[0], chain, f"{name}.flat"))
    laid_out = list(_laid_out(graph, form, f"{name}.flat", end))
    # A ReLU right behind becomes a part of the int8 convolution; other steps are computed in float, as few as they are.
    within = [
        node.name for node in applied if node.op_type == "Transpose" or (len(chain) == 1 and node.op_type == "Relu")
    ]
    graph.substitute([form.node, *(step.node for step in chain)], [convolution, *applied, *laid_out])
    return [convolution.name, *within, *(node.name for node in laid_out)]


def _chain(graph: Graph, name: str, channels: int, times: int) -> Iterator[_Step]:
    """What follows a map a channel at a time, up to its ReLU, with each operand for `times` as many channels."""
    while (node := graph.user(name)) is not None:
        if node.op_type in ("Relu", "LeakyRelu"):
            yield _Step(node)
            return
        if node.op_type not in ("Mul", "Add") or (step := _repeated(graph, node, name, channels, times)) is None:
            return
        yield step
        name = node.output[0]


def _repeated(graph: Graph, node: onnx.NodeProto, name: str, channels: int, times: int) -> _Step | None:
    """A Mul or Add by something of shape [N or 1, C, 1, 1], with that as [N or 1, 1, 1, times C]; None otherwise."""
    operand = next((other for other in node.input if other != name), "")
    tag = f"{node.output[0]}.operand"
    if operand in graph.constants:
        value = graph.constants[operand]
        if value.ndim < 3 or value.size != channels or value.shape[-3] != channels:
            return None
        return _Step(node, graph.constant(tag, np.tile(value.reshape(-1), times)))
    # a class's own: Unsqueeze(Gather(embedding [classes, C], labels))
    unsqueeze = graph.maker(operand)
    gather = graph.maker(unsqueeze.input[0]) if unsqueeze is not None else None
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
    tiled = graph.constant(f"{tag}.table", np.tile(table, (1, times)))
    before = [
        helper.make_node("Gather", [tiled, gather.input[1]], [f"{tag}.row"], name=f"{tag}.row"),
        helper.make_node("Unsqueeze", [f"{tag}.row", graph.constant(f"{tag}.axes", np.array([1, 2]))], [tag], name=tag),
    ]
    return _Step(node, tag, before)


def _applied(name: str, chain: list[_Step], end: str) -> Iterator[onnx.NodeProto]:
    """From the convolution's output [N, s² C, H, W] to `end` [N, H, W, s² C], the chain applied."""
    if [step.operand for step in chain] == [None]:
        (relu,) = chain
        yield _like(relu.node, [name], f"{name}.relu")
        name, chain = f"{name}.relu", []
    following = f"{name}.nhwc" if chain else end
    yield helper.make_node("Transpose", [name], [following], name=f"{name}.nhwc", perm=[0, 2, 3, 1])
    for index, step in enumerate(chain):
        yield from step.before
        before, following = following, end if step is chain[-1] else f"{name}.{index}"
        yield _like(step.node, [before, *([step.operand] if step.operand else [])], following)


def _laid_out(graph: Graph, form: _Form, name: str, end: str) -> Iterator[onnx.NodeProto]:
    """`name` [N, H, W, s² C] → `end` [N, C, s H - before - after, s W - before - after]."""
    s, c = form.stride, form.channels
    h, w = (side + form.taps - 1 for side in form.side)
    steps: list[tuple[str, list[list[int]], dict[str, Any]]] = []
    if s > 1:
        steps += [
            ("Reshape", [[-1, h, w, s, s * c]], {}),
            ("Transpose", [], {"perm": [0, 1, 3, 2, 4]}),  # [N, H, s, W, s C]: now a row of pixels lies together
            ("Reshape", [[-1, h * s, w * s, c]], {}),
        ]
    if form.before or form.after:
        steps.append(("Slice", [[form.before] * 2, [-form.after or TO_THE_END] * 2, [1, 2]], {}))
    steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    for index, (kind, parameters, attributes) in enumerate(steps):
        tag = f"{name}.{index}"
        operands = [graph.constant(f"{tag}.{at}", np.array(value)) for at, value in enumerate(parameters)]
        following = end if index == len(steps) - 1 else tag
        yield helper.make_node(kind, [name, *operands], [following], name=f"{tag}.{kind}", **attributes)
        name = following


def _like(node: onnx.NodeProto, inputs: list[str], output: str) -> onnx.NodeProto:
    made = helper.make_node(node.op_type, inputs, [output], name=output)
    made.attribute.extend(node.attribute)
    return made
