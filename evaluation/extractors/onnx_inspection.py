"""Read a user's ONNX network and find its input and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.onnx_metadata import metadata_of, onnx_error_message
from evaluation.errors import EvaluationError
from evaluation.onnx_runtime import read_model

if TYPE_CHECKING:
    import onnx

_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
# protobuf's limit of 2 GiB, with a margin for what is added.
_MAX_BYTES = 2**31 - 2**20


@dataclass(frozen=True)
class NetworkInput:
    """The input of a network: uint8 images [N, H, W, C], or floats [N, C, H, W], float16 if `is_half`.

    Channels (1 or 3), height and width in pixels are None for any.
    """

    name: str
    is_uint8: bool
    is_half: bool
    channels: int | None
    height: int | None
    width: int | None

    @property
    def side(self) -> int | None:
        """Height and width if they are equal."""
        return self.height if self.height == self.width else None


def read_network(path: Path) -> onnx.ModelProto:
    """Return the model of a file, whose weights may be in files next to it.

    Raises:
        EvaluationError: If it is not a sound ONNX file, is an extractor or generator file already, or would give one
            image different features.
    """
    import onnx

    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist, or is not a file"
        raise EvaluationError(f"{path} {problem}; an ONNX file is needed")
    model = read_model(path, "ONNX file")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        if model.ByteSize() <= _MAX_BYTES:
            onnx.checker.check_model(model)
    except Exception as error:  # onnx and the external data raise types of their own
        raise EvaluationError(f"{path} is not a valid ONNX file ({onnx_error_message(error)})") from error
    if model.ByteSize() > _MAX_BYTES:
        raise EvaluationError(f"{path} has more than 2 GiB with its weights, the limit of one ONNX file")
    metadata = metadata_of(model)
    if {"digest", "metric", "weights_sha256"} <= set(metadata):
        raise EvaluationError(f"{path} is an extractor file already, called {metadata.get('name', '')[:80]!r}")
    if "latents" in {value.name for value in model.graph.input}:
        raise EvaluationError(f"{path} is a generator, which makes images; an extractor takes them")
    for node in _all_nodes(model):
        if node.op_type in _RANDOM:
            raise EvaluationError(f"{path} draws random numbers ({node.op_type}): export it in inference mode")
        if any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute):
            raise EvaluationError(f"{path} is in training mode ({node.op_type}): export it in inference mode")
    return model


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of the graph, of graphs inside it, and of local functions."""
    graphs: list[Any] = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            yield node
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs


def find_input(path: Path, model: onnx.ModelProto) -> NetworkInput:
    """Return the only input; EvaluationError unless it takes images in batches of any size."""
    from onnx import TensorProto

    constants = {value.name for value in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs[:5]) or "none"
        raise EvaluationError(f"{path} has {len(inputs)} inputs ({names}); an extractor has one, the images")
    (value,) = inputs
    kind = value.type.tensor_type.elem_type
    if kind not in (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT16):
        type_name = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else "no tensor"
        raise EvaluationError(f"{path}: its input {value.name} is {type_name}, not uint8 images or float")
    is_uint8 = kind == TensorProto.UINT8
    layout = "[N, H, W, C]" if is_uint8 else "[N, C, H, W]"
    shape = _shape(value)
    if shape is None or len(shape) != 4:
        raise EvaluationError(f"{path}: its input {value.name} has shape {shape or 'unknown'}, not {layout}")
    if isinstance(shape[0], int):
        raise EvaluationError(f"{path} only takes batches of {shape[0]}; export it with a dynamic first axis")
    at, other = (3, 1) if is_uint8 else (1, 3)
    if shape[at] not in (1, 3) and (shape[other] in (1, 3) or isinstance(shape[at], int)):
        raise EvaluationError(
            f"{path}: its input {value.name} is {'uint8' if is_uint8 else 'float'} {shape}; "
            f"{'uint8 images are' if is_uint8 else 'a network of floats takes'} {layout} with 1 or 3 channels"
        )
    fixed = [size if isinstance(size, int) else None for size in shape]
    channels = fixed[at] if is_uint8 else fixed[at] or 3
    height, width = fixed[1:3] if is_uint8 else fixed[2:4]
    return NetworkInput(value.name, is_uint8, kind == TensorProto.FLOAT16, channels, height, width)


def _shape(value: onnx.ValueInfoProto) -> list[int | str] | None:
    """Return sizes of the axes, or their names; None where no shape is recorded."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in tensor.shape.dim]


def find_features(path: Path, model: onnx.ModelProto, features: str | None, logits: str | None) -> str:
    """Return the output with the features; EvaluationError if there are several, or a given one does not exist."""
    names = [value.name for value in model.graph.output]
    for given in (features, logits):
        if given is not None and given not in names:
            raise EvaluationError(f"{path} has no output {given!r}; it has {', '.join(names)}")
    if features is not None and features == logits:
        raise EvaluationError("--features and --logits name one output; features are the output of a layer before it")
    rest = [name for name in names if name != logits]
    if features is None and len(rest) != 1:
        raise EvaluationError(
            f"{path} has {len(rest)} outputs that may be the features ({', '.join(rest)}); name one with --features"
        )
    return features or rest[0]
