"""Resizing inside an extractor's graph, exactly as torch-fidelity, pytorch-fid and clean-fid resize.

A separable resize of one axis is a matrix [out, in] whose row i weighs the inputs around a center. Protocols differ in
the position of the center, the width of the kernel, and the precision of the position: at 1,000 pixels float32 has an
error of 3e-5 pixels, which is visible in the result, so precision is part of the protocol. ONNX's own Resize leaves it
to the runtime, and its results differ from torch's and PIL's by up to 6e-5 on white noise.

The matrix is multiplied with the pixels. Without antialiasing, rows are gathered in pairs and mixed instead, which is
as exact and much less work when an image is reduced.
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

    Attributes:
        offset: Subtracted from the resized pixels, 0 to 255.
        scale: Divides the result.
        center: Position of output i in input pixels, whose centers are integers: `corner` is i · in/out (TensorFlow
            1), `half-pixel` is (i + ½) · in/out - ½ (all others).
        kernel: `triangle` is linear interpolation, `cubic` is Keys' with a = `cubic_a`.
        cubic_a: Keys' parameter.
        antialias: Widen the kernel by in/out where that is above 1, as PIL does.
        float32_center: Round the center to float32.
        clip: Clip to 0 … 255 before the normalization.
    """

    offset: float
    scale: float
    center: Literal["corner", "half-pixel"] = "half-pixel"
    kernel: Literal["triangle", "cubic"] = "triangle"
    cubic_a: float = -0.5
    antialias: bool = True
    float32_center: bool = False
    clip: bool = False


RESIZES = {
    # torch-fidelity's exact TensorFlow 1 bilinear
    "tf1": Resize(128.0, 128.0, center="corner", antialias=False, float32_center=True),
    # pytorch-fid's F.interpolate(mode="bilinear", align_corners=False)
    "torch": Resize(127.5, 127.5, antialias=False, float32_center=True),
    # clean-fid's PIL bicubic on float channels
    "clean": Resize(128.0, 128.0, kernel="cubic", clip=True),
    # PIL's bilinear: the identity at the size that a classifier was trained at
    "linear-antialias": Resize(127.5, 127.5),
}


class GraphBuilder:
    """Collects ONNX nodes and constants; adding an operation returns its output's name."""

    def __init__(self, prefix: str) -> None:
        """Start an empty graph, whose names begin with `prefix`."""
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, value: np.ndarray) -> str:
        """Add a constant and return its name."""
        name = f"{self.prefix}_c{len(self.constants)}"
        self.constants[name] = value
        return name

    def add(self, operation: str, *inputs: str | np.ndarray | np.generic, **attributes: Any) -> str:
        """Add a node with one output; arrays and numbers among the inputs become constants."""
        from onnx import helper

        names = [value if isinstance(value, str) else self.constant(np.asarray(value)) for value in inputs]
        output = f"{self.prefix}_{len(self.nodes)}_{operation.lower()}"
        self.nodes.append(helper.make_node(operation, names, [output], **attributes))
        return output


def add_resize(graph: GraphBuilder, pixels: str, how: Resize, size: tuple[int, int]) -> str:
    """Add a resize of float32 [N, C, H, W] to float32 [N, C, *size] (height, width), not normalized yet."""
    height, width = _length(graph, pixels, 2), _length(graph, pixels, 3)
    columns = graph.add("Transpose", _weights(graph, width, how, size[1]), perm=[1, 0])
    if how.antialias:
        resized = graph.add("MatMul", _weights(graph, height, how, size[0]), graph.add("MatMul", pixels, columns))
    else:
        resized = graph.add("MatMul", _mixed_rows(graph, pixels, height, how, size[0]), columns)
    if how.clip:
        resized = graph.add("Clip", resized, np.float32(0), np.float32(255))
    return resized


def _length(graph: GraphBuilder, pixels: str, axis: int) -> str:
    """Length of an axis, a float64 scalar."""
    from onnx import TensorProto

    shape = graph.add("Shape", pixels, start=axis, end=axis + 1)
    return graph.add("Cast", graph.add("Squeeze", shape), to=TensorProto.DOUBLE)


