"""Resizing inside the graph, exactly as the peers do it.

A separable resize of one axis is a matrix [out, in] whose row i weighs the inputs around a centre. What tells one
protocol from another is where the centre lies, how wide the kernel is, and in which precision its place is computed:
at 1,000 pixels float32 knows a place to 3e-5 of a pixel, which shows in the pixels, so that is part of the protocol
too. ONNX's own Resize leaves it to the runtime and misses torch's and PIL's results by up to 6e-5 of white noise.

The matrix is multiplied with the pixels; only rows that mix two others are picked and mixed, which is as exact and
much less work where an image is reduced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Resize:
    """How pixels become the network's input: resized, then (x - offset) / scale.

    `centre` of output i, in input pixels whose own centres are whole numbers: `corner`, i · in/out, is TensorFlow 1's;
    `half-pixel`, (i + ½) · in/out - ½, everybody else's. `kernel` triangle is linear; cubic is Keys', its a `cubic_a`.
    `antialias` widens the kernel by in/out where that is above 1, as PIL does. `single`: the centre is rounded to
    float32. `clip`: to 0..255 before it is normalised.
    """

    offset: float
    scale: float
    centre: Literal["corner", "half-pixel"] = "half-pixel"
    kernel: Literal["triangle", "cubic"] = "triangle"
    cubic_a: float = -0.5
    antialias: bool = True
    single: bool = False
    clip: bool = False


RESIZES = {
    # torch-fidelity's exact TensorFlow 1 bilinear
    "tf1": Resize(128.0, 128.0, centre="corner", antialias=False, single=True),
    # pytorch-fid's F.interpolate(mode="bilinear", align_corners=False)
    "torch": Resize(127.5, 127.5, antialias=False, single=True),
    # clean-fid's PIL bicubic on float channels
    "clean": Resize(128.0, 128.0, kernel="cubic", clip=True),
    # a domain classifier's: PIL's bilinear, and the identity at the size it was trained at
    "linear-antialias": Resize(127.5, 127.5),
}


class Graph:
    """Nodes and constants as they are added; an operation returns its output's name."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, value: np.ndarray) -> str:
        name = f"{self.prefix}_c{len(self.constants)}"
        self.constants[name] = value
        return name

    def add(self, operation: str, *inputs: str | np.ndarray | np.generic, **attributes: Any) -> str:
        from onnx import helper

        names = [value if isinstance(value, str) else self.constant(np.asarray(value)) for value in inputs]
        output = f"{self.prefix}_{len(self.nodes)}_{operation.lower()}"
        self.nodes.append(helper.make_node(operation, names, [output], **attributes))
        return output


def add_resize(graph: Graph, pixels: str, how: Resize, side: int) -> str:
    """float32 [N, C, H, W] → float32 [N, C, side, side], not normalised yet."""
    height, width = _length(graph, pixels, 2), _length(graph, pixels, 3)
    columns = graph.add("Transpose", _weights(graph, width, how, side), perm=[1, 0])
    if how.antialias:
        resized = graph.add("MatMul", _weights(graph, height, how, side), graph.add("MatMul", pixels, columns))
    else:
        resized = graph.add("MatMul", _mixed_rows(graph, pixels, height, how, side), columns)
    if how.clip:
        resized = graph.add("Clip", resized, np.float32(0), np.float32(255))
    return resized


def _length(graph: Graph, pixels: str, axis: int) -> str:
    """Of an axis, as a float64 scalar."""
    from onnx import TensorProto

    shape = graph.add("Shape", pixels, start=axis, end=axis + 1)
    return graph.add("Cast", graph.add("Squeeze", shape), to=TensorProto.DOUBLE)


def _weights(graph: Graph, length: str, how: Resize, side: int) -> str:
    """The matrix float32 [side, length] of one axis, computed in float64; every row adds up to 1."""
    from onnx import TensorProto

    centre, ratio = _centres(graph, length, how, side)
    places = graph.add("Range", np.float64(0), length, np.float64(1))
    distance = graph.add("Abs", graph.add("Sub", places, graph.add("Unsqueeze", centre, np.array([1]))))
    if how.antialias:
        distance = graph.add("Div", distance, graph.add("Max", ratio, np.float64(1)))
    weights = _triangle(graph, distance) if how.kernel == "triangle" else _cubic(graph, distance, how.cubic_a)
    total = graph.add("ReduceSum", weights, np.array([1]), keepdims=1)
    return graph.add("Cast", graph.add("Div", weights, total), to=TensorProto.FLOAT)


def _mixed_rows(graph: Graph, pixels: str, height: str, how: Resize, side: int) -> str:
    """[N, C, H, W] → [N, C, side, W]: between the two rows around each centre."""
    from onnx import TensorProto

    centre, _ = _centres(graph, height, how, side)
    low = graph.add("Floor", centre)
    high = graph.add("Min", graph.add("Add", low, np.float64(1)), graph.add("Sub", height, np.float64(1)))
    first, second = (
        graph.add("Gather", pixels, graph.add("Cast", place, to=TensorProto.INT64), axis=2) for place in (low, high)
    )
    share = graph.add("Cast", graph.add("Sub", centre, low), to=TensorProto.FLOAT)
    share = graph.add("Unsqueeze", share, np.array([1]))
    return graph.add("Add", first, graph.add("Mul", graph.add("Sub", second, first), share))


def _centres(graph: Graph, length: str, how: Resize, side: int) -> tuple[str, str]:
    """Where each output lies in the input, float64 [side], and in/out, a float64 scalar."""
    ratio = graph.add("Div", length, np.float64(side))
    if how.single:
        ratio = _rounded(graph, ratio)
    half = 0.0 if how.centre == "corner" else 0.5
    product = graph.add("Mul", np.arange(side, dtype=np.float64) + half, ratio)
    centre = graph.add("Sub", product, np.float64(half))
    if how.single:
        centre = _rounded(graph, centre)
    if not how.antialias:  # beyond the border pixels' centres there are those pixels
        last = graph.add("Sub", length, np.float64(1))
        centre = graph.add("Min", graph.add("Max", centre, np.float64(0)), last)
    return centre, ratio


def _rounded(graph: Graph, value: str) -> str:
    from onnx import TensorProto

    return graph.add("Cast", graph.add("Cast", value, to=TensorProto.FLOAT), to=TensorProto.DOUBLE)


def _triangle(graph: Graph, distance: str) -> str:
    return graph.add("Max", graph.add("Sub", np.float64(1), distance), np.float64(0))


def _cubic(graph: Graph, distance: str, a: float) -> str:
    """Keys 1981: (a+2)|x|³ - (a+3)|x|² + 1 within 1, a(|x|³ - 5|x|² + 8|x| - 4) within 2, else 0."""
    near = _polynomial(graph, distance, (a + 2, -(a + 3), 0, 1))
    far = _polynomial(graph, distance, (a, -5 * a, 8 * a, -4 * a))
    outside = graph.add("Where", graph.add("Less", distance, np.float64(2)), far, np.float64(0))
    return graph.add("Where", graph.add("Less", distance, np.float64(1)), near, outside)


def _polynomial(graph: Graph, x: str, coefficients: tuple[float, ...]) -> str:
    """By Horner's rule, the highest power's coefficient first."""
    value = graph.add("Mul", x, np.float64(coefficients[0]))
    for coefficient in coefficients[1:-1]:
        value = graph.add("Mul", graph.add("Add", value, np.float64(coefficient)), x)
    return graph.add("Add", value, np.float64(coefficients[-1]))
