"""The generator file's contract: what one says of itself, what it must hold, and how a breach is told."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from artifacts.onnx_files import digest_of

if TYPE_CHECKING:
    import onnx

FORMAT_VERSION = "1"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # safe in a URL's path and in a header
# fmt: off
REQUIRED = (
    "format_version", "name", "architecture", "z_dim", "z_distribution", "height", "width", "channels",
    "dataset", "class_names", "images_seen", "ema", "config", "created", "digest",
)
# fmt: on


class ContractError(Exception):
    """A file that is not a generator file; the message says what disagrees."""


@dataclass(frozen=True)
class Metadata:
    """What a generator file says of itself. `evaluation` holds the `evaluation.*` scores, prefix dropped."""

    name: str
    architecture: str
    z_dim: int
    z_distribution: Literal["normal", "uniform"]
    height: int
    width: int
    channels: int
    dataset: str
    class_names: tuple[str, ...]
    images_seen: int
    ema: bool
    config: dict[str, Any]
    created: str
    digest: str
    evaluation: dict[str, Any]
    optimize: str = "none"  # how the graph was made faster after its export: fp16, int8
    foreign: bool = False  # made from the graph and the file's name, for the file itself says nothing

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


def is_unsealed(key: str) -> bool:
    """Return whether the digest leaves a metadata key out, so that writing scores into a file does not change it."""
    return key == "digest" or key.startswith("evaluation.")


def digest(model: "onnx.ModelProto") -> str:
    """Return the sha256 (hex) of the whole file except the digest itself and the `evaluation.*` scores."""
    return digest_of(model, is_unsealed)


def check(model: "onnx.ModelProto") -> Metadata:
    """The metadata of a model that keeps the contract. ContractError: it does not, and where."""
    props = {p.key: p.value for p in model.metadata_props}
    if len(props) != len(model.metadata_props):
        raise ContractError("a metadata key appears twice")
    if missing := [key for key in REQUIRED if key not in props]:
        raise ContractError(f"not a generator file: metadata lacks {', '.join(missing)}")
    if props["format_version"] != FORMAT_VERSION:
        raise ContractError(f"format_version is {props['format_version']!r}; this service reads {FORMAT_VERSION!r}")
    metadata = _parse(props)
    _check_graph(model, metadata)
    if holds_external_weights(model):
        raise ContractError("weights lie in external files; export with them inside (external_data=False)")
    if (actual := digest(model)) != metadata.digest:
        raise ContractError(f"digest says {metadata.digest[:12]}…, the content is {actual[:12]}…: changed after export")
    return metadata


def _parse(props: dict[str, str]) -> Metadata:
    def positive(key: str) -> int:
        if not re.fullmatch(r"[1-9][0-9]{0,8}", props[key]):
            raise ContractError(f"metadata {key} is {props[key][:40]!r}, not a positive integer")
        return int(props[key])

    def loads(key: str, kind: type, text: str) -> Any:
        try:
            value = json.loads(text)
            _check_writable(value)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            what = "list" if kind is list else "object"
            raise ContractError(f"metadata {key} is not a JSON {what}, or one that cannot be written again")
        return value

    def score(text: str) -> Any:
        try:
            value = json.loads(text, parse_constant=str)
            _check_writable(value)
            return value
        except (ValueError, RecursionError):
            return text

    if not NAME.fullmatch(props["name"]):
        raise ContractError(f"metadata name is {props['name'][:40]!r}; letters, digits, '.', '_' and '-' only")
    if props["z_distribution"] not in ("normal", "uniform"):
        raise ContractError(f"metadata z_distribution is {props['z_distribution'][:40]!r}, not normal or uniform")
    if positive("channels") not in (1, 3):
        raise ContractError(f"metadata channels is {props['channels']}; 1 and 3 can be shown")
    if not re.fullmatch(r"[0-9]{1,15}", props["images_seen"]):
        raise ContractError("metadata images_seen is not a non-negative integer")
    if props["ema"] not in ("true", "false"):
        raise ContractError(f"metadata ema is {props['ema'][:40]!r}, not true or false")
    try:
        if datetime.fromisoformat(props["created"]).tzinfo is None:
            raise ValueError
    except ValueError:
        raise ContractError("metadata created is not an ISO 8601 time with its offset") from None
    names = loads("class_names", list, props["class_names"])
    if not all(isinstance(name, str) for name in names) or len(names) == 1:
        raise ContractError("metadata class_names is not a list of two or more strings, or empty")
    return Metadata(
        name=props["name"],
        architecture=props["architecture"],
        z_dim=positive("z_dim"),
        z_distribution=cast(Literal["normal", "uniform"], props["z_distribution"]),
        height=positive("height"),
        width=positive("width"),
        channels=positive("channels"),
        dataset=props["dataset"],
        class_names=tuple(names),
        images_seen=int(props["images_seen"]),
        ema=props["ema"] == "true",
        config=loads("config", dict, props["config"]),
        created=props["created"],
        digest=props["digest"],
        optimize=props.get("optimize", "none")[:100],
        evaluation={
            key.removeprefix("evaluation."): score(value)
            for key, value in props.items()
            if key.startswith("evaluation.")
        },
    )


def _check_writable(value: Any) -> None:
    """ValueError, RecursionError: read as JSON, but an answer cannot carry it (1e999, half a surrogate pair)."""
    for _ in range(200):  # room for what an answer and its writer put around it
        value = [value]
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _check_graph(model: "onnx.ModelProto", metadata: Metadata) -> None:
    """The graph's inputs and outputs are those that the metadata announces."""
    from onnx import TensorProto

    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in initialized}
    outputs = {value.name: value for value in model.graph.output}
    wanted = {"latents": (TensorProto.FLOAT, [None, metadata.z_dim])}
    if metadata.num_classes:
        wanted["labels"] = (TensorProto.INT64, [None])
    if set(inputs) != set(wanted):
        raise ContractError(f"the graph's inputs are {sorted(inputs)}, the metadata means {sorted(wanted)}")
    if set(outputs) != {"images"}:
        raise ContractError(f"the graph's outputs are {sorted(outputs)}, not ['images']")
    wanted["images"] = (TensorProto.UINT8, [None, *metadata.image_shape])
    for name, (elem_type, shape) in wanted.items():
        tensor = (inputs | outputs)[name].type.tensor_type
        actual = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if tensor.elem_type != elem_type:
            raise ContractError(
                f"{name} is {TensorProto.DataType.Name(tensor.elem_type).lower()}, "
                f"not {TensorProto.DataType.Name(elem_type).lower()}"
            )
        # an exporter may leave a dimension without its value; the warm-up run then proves it
        if len(actual) != len(shape) or any(
            a is not None and a != s for a, s in zip(actual[1:], shape[1:], strict=True)
        ):
            raise ContractError(f"{name} has shape {_shown(actual)} in the graph, {_shown(shape)} in the metadata")
        if actual[0] is not None:
            raise ContractError(f"{name} has a fixed batch of {actual[0]}; the first dimension must be dynamic")


def _shown(shape: list[int | None]) -> str:
    return "[" + ", ".join("N" if d is None else str(d) for d in shape) + "]"


def holds_external_weights(model: "onnx.ModelProto") -> bool:
    return any(tensor.data_location == tensor.EXTERNAL for tensor in tensors(model))


def tensors(model: "onnx.ModelProto") -> "Iterator[onnx.TensorProto]":
    """Every tensor of a model, those inside nodes, subgraphs and functions too."""

    def of_nodes(nodes: Any) -> "Iterator[onnx.TensorProto]":
        for node in nodes:
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors
                yield from of_sparse([attribute.sparse_tensor, *attribute.sparse_tensors])
                for graph in (attribute.g, *attribute.graphs):
                    yield from of_graph(graph)

    def of_sparse(tensors: Any) -> "Iterator[onnx.TensorProto]":
        for tensor in tensors:
            yield tensor.values
            yield tensor.indices

    def of_graph(graph: Any) -> "Iterator[onnx.TensorProto]":
        yield from graph.initializer
        yield from of_sparse(graph.sparse_initializer)
        yield from of_nodes(graph.node)

    yield from of_graph(model.graph)
    for function in model.functions:
        yield from of_nodes(function.node)
