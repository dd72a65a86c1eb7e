"""Write a user's ONNX network as an extractor file: inspect, adapt to the contract, try, seal."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata as packages
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.onnx_metadata import onnx_error_message
from evaluation.errors import EvaluationError
from evaluation.extractors.extractor import Extractor, load_extractor
from evaluation.extractors.extractor_export import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OPSET,
    hash_arrays,
    preprocessing_model,
    seal,
)
from evaluation.extractors.onnx_inspection import NetworkInput, find_features, find_input, read_network
from evaluation.extractors.resize import RESIZES
from evaluation.metrics.result_names import invalid_name_reason
from evaluation.onnx_runtime import create_session, run_session
from evaluation.output_files import atomic_output, check_writable

if TYPE_CHECKING:
    import onnx

OWN_RESIZE = "its own graph's"
MAX_SIDE = 4096
_PREFIX = "network/"
# Largest change of a feature by its batch, as a share of the features' spread: rounding only.
_BATCH_TOLERANCE = 1e-4


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
) -> tuple[Extractor, list[str]]:
    """Write an ONNX file as an extractor file.

    A graph of uint8 images [N, H, W, C] keeps its own resize and normalization. A network of floats
    [N, C, side, side] gets both in front of it. Either is run on noise before the file is written: features must be
    finite, differ from image to image, and depend only on their own image.

    Args:
        path: The ONNX file, whose weights may be in files next to it.
        output: The extractor file.
        name: Its name, which names the metrics: `dinov2` gives `fd_dinov2_10k`.
        resize: A key of `RESIZES`, for a network of floats.
        side: The network's side in pixels, where the file does not fix it.
        mean: Mean by color, of pixels in [0, 1]; default: ImageNet's.
        std: Standard deviation by color, likewise.
        features: The output with the features, where there are several.
        logits: The output with class logits; default: none.

    Returns:
        The extractor, and warnings for the user.

    Raises:
        EvaluationError: If the file is not such a network, or cannot be read, run or written.
    """
    if reason := invalid_name_reason(name):
        raise EvaluationError(reason)
    check_writable(output)
    model = read_network(path)
    source = find_input(path, model)
    weights = _weights_sha256(model)
    outputs = [find_features(path, model, features, logits), *([logits] if logits else [])]
    model = _convert_opset(path, model)
    warnings = []
    if source.is_uint8:
        if any(option is not None for option in (resize, side, mean, std)):
            raise EvaluationError(
                f"{path} takes uint8 images, so its own graph resizes and normalizes them; leave out --resize, --side, "
                "--mean and --std"
            )
        _accept_any_channels(model, source)
        if source.height is not None or source.width is not None:
            size = f"{source.height or 'any'}x{source.width or 'any'}"
            warnings.append(f"{path} does not resize: it only takes images of {size}")
        preprocessing: dict[str, Any] = {"resize": OWN_RESIZE, "resolution": source.side, "channels": source.channels}
    else:
        preprocessing = _add_preprocessing(path, model, source, resize, _check_side(path, source, side), mean, std)
    resolution = preprocessing["resolution"]
    _set_outputs(path, model, outputs, _noise(2, source, resolution)[0])
    metadata = {"name": name, "network": path.stem, "metric": f"fd_{name}", "weights_sha256": weights, **preprocessing}
    seal(model, {**metadata, "versions": {"onnx": packages.version("onnx")}})
    return _try_and_write(path, model, output, _noise(5, source, resolution)), warnings


def _check_side(path: Path, source: NetworkInput, side: int | None) -> int:
    if source.height != source.width:
        raise EvaluationError(f"{path} takes {source.height}x{source.width}; a network's input must be square")
    if source.side is not None and side not in (None, source.side):
        raise EvaluationError(f"{path} takes {source.side} px, not --side {side}")
    if (found := source.side or side) is None:
        raise EvaluationError(f"{path} does not fix the side of its images; give --side, such as 224")
    if not 1 <= found <= MAX_SIDE:
        raise EvaluationError(f"{path}: a side of {found} px is not between 1 and {MAX_SIDE}")
    return found


def _convert_opset(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with prefixed names, at an opset that has the operations of the preprocessing."""
    from onnx import compose, version_converter

    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    try:
        if version < OPSET:
            model = version_converter.convert_version(model, OPSET)
        return compose.add_prefix(model, _PREFIX)
    except Exception as error:
        raise EvaluationError(
            f"{path} is of opset {version} and cannot be converted to {OPSET} ({onnx_error_message(error, 200)}); "
            f"export it with opset {OPSET} or newer"
        ) from error


