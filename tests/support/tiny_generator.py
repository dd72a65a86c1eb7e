"""A generator file that keeps the contract and runs in microseconds, for tests of whatever reads one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def digest(model: onnx.ModelProto) -> str:
    """The contract's digest: everything in the file but `digest` itself and the `evaluation.*` scores.

    Written out again here, away from the rooms, so that it is an oracle for each of them.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    kept = sorted(
        (p.key, p.value) for p in model.metadata_props if p.key != "digest" and not p.key.startswith("evaluation.")
    )
    h = hashlib.sha256(bare.SerializeToString(deterministic=True))
    h.update(json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode())
    return h.hexdigest()


def set_metadata(model: onnx.ModelProto, **values: str) -> None:
    """Set or replace `metadata_props`; the caller seals the digest (or leaves it wrong on purpose)."""
    kept = {p.key: p.value for p in model.metadata_props} | values
    del model.metadata_props[:]
    helper.set_model_props(model, kept)


def tiny_generator(
    *,
    name: str = "tiny",
    z_dim: int = 8,
    z_distribution: str = "normal",
    size: int | tuple[int, int] = 8,
    channels: int = 1,
    seed: int = 0,
    num_classes: int = 0,
    **metadata: Any,
) -> onnx.ModelProto:
    """images = uint8 NHWC of tanh(latents · W + b [+ E[labels]]), W, b and E drawn from `seed`.

    `metadata` replaces or adds metadata keys (values become strings; `evaluation.*` keys by `**{...}`).
    """
    rng = np.random.default_rng(seed)
    height, width = size if isinstance(size, tuple) else (size, size)
    pixels = channels * height * width
    weights = {
        "W": rng.normal(0, 1 / np.sqrt(z_dim), (z_dim, pixels)).astype(np.float32),
        "b": rng.normal(0, 0.1, pixels).astype(np.float32),
        "chw": np.array([-1, channels, height, width], np.int64),
        "half": np.array(127.5, np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(255, np.float32),
    }
    inputs = [helper.make_tensor_value_info("latents", TensorProto.FLOAT, ["N", z_dim])]
    nodes = [helper.make_node("Gemm", ["latents", "W", "b"], ["hidden"])]
    hidden = "hidden"
    if num_classes:
        weights["E"] = rng.normal(0, 1, (num_classes, pixels)).astype(np.float32)
        inputs.append(helper.make_tensor_value_info("labels", TensorProto.INT64, ["N"]))
        nodes += [
            helper.make_node("Gather", ["E", "labels"], ["embedded"], axis=0),
            helper.make_node("Add", ["hidden", "embedded"], ["conditioned"]),
        ]
        hidden = "conditioned"
    nodes += [
        helper.make_node("Tanh", [hidden], ["squashed"]),
        helper.make_node("Reshape", ["squashed", "chw"], ["nchw"]),
        helper.make_node("Mul", ["nchw", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "half"], ["shifted"]),
        helper.make_node("Round", ["shifted"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        helper.make_node("Transpose", ["clipped"], ["nhwc"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["nhwc"], ["images"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "generator",
        inputs,
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", height, width, channels])],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    values = {
        "format_version": "1",
        "name": name,
        "architecture": "tiny",
        "z_dim": z_dim,
        "z_distribution": z_distribution,
        "height": height,
        "width": width,
        "channels": channels,
        "dataset": "none",
        "class_names": json.dumps([str(i) for i in range(num_classes)]),
        "images_seen": 0,
        "ema": "false",
        "config": "{}",
        "created": "2024-01-01T00:00:00+00:00",
    } | metadata
    set_metadata(model, **{key: str(value) for key, value in values.items()})
    if "digest" not in metadata:
        set_metadata(model, digest=digest(model))
    onnx.checker.check_model(model)
    return model


def write_tiny_generator(
    path: str | Path,
    *,
    name: str = "tiny",
    z_dim: int = 8,
    z_distribution: str = "normal",
    size: int | tuple[int, int] = 8,
    channels: int = 1,
    seed: int = 0,
    num_classes: int = 0,
    **metadata: Any,
) -> Path:
    """Write `tiny_generator(...)` to `path` (its folder is made) and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = tiny_generator(
        name=name,
        z_dim=z_dim,
        z_distribution=z_distribution,
        size=size,
        channels=channels,
        seed=seed,
        num_classes=num_classes,
        **metadata,
    )
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path
