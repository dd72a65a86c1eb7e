"""An ONNX file of one's own as an extractor file: checked, brought to the contract, tried and sealed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata as packages
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.onnx_files import metadata_of
from evaluation.atomic import check_writable, written_whole
from evaluation.errors import EvaluationError
from evaluation.extractors.builder import OPSET, preamble, seal
from evaluation.extractors.extractor import Extractor, load_extractor
from evaluation.extractors.resize import RESIZES
from evaluation.metrics.names import fault_of_name
from evaluation.onnx_files import run, session_of

if TYPE_CHECKING:
    import onnx

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OWN_RESIZE = "its own graph's"
MAX_SIDE = 4096
_PREFIX = "network/"
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
_LFS = b"version https://git-lfs"
# What batching may change in a feature, in shares of the features' spread: rounding, and no more.
_BATCHING = 1e-4


@dataclass(frozen=True)
class Sealed:
    """The written file, its metadata, and the width of its features."""

    path: Path
    metadata: dict[str, Any]
    dim: int
    notes: tuple[str, ...] = ()


def seal_onnx(
    path: Path,
    output: Path,
    *,
    name: str,
    resize: str | None = None,
    side: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    features: str | None = None,
    logits: str | None = None,
) -> Sealed:
    """Write an ONNX file as an extractor file.

    A graph that takes uint8 images [N, H, W, C] resizes and normalizes them itself, and is sealed so. A network of
    floats [N, C, side, side] gets the resize and the normalization in front of it. Either is run on noise before the
    file is written: features must be finite, differ from image to image, and depend on nothing but their own image.

    Args:
        path: The ONNX file, whose weights may be in files next to it.
        output: The extractor file.
        name: Its name, which names the metrics: `dinov2` gives `fd_dinov2_10k`.
        resize: One of `RESIZES`, for a network of floats.
        side: The network's side in pixels, where the file does not fix it.
        mean: Mean by color, of pixels in [0, 1]; ImageNet's by default.
        std: Standard deviation by color, likewise.
        features: The output with the features, where there are several.
        logits: The output with class logits; none by default.

    Returns:
        Where the file is and what it says of itself.

    Raises:
        EvaluationError: If the file is not such a network, or cannot be read, run or written.
    """
    if fault := fault_of_name(name):
        raise EvaluationError(fault)
    check_writable(output)
    model = _read(path)
    _check_nodes(path, model)
    source = _only_input(path, model)
    weights = _weights_sha256(model)
    chosen = [_output(path, model, features, logits), *([logits] if logits else [])]
    model = _at_opset(path, model)
    facts: dict[str, Any]
    if source.pixels:
        if resize is not None or side is not None or mean is not None or std is not None:
            raise EvaluationError(
                f"{path} takes uint8 images, so its own graph resizes and normalizes them; leave out --resize, --side, "
                "--mean and --std"
            )
        built, notes = _with_any_channels(path, model, source)
        facts = {"resize": OWN_RESIZE, "resolution": source.side, "channels": source.channels}
    else:
        side = _side(path, source, side)
        if resize not in RESIZES:
            given = "needs --resize" if resize is None else f"has no resize {resize!r}"
            raise EvaluationError(
                f"{path} takes floats and {given}: {', '.join(RESIZES)} (which one is part of the metric)"
            )
        built, normalization = _with_preamble(path, model, source, resize, side, mean, std)
        facts = {"resize": resize, "resolution": side, "channels": source.channels, **normalization}
        notes = ()
    _with_outputs(path, built, chosen, source, facts["resolution"])
    seal(
        built,
        {
            "name": name,
            "network": path.stem,
            "metric": f"fd_{name}",
            "weights_sha256": weights,
            **{key: value for key, value in facts.items() if value is not None},
            "versions": {"onnx": packages.version("onnx")},
        },
    )
    return _tried_and_written(path, built, output, source, facts["resolution"], notes)


@dataclass(frozen=True)
class _Input:
    """The network's input. `side` None: any. `channels` None: any."""

    name: str
    pixels: bool
    half: bool
    channels: int | None
    height: int | None
    width: int | None

    @property
    def side(self) -> int | None:
        return self.height if self.height == self.width else None