def _weights(graph: GraphBuilder, length: str, how: Resize, side: int) -> str:
    """Matrix of one axis, float32 [side, length], computed in float64; each row sums to 1."""
    from onnx import TensorProto

    center, ratio = _centers(graph, length, how, side)
    places = graph.add("Range", np.float64(0), length, np.float64(1))
    distance = graph.add("Abs", graph.add("Sub", places, graph.add("Unsqueeze", center, np.array([1]))))
    if how.antialias:
        distance = graph.add("Div", distance, graph.add("Max", ratio, np.float64(1)))
    weights = _triangle(graph, distance) if how.kernel == "triangle" else _cubic(graph, distance, how.cubic_a)
    total = graph.add("ReduceSum", weights, np.array([1]), keepdims=1)
    return graph.add("Cast", graph.add("Div", weights, total), to=TensorProto.FLOAT)


def _mixed_rows(graph: GraphBuilder, pixels: str, height: str, how: Resize, side: int) -> str:
    """Interpolate [N, C, H, W] to [N, C, side, W], between the two rows around each center."""
    from onnx import TensorProto

    center, _ = _centers(graph, height, how, side)
    low = graph.add("Floor", center)
    high = graph.add("Min", graph.add("Add", low, np.float64(1)), graph.add("Sub", height, np.float64(1)))
    first, second = (
        graph.add("Gather", pixels, graph.add("Cast", place, to=TensorProto.INT64), axis=2) for place in (low, high)
    )
    share = graph.add("Cast", graph.add("Sub", center, low), to=TensorProto.FLOAT)
    share = graph.add("Unsqueeze", share, np.array([1]))
    return graph.add("Add", first, graph.add("Mul", graph.add("Sub", second, first), share))


def _centers(graph: GraphBuilder, length: str, how: Resize, side: int) -> tuple[str, str]:
    """Position of each output in the input, float64 [side], and in/out, a float64 scalar."""
    ratio = graph.add("Div", length, np.float64(side))
    if how.float32_center:
        ratio = _round_to_float32(graph, ratio)
    half = 0.0 if how.center == "corner" else 0.5
    product = graph.add("Mul", np.arange(side, dtype=np.float64) + half, ratio)
    center = graph.add("Sub", product, np.float64(half))
    if how.float32_center:
        center = _round_to_float32(graph, center)
    if not how.antialias:
        # Positions outside the image take the pixels at its border.
        last = graph.add("Sub", length, np.float64(1))
        center = graph.add("Min", graph.add("Max", center, np.float64(0)), last)
    return center, ratio


def _round_to_float32(graph: GraphBuilder, value: str) -> str:
    from onnx import TensorProto

    return graph.add("Cast", graph.add("Cast", value, to=TensorProto.FLOAT), to=TensorProto.DOUBLE)


def _triangle(graph: GraphBuilder, distance: str) -> str:
    return graph.add("Max", graph.add("Sub", np.float64(1), distance), np.float64(0))


def _cubic(graph: GraphBuilder, distance: str, a: float) -> str:
    """Keys 1981: (a+2)|x|³ - (a+3)|x|² + 1 within 1, a(|x|³ - 5|x|² + 8|x| - 4) within 2, else 0."""
    near = _polynomial(graph, distance, (a + 2, -(a + 3), 0, 1))
    far = _polynomial(graph, distance, (a, -5 * a, 8 * a, -4 * a))
    outside = graph.add("Where", graph.add("Less", distance, np.float64(2)), far, np.float64(0))
    return graph.add("Where", graph.add("Less", distance, np.float64(1)), near, outside)


def _polynomial(graph: GraphBuilder, x: str, coefficients: tuple[float, ...]) -> str:
    """Evaluate by Horner's rule, the coefficient of the highest power first."""
    value = graph.add("Mul", x, np.float64(coefficients[0]))
    for coefficient in coefficients[1:-1]:
        value = graph.add("Mul", graph.add("Add", value, np.float64(coefficient)), x)
    return graph.add("Add", value, np.float64(coefficients[-1]))
