"""Plain ONNX generators, as other tools export them, adapted to the contract of generator files when they are read.

Accepted: one float input [N, z] or [N, z, 1, 1], N dynamic or fixed, and one float output [N, C, H, W] in [-1, 1].
Result: `latents` float32 [N, z] → `images` uint8 [N, H, W, C], with the same final nodes as `trainer export`.
"""

import hashlib
import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from artifacts.generator_file import NAME, ContractError, Metadata, holds_external_weights, tensors

if TYPE_CHECKING:
    import onnx

CONTRACT_KEYS = frozenset({"format_version", "digest", "z_dim"})  # a file with any of these claims the contract
OLDEST_OPSET = 11  # the first with Round
MAX_Z_DIM, MAX_SIDE, MAX_BATCH = 65_536, 4_096, 4_096
PROBE_ROWS, LARGE_PROBE = 4, 2**25  # rows to run; only two where the images have more floats than that
RANGE_TOLERANCE = 1e-3  # by which a value may leave [-1, 1]
BATCH_TOLERANCE = 1 / 127.5  # by which an image may depend on its batch: one level of 256


def is_third_party(model: "onnx.ModelProto") -> bool:
    """Return whether a model claims nothing of the generator file's contract."""
    return not CONTRACT_KEYS & {p.key for p in model.metadata_props}


def weights_path(path: Path) -> Path:
    """Return the only file whose external weights are read: `x.onnx.data` for `x.onnx`."""
    return path.with_name(path.name + ".data")


def embed_external_weights(content: bytes, weights: bytes, name: str, max_bytes: int) -> bytes:
    """Return a plain generator with its external weights embedded; anything else is returned unchanged.

    Args:
        content: The model's bytes.
        weights: The content of its weights file.
        name: The name of that file, which is the only one that the model may refer to.
        max_bytes: The most that model and weights may have; one part of the file may be referred to many times.

    Raises:
        ContractError: If the model refers to another file, past the end of this one, or to too many bytes.
    """
    import onnx

    try:
        model = onnx.load_from_string(content)
    except Exception:
        return content
    external = [tensor for tensor in tensors(model) if tensor.data_location == tensor.EXTERNAL]
    if not external or not is_third_party(model):
        return content
    total = len(content)
    for tensor in external:
        fields = {entry.key: entry.value for entry in tensor.external_data}
        location = fields.get("location", "")
        if location != name:
            raise ContractError(f"its external weights are in {location[:60]!r}; only {name!r}, next to it, is read")
        try:
            start = int(fields.get("offset", "0"))
            length = int(fields.get("length", len(weights) - start))
        except ValueError:
            raise ContractError("the offset or length of its external weights is not a number") from None
        if start < 0 or length < 0 or start + length > len(weights):
            raise ContractError(f"{name!r} has {len(weights)} bytes; its external weights end past that")
        total += length
        if total > max_bytes:
            raise ContractError(f"with its weights larger than ATELIER_MAX_MODEL_BYTES ({max_bytes} bytes)")
        tensor.raw_data = weights[start : start + length]
        del tensor.external_data[:]
        tensor.data_location = tensor.DEFAULT
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except Exception:  # the format can hold two gigabytes
        raise ContractError("with its weights larger than an ONNX file can be") from None