def _read(path: Path) -> onnx.ModelProto:
    import onnx

    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist, or is not a file"
        raise EvaluationError(f"{path} {what}; an ONNX file is needed")
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise EvaluationError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`")
    try:
        model = onnx.load(str(path), format="protobuf")
    except Exception as error:  # protobuf, onnx and the external data raise kinds of their own
        raise EvaluationError(f"{path} cannot be read as an ONNX file ({_one_line(error)})") from error
    if not model.graph.node:
        raise EvaluationError(f"{path} is not an ONNX file, or its graph is empty")
    try:
        if model.ByteSize() > 2**31 - 2**20:
            raise EvaluationError(f"{path} is of more than 2 GiB with its weights, which one ONNX file cannot hold")
        onnx.checker.check_model(model)
    except EvaluationError:
        raise
    except Exception as error:
        raise EvaluationError(f"{path} is not a sound ONNX file ({_one_line(error)})") from error
    metadata = metadata_of(model)
    if {"digest", "metric", "weights_sha256"} <= set(metadata):
        raise EvaluationError(f"{path} is an extractor file already, called {metadata.get('name', '')[:80]!r}")
    if "latents" in {value.name for value in model.graph.input}:
        raise EvaluationError(f"{path} is a generator, which makes images; an extractor takes them")
    return model


def _check_nodes(path: Path, model: onnx.ModelProto) -> None:
    """Refuse what would give one image different features."""
    for node in _nodes(model):
        if node.op_type in _RANDOM:
            raise EvaluationError(f"{path} draws random numbers ({node.op_type}): export it in inference mode")
        for attribute in node.attribute:
            if attribute.name == "training_mode" and attribute.i:
                raise EvaluationError(f"{path} is in training mode ({node.op_type}): export it in inference mode")


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the graph, of graphs inside it, and of local functions."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            yield node
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _only_input(path: Path, model: onnx.ModelProto) -> _Input:
    from onnx import TensorProto

    constants = {value.name for value in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs[:5]) or "none"
        raise EvaluationError(f"{path} has {len(inputs)} inputs ({names}); an extractor takes images alone")
    (value,) = inputs
    kind = value.type.tensor_type.elem_type
    if kind not in (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT16):
        told = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else "no tensor"
        raise EvaluationError(f"{path}: its input {value.name} is {told}, not uint8 images or float")
    pixels = kind == TensorProto.UINT8
    layout = "[N, H, W, C]" if pixels else "[N, C, H, W]"
    shape = _shape(value)
    if shape is None or len(shape) != 4:
        raise EvaluationError(f"{path}: its input {value.name} has shape {shape or 'unknown'}, not {layout}")
    if isinstance(shape[0], int):
        raise EvaluationError(f"{path} takes batches of {shape[0]} alone; export it with a dynamic first axis")
    at = 3 if pixels else 1
    other = 1 if pixels else 3
    if shape[at] not in (1, 3) and (shape[other] in (1, 3) or isinstance(shape[at], int)):
        raise EvaluationError(
            f"{path}: its input {value.name} is {'uint8' if pixels else 'float'} {shape}; "
            f"{'uint8 images are' if pixels else 'a network of floats takes'} {layout} with 1 or 3 channels"
        )
    fixed = [size if isinstance(size, int) else None for size in shape]
    channels = fixed[at] if pixels else fixed[at] or 3
    height, width = fixed[1:3] if pixels else fixed[2:4]
    return _Input(value.name, pixels, kind == TensorProto.FLOAT16, channels, height, width)


def _shape(value: onnx.ValueInfoProto) -> list[int | str] | None:
    """Sizes of the axes, or their names; None where no shape is recorded."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in tensor.shape.dim]


def _side(path: Path, source: _Input, side: int | None) -> int:
    if source.height != source.width:
        raise EvaluationError(f"{path} takes {source.height}x{source.width}; a network's input must be square")
    if source.side is not None and side not in (None, source.side):
        raise EvaluationError(f"{path} takes {source.side} px, not --side {side}")
    if (found := source.side or side) is None:
        raise EvaluationError(f"{path} does not fix the side of its images; say --side, such as 224")
    if not 1 <= found <= MAX_SIDE:
        raise EvaluationError(f"{path}: a side of {found} px is not between 1 and {MAX_SIDE}")
    return found


def _output(path: Path, model: onnx.ModelProto, features: str | None, logits: str | None) -> str:
    names = [value.name for value in model.graph.output]
    for asked in (features, logits):
        if asked is not None and asked not in names:
            raise EvaluationError(f"{path} has no output {asked!r}; it has {', '.join(names)}")
    if features is not None and features == logits:
        raise EvaluationError("--features and --logits name one output; features are what a layer before it gives")
    rest = [name for name in names if name != logits]
    if features is None and len(rest) != 1:
        raise EvaluationError(
            f"{path} has {len(rest)} outputs that may be the features ({', '.join(rest)}); name one with --features"
        )
    return features or rest[0]


def _at_opset(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """The model under a prefix, at an opset that has the preamble's operations."""
    from onnx import compose, version_converter

    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    try:
        if version < OPSET:
            model = version_converter.convert_version(model, OPSET)
        return compose.add_prefix(model, _PREFIX)
    except Exception as error:
        raise EvaluationError(
            f"{path} is of opset {version} and cannot be converted to {OPSET} ({_one_line(error)}); export it with "
            f"opset {OPSET} or newer"
        ) from error


def _with_preamble(
    path: Path,
    model: onnx.ModelProto,
    source: _Input,
    resize: str,
    side: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Put resize and normalization in front of a network of floats."""
    from onnx import TensorProto, helper, numpy_helper

    channels = source.channels or 3
    default = IMAGENET if channels == 3 else ((0.5,), (0.5,))
    mean, std = mean or default[0], std or default[1]
    for called, values in (("--mean", mean), ("--std", std)):
        if len(values) != channels or not np.isfinite(values).all():
            raise EvaluationError(f"{called} needs {channels} finite numbers for {path}, not {list(values)}")
    if min(std) <= 0:
        raise EvaluationError(f"--std must be above 0, not {list(std)}")
    how, front = RESIZES[resize], preamble(resize, side, channels)
    # The preamble gives p = (x - offset) / scale of pixels x in 0 … 255; the network wants (x / 255 - mean) / std.
    factor = how.scale / 255 / np.array(std)
    shift = (how.offset / 255 - np.array(mean)) / np.array(std)
    graph = model.graph
    nodes = list(front.graph.node)
    constants = {"pre_factor": factor, "pre_shift": shift}
    nodes += [
        helper.make_node("Mul", ["prepared", "pre_factor"], ["pre_scaled"]),
        helper.make_node("Add", ["pre_scaled", "pre_shift"], ["pre_normalized"]),
        helper.make_node(
            "Cast",
            ["pre_normalized"],
            [_PREFIX + source.name],
            to=TensorProto.FLOAT16 if source.half else TensorProto.FLOAT,
        ),
    ]
    _in_front(model, nodes)
    graph.initializer.extend(front.graph.initializer)
    graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32).reshape(1, -1, 1, 1), key) for key, value in constants.items()
    )
    return model, {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}


def _with_any_channels(path: Path, model: onnx.ModelProto, source: _Input) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Let a graph of pixels take gray and RGB: gray is repeated, RGB becomes gray by ITU-R 601 luma."""
    from onnx import TensorProto, helper, numpy_helper

    to, constants = _PREFIX + source.name, {"pre_rgb": np.array([1, 1, 1, 3])}
    if source.channels is None:
        nodes = [helper.make_node("Identity", ["images"], [to])]
        constants = {}
    elif source.channels == 3:
        nodes = [helper.make_node("Expand", ["images", "pre_rgb"], [to])]
    else:
        constants |= {"pre_luma": np.array([0.299, 0.587, 0.114], np.float32), "pre_axis": np.array([3])}
        nodes = [
            helper.make_node("Expand", ["images", "pre_rgb"], ["pre_0"]),
            helper.make_node("Cast", ["pre_0"], ["pre_1"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["pre_1", "pre_luma"], ["pre_2"]),
            helper.make_node("ReduceSum", ["pre_2", "pre_axis"], ["pre_3"], keepdims=1),
            helper.make_node("Round", ["pre_3"], ["pre_4"]),
            helper.make_node("Cast", ["pre_4"], [to], to=TensorProto.UINT8),
        ]
    _in_front(model, nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    if source.height is None and source.width is None:
        return model, ()
    size = f"{source.height or 'any'}x{source.width or 'any'}"
    return model, (f"{path} does not resize: it takes images of {size} alone",)


def _in_front(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Make `nodes` the first of the graph and `images` its input."""
    from onnx import TensorProto, helper

    rest = list(model.graph.node)
    del model.graph.node[:], model.graph.input[:], model.graph.value_info[:]
    model.graph.node.extend([*nodes, *rest])
    model.graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", "C"]))
    model.ir_version = max(model.ir_version, 8)
    del model.metadata_props[:]


def _with_outputs(path: Path, model: onnx.ModelProto, chosen: Sequence[str], source: _Input, side: int | None) -> None:
    """Make `features` and `logits` the graph's outputs, float32 of rank 2, by what a run on noise gives."""
    from onnx import TensorProto, helper

    graph, names = model.graph, ("features", "logits")
    del graph.output[:]
    for name, inner in zip(names, chosen, strict=False):
        graph.node.append(helper.make_node("Cast", [_PREFIX + inner], [name], to=TensorProto.FLOAT))
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    images = _noise(2, source, side)[0]
    got = run(session_of(model, path), list(names[: len(chosen)]), {"images": images}, str(path))
    del graph.output[:]
    for name, inner, rows in zip(names, chosen, got, strict=False):
        width = int(np.prod(rows.shape[1:]))
        if len(rows.shape) < 2 or len(rows) != len(images) or width != rows.shape[1] or not width:
            raise EvaluationError(
                f"{path}: its output {inner} is {list(rows.shape)} for {len(images)} images, not a row of numbers for "
                "each; pool it, or name another output with --features"
            )
        if rows.ndim > 2:  # [N, d, 1, 1], as a pooling layer leaves it
            node = next(node for node in graph.node if node.output[0] == name)
            node.output[0] = f"{name}_pooled"
            graph.node.append(helper.make_node("Flatten", [f"{name}_pooled"], [name], axis=1))
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]))


def _noise(n: int, source: _Input, side: int | None) -> list[np.ndarray]:
    """Noise images that the file must take: RGB, gray, and where it resizes of another size."""
    random = np.random.default_rng(0)
    height, width = (source.height or 64, source.width or 64) if source.pixels else (side or 64, side or 64)
    sizes = [(height, width, 3), (height, width, 1)]
    if not (source.pixels and (source.height or source.width)):
        sizes.append((37, 53, 3))
    return [random.integers(0, 256, (n, *size), dtype=np.uint8) for size in sizes]


def _tried_and_written(
    path: Path, model: onnx.ModelProto, output: Path, source: _Input, side: int | None, notes: tuple[str, ...]
) -> Sealed:
    with tempfile.TemporaryDirectory(prefix="atelier-seal-") as folder:
        made = Path(folder) / "extractor.onnx"
        try:
            packed = model.SerializeToString(deterministic=True)
        except Exception as error:  # protobuf's own, of more than 2 GiB
            raise EvaluationError(f"{path} cannot be written as one file ({_one_line(error)})") from error
        made.write_bytes(packed)
        try:
            extractor = load_extractor(made)
            for images in _noise(5, source, side):
                _try(extractor, images)
        except EvaluationError as error:
            raise EvaluationError(f"{path} was not sealed: {str(error).replace(str(made), 'it')}") from error
        with written_whole(output) as handle:
            handle.write(packed)
        return Sealed(output, dict(extractor.metadata), extractor.dim, notes)


def _try(extractor: Extractor, images: np.ndarray) -> None:
    """Raise EvaluationError unless each image's features are its own, and differ from others'."""
    shape = "x".join(map(str, images.shape[1:]))
    together = extractor(images).features
    spread = float(np.abs(together - together.mean(axis=0)).max())
    if spread <= 1e-6 * float(np.abs(together).max()):
        raise EvaluationError(f"its features are the same for unlike images of {shape}")
    again, apart = extractor(images).features, np.concatenate([extractor(one[None]).features for one in images])
    if np.abs(again - together).max() > _BATCHING * spread:
        raise EvaluationError("its features of the same images differ from run to run: export it in inference mode")
    if np.abs(apart - together).max() > _BATCHING * spread:
        raise EvaluationError(
            "the features of an image depend on the other images of its batch: export it in inference mode"
        )


def _weights_sha256(model: onnx.ModelProto) -> str:
    """sha256 over names, shapes, types and bytes of the constants, in order of name."""
    from onnx import numpy_helper

    digest = hashlib.sha256()
    for value in sorted(model.graph.initializer, key=lambda one: one.name):
        array = np.ascontiguousarray(numpy_helper.to_array(value))
        digest.update(f"{value.name} {list(array.shape)} {array.dtype}".encode("utf-8", "replace"))
        digest.update(array.tobytes())
    return digest.hexdigest()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
