"""Small ONNX files that break, loop or take all memory where they are loaded or run."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 8


def drawing(
    side: int = 16,
    *,
    before: list[onnx.NodeProto] | None = None,
    added: str | None = None,
    weights: dict[str, np.ndarray] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    activation: onnx.NodeProto | None = None,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A plain generator of 3 colors per image, `side` x `side` pixels, in a few hundred bytes.

    before: nodes at its beginning; added: the name of a value of theirs that is added to the images; weights: their
    initializers; activation: a node from `h` to `t` in place of the tanh; functions: what that calls.
    """
    rng = np.random.default_rng(0)
    values = {
        "W": rng.standard_normal((WIDTH, 3)).astype(np.float32),
        "chw": np.array([0, 3, 1, 1], np.int64),
        "hw": np.array([1, 1, side, side], np.int64),
        **(weights or {}),
    }
    nodes = [
        *(before or []),
        helper.make_node("MatMul", ["z", "W"], ["h"]),
        activation or helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Reshape", ["t", "chw"], ["r"]),
        helper.make_node("Expand", ["r", "hw"], ["y" if added is None else "y0"]),
    ]
    if added is not None:
        nodes.append(helper.make_node("Add", ["y0", added], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, side, side])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions or [], ir_version=ir_version)


def endless(beyond: float | None = None) -> onnx.ModelProto:
    """A Loop of 2**62 rounds; with `beyond` only where the latents' sum is larger than that."""
    body = helper.make_graph(
        [
            helper.make_node("Constant", [], ["one"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])),
            helper.make_node("Identity", ["c"], ["c_out"]),
            helper.make_node("Add", ["v", "one"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, [1]),
        ],
    )
    before = [
        helper.make_node("ReduceSum", ["z"], ["sum"], keepdims=0),
        helper.make_node("Reshape", ["sum", "one_value"], ["v0"]),
        helper.make_node("Greater", ["sum", "beyond"], ["begin"]),
        helper.make_node("Loop", ["rounds", "begin", "v0"], ["v1"], body=body),
        helper.make_node("Mul", ["v1", "zero"], ["nothing"]),
    ]
    weights: dict[str, Any] = {
        "rounds": np.array(2**62, np.int64),
        "beyond": np.array(-1e30 if beyond is None else beyond, np.float32),
        "zero": np.array([0], np.float32),
        "one_value": np.array([1], np.int64),
    }
    return drawing(before=before, added="nothing", weights=weights)


def exponential(depth: int = 26) -> onnx.ModelProto:
    """Functions that call the next one twice: 2**depth nodes once they are inlined."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = []
    for k in range(depth):
        calls = [
            helper.make_node(f"F{k + 1}", ["a"], ["m"], domain="local"),
            helper.make_node(f"F{k + 1}", ["m"], ["b"], domain="local"),
        ]
        nodes = calls if k < depth - 1 else [helper.make_node("Identity", ["a"], ["b"])]
        functions.append(helper.make_function("local", f"F{k}", ["a"], ["b"], nodes, opsets))
    return drawing(functions=functions, activation=helper.make_node("F0", ["h"], ["t"], domain="local"))


def memory_bomb() -> onnx.ModelProto:
    """A constant of 40,000 x 40,000 floats, made as the graph is loaded."""
    value = helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0])
    before = [
        helper.make_node("ConstantOfShape", ["shape"], ["big"], value=value),
        helper.make_node("ReduceSum", ["big"], ["nothing"], keepdims=0),
    ]
    return drawing(before=before, added="nothing", weights={"shape": np.array([40_000, 40_000], np.int64)})


def write(path: Path, model: onnx.ModelProto, *replaced: tuple[bytes, bytes]) -> Path:
    """Write a model, and then other bytes in place of some of its bytes."""
    content = model.SerializeToString()
    for before, after in replaced:
        assert len(before) == len(after)
        assert before in content
        content = content.replace(before, after)
    path.write_bytes(content)
    return path