def adapt(
    model: "onnx.ModelProto",
    content: bytes,
    name: str,
    created: datetime,
    known_shape: tuple[int, int, int] | None = None,
) -> "tuple[onnx.ModelProto, Metadata, int | None]":
    """Wrap a plain generator in the contract's input, output and metadata.

    Args:
        model: The generator.
        content: The file's bytes with its weights; their sha256 is the digest.
        name: The model's name: the file's without suffix.
        created: The file's modification time.
        known_shape: The images' [C, H, W] if the model was run before. Without it, it is run to check its images.

    Returns:
        The wrapped model, its metadata, and the batch size if the graph fixes it.

    Raises:
        ContractError: If the model is rejected, with the reason.
    """
    if not NAME.fullmatch(name):
        raise ContractError(
            f"plain ONNX models are named after their file; rename {name[:40]!r} using only A-Z a-z 0-9 . _ -"
        )
    if holds_external_weights(model):
        raise ContractError(
            f"its weights are in external files: put {name}.onnx.data next to it, or export with external_data=False"
        )
    props = {p.key: p.value for p in model.metadata_props}
    z_distribution = props.get("z_distribution", "normal")
    if z_distribution not in ("normal", "uniform"):
        raise ContractError(f"metadata z_distribution is {z_distribution[:40]!r}, not normal or uniform")
    try:
        dataset = props.get("dataset", "unknown")[:1000]
        producer = f"{model.producer_name} {model.producer_version}".strip()[:100]
        (dataset + producer).encode()
    except (UnicodeError, TypeError):
        raise ContractError("its metadata is not UTF-8") from None
    model = _upgrade_opset(model)
    source, z_dim, batch = _latents_input(model)
    target = _images_output(model)
    shape = known_shape or _run_shape(model, source, z_dim, batch, z_distribution)
    channels, height, width = shape
    if channels not in (1, 3, 4):
        raise ContractError(f"its images have {channels} channels; only 1, 3 and 4 are supported")
    if max(height, width) > MAX_SIDE:
        raise ContractError(f"its images are {width}x{height}; at most {MAX_SIDE} pixels per side are allowed")
    metadata = Metadata(
        name=name,
        architecture="unknown",
        z_dim=z_dim,
        z_distribution=cast(Literal["normal", "uniform"], z_distribution),
        height=height,
        width=width,
        channels=channels,
        dataset=dataset,
        class_names=(),
        images_seen=0,
        ema=False,
        config={"producer": producer},
        created=created.isoformat(),
        digest=hashlib.sha256(content).hexdigest(),
        evaluation={},
        foreign=True,
    )
    return _wrap(model, source, target, metadata, batch), metadata, batch