def _add_preprocessing(
    path: Path,
    model: onnx.ModelProto,
    source: NetworkInput,
    resize: str | None,
    side: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> dict[str, Any]:
    """Put resize and normalization in front of a network of floats; return their metadata."""
    from onnx import TensorProto, helper

    if resize not in RESIZES:
        problem = "needs --resize" if resize is None else f"has no resize {resize!r}"
        raise EvaluationError(
            f"{path} takes floats and {problem}: {', '.join(RESIZES)} (which one is part of the metric)"
        )
    channels = source.channels or 3
    gray = (0.5,)
    mean, std = mean or (IMAGENET_MEAN if channels == 3 else gray), std or (IMAGENET_STD if channels == 3 else gray)
    for option, values in (("--mean", mean), ("--std", std)):
        if len(values) != channels or not np.isfinite(values).all():
            raise EvaluationError(f"{option} needs {channels} finite numbers for {path}, not {list(values)}")
    if min(std) <= 0:
        raise EvaluationError(f"--std must be above 0, not {list(std)}")
    how, front = RESIZES[resize], preprocessing_model(resize, side, channels)
    # `prepared` is (x - offset) / scale of pixels x in 0 … 255; the network takes (x / 255 - mean) / std.
    constants = {
        "pre_factor": how.scale / 255 / np.array(std),
        "pre_shift": (how.offset / 255 - np.array(mean)) / np.array(std),
    }
    float_type = TensorProto.FLOAT16 if source.is_half else TensorProto.FLOAT
    constants = {key: value.astype(np.float32).reshape(1, -1, 1, 1) for key, value in constants.items()}
    nodes = [
        *front.graph.node,
        helper.make_node("Mul", ["prepared", "pre_factor"], ["pre_scaled"]),
        helper.make_node("Add", ["pre_scaled", "pre_shift"], ["pre_normalized"]),
        helper.make_node("Cast", ["pre_normalized"], [_PREFIX + source.name], to=float_type),
    ]
    model.graph.initializer.extend(front.graph.initializer)
    _insert_in_front(model, nodes, constants)
    normalization = {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}
    return {"resize": resize, "resolution": side, "channels": source.channels, **normalization}


def _accept_any_channels(model: onnx.ModelProto, source: NetworkInput) -> None:
    """Let a graph of uint8 images take gray and RGB: gray is repeated, RGB becomes gray by ITU-R 601 luma."""
    from onnx import TensorProto, helper

    to, constants = _PREFIX + source.name, {"pre_rgb": np.array([1, 1, 1, 3])}
    if source.channels is None:
        nodes, constants = [helper.make_node("Identity", ["images"], [to])], {}
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
    _insert_in_front(model, nodes, constants)


def _insert_in_front(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
    """Make `nodes`, which use `constants`, the first of the graph and `images` its input."""
    from onnx import TensorProto, helper, numpy_helper

    rest = list(model.graph.node)
    del model.graph.node[:], model.graph.input[:], model.graph.value_info[:]
    model.graph.node.extend([*nodes, *rest])
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    model.graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", "C"]))
    model.ir_version = max(model.ir_version, 8)
    del model.metadata_props[:]


def _set_outputs(path: Path, model: onnx.ModelProto, outputs: Sequence[str], images: np.ndarray) -> None:
    """Make `features` and `logits` the graph's outputs, float32 of rank 2, with the widths of a run on `images`."""
    from onnx import TensorProto, helper

    graph, names = model.graph, ("features", "logits")
    del graph.output[:]
    for name, inner in zip(names, outputs, strict=False):
        graph.node.append(helper.make_node("Cast", [_PREFIX + inner], [name], to=TensorProto.FLOAT))
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    arrays = run_session(create_session(model, path), list(names[: len(outputs)]), {"images": images}, str(path))
    del graph.output[:]
    for name, inner, rows in zip(names, outputs, arrays, strict=False):
        width = int(np.prod(rows.shape[1:]))
        if len(rows.shape) < 2 or len(rows) != len(images) or width != rows.shape[1] or not width:
            raise EvaluationError(
                f"{path}: its output {inner} is {list(rows.shape)} for {len(images)} images, not a row of numbers for "
                "each; pool it, or name another output with --features"
            )
        # A pooling layer may return [N, d, 1, 1].
        if rows.ndim > 2:
            node = next(node for node in graph.node if node.output[0] == name)
            node.output[0] = f"{name}_pooled"
            graph.node.append(helper.make_node("Flatten", [f"{name}_pooled"], [name], axis=1))
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]))


