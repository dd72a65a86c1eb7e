"""Generators as others write them with onnx alone: no metadata, float images, their own names."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def plain(
    *,
    z_dim: int = 8,
    size: int = 6,
    channels: int = 1,
    batch: int | str = "N",
    inputs: tuple[str, ...] = ("latents",),
    output: str = "images",
    last: str = "Tanh",
    z_rank: int = 2,
    told_shape: bool = True,
    scale: float = 1.0,
    opset: int = 17,
    ir_version: int = 8,
    seed: int = 0,
) -> onnx.ModelProto:
    """last(latents · W) · scale as float [N, C, H, W], by onnx alone; every way to be wrong is a parameter."""
    rng = np.random.default_rng(seed)
    pixels = channels * size * size
    weights = {
        "W": rng.normal(0, 1, (z_dim, pixels)).astype(np.float32),
        "flat": np.array([-1, z_dim], np.int64),
        "chw": np.array([-1, channels, size, size], np.int64),
        "scale": np.array(scale, np.float32),
    }
    nodes = [
        helper.make_node("Reshape", [inputs[0], "flat"], ["z"]),
        helper.make_node("MatMul", ["z", "W"], ["hidden"]),
        helper.make_node(last, ["hidden"], ["squashed"]),
        helper.make_node("Mul", ["squashed", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "chw"], [output]),
    ]
    dims = [batch, z_dim, *[1] * (z_rank - 2)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in inputs]
    if ir_version < 4:  # then initializers are inputs too
        values += [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in weights.items()
        ]
    shape = [batch, channels, size, size] if told_shape else None
    graph = helper.make_graph(
        nodes,
        "plain",
        values,
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def write_plain(path: Path, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(plain(**how).SerializeToString())
    return path
