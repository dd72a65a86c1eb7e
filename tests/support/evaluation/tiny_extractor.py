"""Tiny extractor files, image folders and a stand-in for the service, for the tests of the evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from evaluation.extractors.extractor_export import seal


def write_digit_reader(path: Path) -> Path:
    """A classifier of ten digits: digit k is an 8x8 image with only pixel k lit, as `drawn_digits` makes it."""
    return write_tiny_extractor(path, dim=10, classes=10, weights=(np.eye(64, 10) / 255, 8 * np.eye(10)))


def drawn_digits(digits: np.ndarray) -> np.ndarray:
    """Return images uint8 [N, 8, 8, C] with a digit of int [N, C] in each channel."""
    return (255 * np.eye(10, 64, dtype=np.uint8))[digits].reshape(*digits.shape, 8, 8).transpose(0, 2, 3, 1)


def write_tiny_extractor(
    path: Path,
    *,
    dim: int = 4,
    classes: int = 2,
    seed: int = 0,
    weights: tuple[np.ndarray, np.ndarray] | None = None,
    **metadata: Any,
) -> Path:
    """features = means of 2x2 pooled pixels, projected; logits = two of them. Any size of 8 or more, C 1 or 3.

    The two projections [64, dim] and [dim, classes] are drawn from the seed unless `weights` gives them.
    """
    rng = np.random.default_rng(seed)
    W, V = weights or (rng.normal(size=(64, dim)) / 255, rng.normal(size=(dim, classes)))
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axis"], ["grey"], keepdims=0),
        helper.make_node("Unsqueeze", ["grey", "one"], ["nchw"]),
        helper.make_node("Shape", ["nchw"], ["batch"], start=0, end=2),
        helper.make_node("Concat", ["batch", "side"], ["sizes"], axis=0),
        helper.make_node("Resize", ["nchw", "", "", "sizes"], ["small"], mode="linear"),
        helper.make_node("Flatten", ["small"], ["flat"]),
        helper.make_node("Gemm", ["flat", "W"], ["features"]),
        helper.make_node("Gemm", ["features", "V"], ["logits"]),
    ]
    constants = {
        "axis": np.array([3]),
        "one": np.array([1]),
        "side": np.array([8, 8]),
        "W": W.astype(np.float32),
        "V": V.astype(np.float32),
    }
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", "C"])],
            [
                helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", dim]),
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes]),
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    values = {
        "name": "tiny",
        "network": "tiny",
        "metric": "fd_tiny",
        "weights_sha256": "0" * 64,
        "resize": "none",
        "class_names": [str(i) for i in range(classes)],
    }
    seal(model, values | metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