def _noise(n: int, source: NetworkInput, side: int | None) -> list[np.ndarray]:
    """Return noise images that the file must accept: RGB, gray, and of another size if it resizes."""
    random = np.random.default_rng(0)
    height, width = (source.height or 64, source.width or 64) if source.is_uint8 else (side or 64, side or 64)
    sizes = [(height, width, 3), (height, width, 1)]
    if not (source.is_uint8 and (source.height or source.width)):
        sizes.append((37, 53, 3))
    return [random.integers(0, 256, (n, *size), dtype=np.uint8) for size in sizes]


def _try_and_write(path: Path, model: onnx.ModelProto, output: Path, noise: Sequence[np.ndarray]) -> Extractor:
    """Load the model as an extractor file, run it on noise, write it, and return the extractor."""
    try:
        content = model.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf's own type, above 2 GiB
        raise EvaluationError(f"{path} cannot be written as one file ({onnx_error_message(error, 200)})") from error
    with tempfile.TemporaryDirectory(prefix="atelier-seal-") as folder:
        trial = Path(folder) / "extractor.onnx"
        trial.write_bytes(content)
        try:
            extractor = load_extractor(trial)
            for images in noise:
                _check_features(extractor, images)
        except EvaluationError as error:
            raise EvaluationError(f"{path} was not sealed: {str(error).replace(str(trial), 'it')}") from error
    with atomic_output(output) as handle:
        handle.write(content)
    return replace(extractor, path=output)


def _check_features(extractor: Extractor, images: np.ndarray) -> None:
    """Raise EvaluationError unless features depend only on their own image, and differ between images."""
    shape = "x".join(map(str, images.shape[1:]))
    together = extractor(images).features
    spread = float(np.abs(together - together.mean(axis=0)).max())
    if spread <= 1e-6 * float(np.abs(together).max()):
        raise EvaluationError(f"its features are the same for different images of {shape}")
    again = extractor(images).features
    one_by_one = np.concatenate([extractor(image[None]).features for image in images])
    if np.abs(again - together).max() > _BATCH_TOLERANCE * spread:
        raise EvaluationError("its features of the same images differ from run to run: export it in inference mode")
    if np.abs(one_by_one - together).max() > _BATCH_TOLERANCE * spread:
        raise EvaluationError(
            "the features of an image depend on the other images of its batch: export it in inference mode"
        )


def _weights_sha256(model: onnx.ModelProto) -> str:
    """Return the sha256 over the constants of the graph."""
    from onnx import numpy_helper

    return hash_arrays((value.name, numpy_helper.to_array(value)) for value in model.graph.initializer)