def _upgrade_opset(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return the model in an opset that has the operators of the final nodes."""
    import onnx

    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, 13)
    except Exception:
        raise ContractError(f"opset {opset} is too old; export with {OLDEST_OPSET} or later") from None


def _dims(value: "onnx.ValueInfoProto") -> list[int | None]:
    return [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim
    ]


def _shape_text(shape: "list[int | None]") -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def _require_float(value: "onnx.ValueInfoProto", what: str) -> None:
    from onnx import TensorProto

    kind = value.type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        type_name = TensorProto.DataType.Name(kind).lower()
        raise ContractError(
            f"not a generator file (it has no metadata), nor a plain generator: its {what} is {type_name}, not float"
        )


def _latents_input(model: "onnx.ModelProto") -> "tuple[onnx.ValueInfoProto, int, int | None]":
    """Return the input, z_dim, and the batch size if it is fixed."""
    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initialized]
    if len(inputs) != 1:
        names = ", ".join(repr(v.name[:40]) for v in inputs[:5]) or "none"
        raise ContractError(f"a plain generator has one input, its latents; this one has {names}")
    _require_float(inputs[0], "input")
    dims = _dims(inputs[0])
    if len(dims) not in (2, 4) or any(d not in (1, None) for d in dims[2:]):
        raise ContractError(f"its input is {_shape_text(dims)}; a generator takes latents [N, z] or [N, z, 1, 1]")
    batch, z_dim = dims[:2]
    if z_dim is None:
        raise ContractError(
            f"its input is {_shape_text(dims)}: the latents' width is not in the graph; make only N dynamic"
        )
    if z_dim > MAX_Z_DIM:
        raise ContractError(f"its latents have {z_dim} numbers; at most {MAX_Z_DIM} are allowed")
    if batch is not None and batch > MAX_BATCH:
        raise ContractError(f"its batch is fixed at {batch}; at most {MAX_BATCH} is allowed, or make it dynamic")
    return inputs[0], z_dim, batch


def _images_output(model: "onnx.ModelProto") -> "onnx.ValueInfoProto":
    if len(model.graph.output) != 1:
        raise ContractError(f"a plain generator has one output, its images; this one has {len(model.graph.output)}")
    value: onnx.ValueInfoProto = model.graph.output[0]
    _require_float(value, "output")
    if value.type.tensor_type.HasField("shape") and len(_dims(value)) != 4:
        raise ContractError(f"its output is {_shape_text(_dims(value))}; a generator gives images [N, C, H, W]")
    return value


def _run_shape(
    model: "onnx.ModelProto", source: "onnx.ValueInfoProto", z_dim: int, batch: int | None, z_distribution: str
) -> tuple[int, int, int]:
    """Run the model and return its images' [C, H, W]; check their range, and that they depend on their latent only."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    dtype = onnx.helper.tensor_dtype_to_np_dtype(source.type.tensor_type.elem_type)
    pixels = math.prod(d or 0 for d in _dims(model.graph.output[0])[1:])
    n = batch or (PROBE_ROWS if PROBE_ROWS * pixels <= LARGE_PROBE else 2)

    def run(latents: np.ndarray) -> np.ndarray:
        fed = latents.reshape(n, z_dim, *[1] * (len(source.type.tensor_type.shape.dim) - 2)).astype(dtype)
        images = session.run(None, {source.name: fed})[0]
        if images.ndim != 4 or len(images) != n:
            raise ContractError(f"{n} latents gave {list(images.shape)}; a generator gives images [{n}, C, H, W]")
        return np.asarray(images, np.float32)

    rng = np.random.default_rng(0)
    latents = rng.standard_normal((2, n, z_dim)) if z_distribution == "normal" else rng.uniform(-1, 1, (2, n, z_dim))
    images = run(latents[0])
    if not np.isfinite(images).all():
        raise ContractError("its images are not all finite numbers")
    low, high = float(images.min()), float(images.max())
    first, shape = images[0].copy(), images.shape[1:]
    del images  # they may be large
    if low < -1 - RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise ContractError(f"its values are in [{low:.3g}, {high:.3g}], not [-1, 1]: let it end in tanh")
    if low >= 0 and high > low:
        raise ContractError(f"its values are in [{low:.3g}, {high:.3g}], not [-1, 1]: let it end in 2x - 1")
    latents[1, 0] = latents[0, 0]
    if np.abs(run(latents[1])[0] - first).max() > BATCH_TOLERANCE:
        raise ContractError(
            "an image changes with its neighbors in the batch, or each time: export the generator in evaluation mode"
        )
    return cast(tuple[int, int, int], shape)


def _wrap(
    model: "onnx.ModelProto",
    source: "onnx.ValueInfoProto",
    target: "onnx.ValueInfoProto",
    metadata: Metadata,
    batch: int | None,
) -> "onnx.ModelProto":
    """Put the model between the contract's input and output; its own names get a prefix, so that none clash."""
    import onnx
    from onnx import TensorProto, helper

    prefix = "foreign/"
    graph = onnx.compose.add_prefix_graph(model.graph, prefix)
    z_rank = len(source.type.tensor_type.shape.dim)
    constants: list[Any] = []

    def constant(name: str, value: Any, dtype: Any) -> str:
        tensor = onnx.numpy_helper.from_array(np.array(value, dtype))
        constants.append(helper.make_node("Constant", [], [name], value=tensor))  # old IRs have no free initializers
        return name

    before = [
        helper.make_node("Cast", ["latents"], ["latents/cast"], to=source.type.tensor_type.elem_type),
        helper.make_node(
            "Reshape",
            ["latents/cast", constant("latents/shape", [0, metadata.z_dim, *[1] * (z_rank - 2)], np.int64)],
            [prefix + source.name],
        ),
    ]
    after = [
        helper.make_node("Cast", [prefix + target.name], ["images/float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["images/float", constant("images/one", 1.0, np.float32)], ["images/raised"]),
        helper.make_node("Mul", ["images/raised", constant("images/half", 127.5, np.float32)], ["images/scaled"]),
        helper.make_node("Round", ["images/scaled"], ["images/rounded"]),
        helper.make_node(
            "Clip",
            ["images/rounded", constant("images/low", 0.0, np.float32), constant("images/high", 255.0, np.float32)],
            ["images/clipped"],
        ),
        helper.make_node("Cast", ["images/clipped"], ["images/bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["images/bytes"], ["images"], perm=[0, 2, 3, 1]),
    ]
    nodes = [*constants, *before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [value for value in graph.input if value.name != prefix + source.name]
    del graph.input[:], graph.output[:]
    n = batch or "N"
    graph.input.append(helper.make_tensor_value_info("latents", TensorProto.FLOAT, [n, metadata.z_dim]))
    graph.input.extend(kept)
    graph.output.append(helper.make_tensor_value_info("images", TensorProto.UINT8, [n, *metadata.image_shape]))
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.CopyFrom(graph)
    return result
