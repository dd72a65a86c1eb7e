"""Generator files: what one must hold, why it is refused, and the sessions that run those that are sound."""

import hashlib
import json
import logging
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import ApiError
from service.settings import Settings

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("bentoml.atelier")

FORMAT_VERSION = "1"
BUNDLED = Path(__file__).parent / "bundled"
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

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


def digest(model: "onnx.ModelProto") -> str:
    """sha256 (hex) of the whole file but the digest itself and the `evaluation.*` scores."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    kept = sorted(
        (p.key, p.value) for p in model.metadata_props if p.key != "digest" and not p.key.startswith("evaluation.")
    )
    h = hashlib.sha256(bare.SerializeToString(deterministic=True))
    h.update(json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode())
    return h.hexdigest()


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
    if any(tensor.data_location == tensor.EXTERNAL for tensor in _tensors(model)):
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
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise ContractError(f"metadata {key} is not a JSON {'list' if kind is list else 'object'}")
        return value

    def score(text: str) -> Any:
        try:
            return json.loads(text, parse_constant=str)
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
        evaluation={
            key.removeprefix("evaluation."): score(value)
            for key, value in props.items()
            if key.startswith("evaluation.")
        },
    )


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


def _tensors(model: "onnx.ModelProto") -> "Iterator[onnx.TensorProto]":
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


class Generator:
    """A sound generator file and the session that runs it."""

    def __init__(self, path: Path, metadata: Metadata, content: bytes, threads: int):
        import onnxruntime as ort

        self.path, self.metadata = path, metadata
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(self, latents: NDArray[np.float32], labels: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """latents float32 [N, z_dim] (and labels int64 [N] if conditional) → images uint8 [N, H, W, C]."""
        feed: dict[str, NDArray] = {"latents": latents}
        if labels is not None:
            feed["labels"] = labels
        return self.session.run(None, feed)[0]

    def warm_up(self, max_batch: int) -> None:
        """Run the smallest and the largest batch once. ContractError: the images are not those promised."""
        for n in dict.fromkeys((1, max_batch)):
            latents = np.zeros((n, self.metadata.z_dim), np.float32)
            labels = np.zeros(n, np.int64) if self.metadata.num_classes else None
            images = self.run(latents, labels)
            if images.shape != (n, *self.metadata.image_shape) or images.dtype != np.uint8:
                raise ContractError(
                    f"{n} latents gave {images.dtype} {list(images.shape)}, not uint8 {[n, *self.metadata.image_shape]}"
                )

    def describe(self) -> dict[str, Any]:
        """The model as /v1/models tells it."""
        return {**asdict(self.metadata), "file": self.path.name}


def load(path: Path, max_bytes: int, threads: int, max_batch: int) -> Generator:
    """Read, check and warm up one generator file. ContractError: it is refused, and why."""
    import onnx

    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ContractError(f"cannot be read: {error.strerror}") from None
    if len(content) > max_bytes:
        raise ContractError(f"larger than ATELIER_MAX_MODEL_BYTES ({max_bytes} bytes)")
    try:
        model = onnx.load_from_string(content)
    except Exception:
        raise ContractError("not an ONNX file") from None
    metadata = check(model)
    del model
    try:
        generator = Generator(path, metadata, content, threads)
        generator.warm_up(max_batch)
    except ContractError:
        raise
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0][:300]
        raise ContractError(f"ONNX Runtime does not run it: {first_line}") from None
    return generator


class Repository:
    """The generators of one folder by name, and the files that were refused, with the reason."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._lock = threading.Lock()
        self._models: dict[str, Generator] = {}
        self.failed: dict[str, str] = {}
        self._not_ready: str | None = "models are still being loaded"

    @property
    def folder(self) -> Path:
        """MODEL_DIR if it was named, else ./models if it holds generator files, else the bundled folder."""
        if self._settings.model_dir is not None:
            return self._settings.model_dir
        ours = Path("models")
        return ours if any(ours.glob("*.onnx")) else BUNDLED

    @property
    def not_ready(self) -> str | None:
        """Why requests cannot be answered yet, or None when they can."""
        return self._not_ready

    def load_all(self) -> None:
        """Read the folder. One bad file stops no other; nothing is raised."""
        threads = self._settings.threads or max(1, available_cores() // self._settings.workers)
        by_name: dict[str, list[Generator]] = defaultdict(list)
        failed: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.onnx")):
            try:
                generator = load(path, self._settings.max_model_bytes, threads, self._settings.max_batch)
                by_name[generator.metadata.name].append(generator)
            except ContractError as error:
                failed[path.name] = str(error)
        for name, same in by_name.items():
            for generator in same if len(same) > 1 else []:
                others = ", ".join(g.path.name for g in same if g is not generator)
                failed[generator.path.name] = f"its name {name!r} is also that of {others}; rename one and export again"
        models = {name: same[0] for name, same in by_name.items() if len(same) == 1}
        for file, reason in failed.items():
            log.warning("%s is not served: %s", file, reason)
        with self._lock:
            self._models, self.failed = models, failed
            self._not_ready = self._why_not(models)

    def _why_not(self, models: dict[str, Generator]) -> str | None:
        default = self._settings.default_model
        if not self.folder.is_dir():
            return f"the model folder {self.folder} does not exist; set MODEL_DIR to a folder of generator files"
        if not models:
            return f"no usable generator file (*.onnx) in {self.folder}; /v1/models tells what was refused"
        if default is not None and default not in models:
            return f"ATELIER_DEFAULT_MODEL is {default!r}; the models are {', '.join(sorted(models))}"
        return None

    def all(self) -> list[Generator]:
        return [self._models[name] for name in sorted(self._models)]

    @property
    def default(self) -> str | None:
        """ATELIER_DEFAULT_MODEL, else the newest by `created` (ties: the first by name)."""
        if self._settings.default_model is not None:
            return self._settings.default_model
        newest = sorted(self.all(), key=lambda g: datetime.fromisoformat(g.metadata.created), reverse=True)
        return newest[0].metadata.name if newest else None

    def get(self, name: str | None) -> Generator:
        """The named generator, the default one for None. ApiError: 404 unknown, 503 none is loaded."""
        models = self._models
        if name is None:
            name = self.default
        if name is not None and name in models:
            return models[name]
        if self._not_ready:
            raise ApiError(503, "not_ready", self._not_ready)
        known = ", ".join(sorted(models)[:20])
        raise ApiError(404, "model_not_found", f"no model is named {str(name)[:100]!r}; there are: {known}", "model")


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
