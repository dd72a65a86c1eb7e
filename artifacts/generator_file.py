"""The generator file: one ONNX file that describes itself. Its metadata, its digest and the checks of both."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from artifacts.onnx_metadata import digest_of, metadata_of

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
    """The file is not a generator file, or its metadata and its graph disagree; the message names where."""


@dataclass(frozen=True)
class Metadata:
    """The metadata of a generator file. `evaluation` has the `evaluation.*` scores without their prefix."""

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
    optimize: str = "none"  # fp16 or int8 if the graph was optimized after its export
    foreign: bool = False  # a plain ONNX generator: derived from the graph and the file's name

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for an unconditional generator."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.height, self.width, self.channels


def is_unsealed(key: str) -> bool:
    """Return whether the digest leaves a metadata key out, so that writing scores into a file does not change it."""
    return key == "digest" or key.startswith("evaluation.")


def digest(model: "onnx.ModelProto") -> str:
    """Return the sha256 (hex) of the whole file except the digest itself and the `evaluation.*` scores."""
    return digest_of(model, is_unsealed)


def check(model: "onnx.ModelProto") -> Metadata:
    """Return the metadata of a generator file.

    Raises:
        ContractError: If it is not one: metadata is missing or malformed, the graph has other inputs or outputs than
            the metadata describes, weights are in other files, or the digest does not match.
    """
    props = metadata_of(model)
    if len(props) != len(model.metadata_props):
        raise ContractError("a metadata key appears twice")
    if missing := [key for key in REQUIRED if key not in props]:
        raise ContractError(f"not a generator file: metadata lacks {', '.join(missing)}")
    if props["format_version"] != FORMAT_VERSION:
        raise ContractError(f"format_version is {props['format_version']!r}; this version reads {FORMAT_VERSION!r}")
    metadata = _parse(props)
    _check_graph(model, metadata)
    if holds_external_weights(model):
        raise ContractError("weights are in external files; export with them inside (external_data=False)")
    if (actual := digest(model)) != metadata.digest:
        raise ContractError(
            f"changed after its export: the digest is {metadata.digest[:12]}…, that of the content {actual[:12]}…"
        )
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
    if positive("channels") not in (1, 3, 4):
        raise ContractError(f"metadata channels is {props['channels']}; 1, 3 and 4 can be shown")
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
    """Raise ValueError or RecursionError for JSON that a response cannot contain (1e999, half a surrogate pair)."""
    for _ in range(200):  # the nesting that a response adds
        value = [value]
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _check_graph(model: "onnx.ModelProto", metadata: Metadata) -> None:
    """Raise ContractError unless the graph has the inputs and outputs that the metadata describes."""
    from onnx import TensorProto

    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in initialized}
    outputs = {value.name: value for value in model.graph.output}
    wanted = {"latents": (TensorProto.FLOAT, [None, metadata.z_dim])}
    if metadata.num_classes:
        wanted["labels"] = (TensorProto.INT64, [None])
    if set(inputs) != set(wanted):
        raise ContractError(f"the graph's inputs are {sorted(inputs)}, the metadata describes {sorted(wanted)}")
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
    """Return whether some weights are in other files."""
    return any(tensor.data_location == tensor.EXTERNAL for tensor in tensors(model))


def tensors(model: "onnx.ModelProto") -> "Iterator[onnx.TensorProto]":
    """Yield every tensor of a model, also those inside nodes, subgraphs and functions."""

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
