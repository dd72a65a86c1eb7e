"""The parts all extractor files share: the preamble in front of a network, and sealing the file.

The preamble is written node by node, not traced: the resize is part of the metric, and resize.py says each protocol
exactly, so that it is the same in every runtime and torch version.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.atomic import written_whole
from evaluation.errors import EvaluationError
from evaluation.extractors.extractor import FORMAT_VERSION, extractor_digest, metadata_strings
from evaluation.extractors.resize import RESIZES, Graph, add_resize

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 18


def preamble(resize: str, side: int, channels: int) -> onnx.ModelProto:
    """`images` uint8 [N, H, W, C] → `prepared` float32 [N, channels, side, side], normalised.

    C may be 1 or 3 whatever `channels` is: grey is repeated to RGB; RGB becomes grey by ITU-R 601 luma.
    """
    from onnx import TensorProto, helper, numpy_helper

    how, graph = RESIZES[resize], Graph("pre")
    pixels = graph.add("Transpose", graph.add("Cast", "images", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    pixels = graph.add("Expand", pixels, np.array([1, 3, 1, 1]))
    if channels == 1:
        luma = np.array([0.299, 0.587, 0.114], np.float32).reshape(1, 3, 1, 1)
        pixels = graph.add("ReduceSum", graph.add("Mul", pixels, luma), np.array([1]), keepdims=1)
    centred = graph.add("Sub", add_resize(graph, pixels, how, side), np.float32(how.offset))
    graph.add("Div", centred, np.float32(how.scale))
    graph.nodes[-1].output[0] = "prepared"
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "extractor",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", "C"])],
            [helper.make_tensor_value_info("prepared", TensorProto.FLOAT, ["N", channels, side, side])],
            [numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )


def export_network(network: torch.nn.Module, channels: int, side: int, logits: bool = True) -> onnx.ModelProto:
    """A network of `prepared` float32 [N, channels, side, side] → (`features`, `logits`) as ONNX.

    With `logits` False it gives `features` alone.
    """
    import logging
    import warnings

    import torch

    network.eval()
    example = torch.zeros(2, channels, side, side)
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
    network: torch.nn.Module, resize: str, channels: int, side: int, logits: bool = True
) -> onnx.ModelProto:
    """Preamble and network as one model, without the exporter's notes about this machine's files."""
    import onnx
    from onnx import compose

    core = export_network(network, channels, side, logits)
    front = preamble(resize, side, channels)
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
    """Put metadata, time and digest into the model."""
    from onnx import helper

    values = {
        "format_version": FORMAT_VERSION,
        **metadata,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    helper.set_model_props(model, metadata_strings(values))
    helper.set_model_props(model, {**metadata_strings(values), "digest": extractor_digest(model)})


def verify_and_write(model: onnx.ModelProto, expected: tuple[np.ndarray, ...], images: np.ndarray, path: Path) -> float:
    """Compare ONNX Runtime's outputs with torch's on `images`, then write the file in one rename.

    `expected` are torch's features, and logits where the model has them. Returns the features' centred relative
    error, which must be below 1e-4 (a damaged export is wrong by far more; 1e-5 is usual).
    """
    from evaluation.onnx_files import session_of

    got = session_of(model, path).run(["features", "logits"][: len(expected)], {"images": images})
    errors = [centred_relative_error(mine, torchs) for mine, torchs in zip(got, expected, strict=True)]
    if not max(errors) < 1e-4:
        raise EvaluationError(f"the exported extractor differs from torch's by {max(errors):.1e}; not written")
    with written_whole(path) as handle:
        handle.write(model.SerializeToString(deterministic=True))
    return errors[0]


def centred_relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """‖got - expected‖ / ‖expected - its mean over images‖: what they share must not hide a difference."""
    spread = float(np.linalg.norm(expected - expected.mean(axis=0)))
    return float(np.linalg.norm(got - expected)) / max(spread, 1e-12)


def weights_sha256(network: torch.nn.Module) -> str:
    """sha256 over names, shapes and float32 bytes of a network's state, in order of name."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        array = value.detach().cpu().numpy()
        digest.update(f"{name} {list(array.shape)} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
