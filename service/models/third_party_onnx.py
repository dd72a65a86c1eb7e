"""Plain ONNX generators, as others export them, brought under the generator file's contract when they are read.

Taken: one input of floats, [N, z] or [N, z, 1, 1], N dynamic or fixed, and one output of floats [N, C, H, W] in
[-1, 1]. Given: `latents` float32 [N, z] → `images` uint8 [N, H, W, C], by the same nodes that our export ends in.
"""

import hashlib
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from artifacts.generator_file import NAME, ContractError, Metadata, holds_external_weights

if TYPE_CHECKING:
    import onnx

OURS = frozenset({"format_version", "digest", "z_dim"})  # a file with any of these claims to be a generator file
OLDEST_OPSET = 11  # the first with Round
MAX_Z_DIM, MAX_SIDE, MAX_BATCH = 65_536, 4_096, 4_096
PROBES, LARGE_PROBE = 4, 2**25  # rows that are run; floats of more than which only two are
SLACK = 1e-3  # by which a float may leave [-1, 1]
NEIGHBOURS = 1 / 127.5  # how far an image may move with its batch: one level


def is_foreign(model: "onnx.ModelProto") -> bool:
    """Whether a model says nothing of the contract."""
    return not OURS & {p.key for p in model.metadata_props}


def adopt(
    model: "onnx.ModelProto",
    content: bytes,
    name: str,
    created: datetime,
    known_shape: tuple[int, int, int] | None = None,
) -> "tuple[onnx.ModelProto, Metadata, int | None]":
    """(the model with the contract's names and tail, metadata from graph and file name, its fixed batch or None).

    content: the file's bytes, its weights among them, of which the digest is the sha256; name: the model's, the file's
    without suffix; created: the file's time; known_shape: the images' [C, H, W] where it was run before; else it is
    run, to see that it does as it should. ContractError: it is refused, and why.
    """
    if not NAME.fullmatch(name):
        raise ContractError(f"a generator of others is named after its file: rename {name[:40]!r} to [A-Za-z0-9._-]")
    if holds_external_weights(model):
        raise ContractError(
            f"weights lie in external files: put {name}.onnx.data beside it, or export with external_data=False"
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
        raise ContractError("its metadata are not UTF-8") from None
    model = _recent(model)
    source, z_dim, batch = _input(model)
    target, _ = _output(model)
    shape = known_shape or _probed(model, source, z_dim, batch, z_distribution)
    channels, height, width = shape
    if channels not in (1, 3):
        raise ContractError(f"its images have {channels} channels; 1 and 3 can be shown")
    if max(height, width) > MAX_SIDE:
        raise ContractError(f"its images are {width}x{height}; {MAX_SIDE} pixels a side are allowed")
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
    return _wrapped(model, source, target, metadata, batch), metadata, batch


def _recent(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The model in an opset that has the tail's operators."""
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


def _told(shape: "list[int | None]") -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def _floats(value: "onnx.ValueInfoProto", what: str) -> None:
    from onnx import TensorProto

    kind = value.type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        told = TensorProto.DataType.Name(kind).lower()
        raise ContractError(
            f"not a generator file (it has no metadata), nor a plain generator: its {what} is {told}, not float"
        )


def _input(model: "onnx.ModelProto") -> "tuple[onnx.ValueInfoProto, int, int | None]":
    """The input, the latents' width, and the batch if it is fixed."""
    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initialized]
    if len(inputs) != 1:
        names = ", ".join(repr(v.name[:40]) for v in inputs[:5]) or "none"
        raise ContractError(f"a plain generator has one input, its latents; this one's are {names}")
    _floats(inputs[0], "input")
    dims = _dims(inputs[0])
    if len(dims) not in (2, 4) or any(d not in (1, None) for d in dims[2:]):
        raise ContractError(f"its input is {_told(dims)}; a generator takes latents [N, z] or [N, z, 1, 1]")
    batch, z_dim = dims[:2]
    if z_dim is None:
        raise ContractError(f"its input is {_told(dims)}: the latents' width is not in the graph; make only N dynamic")
    if z_dim > MAX_Z_DIM:
        raise ContractError(f"its latents have {z_dim} numbers; {MAX_Z_DIM} are allowed")
    if batch is not None and batch > MAX_BATCH:
        raise ContractError(f"its batch is fixed at {batch}; {MAX_BATCH} are allowed, or make it dynamic")
    return inputs[0], z_dim, batch


def _output(model: "onnx.ModelProto") -> "tuple[onnx.ValueInfoProto, tuple[int | None, ...]]":
    """The output, and [C, H, W] as far as the graph tells."""
    if len(model.graph.output) != 1:
        raise ContractError(f"a plain generator has one output, its images; this one has {len(model.graph.output)}")
    (value,) = model.graph.output
    _floats(value, "output")
    dims = _dims(value)
    if not value.type.tensor_type.HasField("shape"):
        return value, (None, None, None)
    if len(dims) != 4:
        raise ContractError(f"its output is {_told(dims)}; a generator gives images [N, C, H, W]")
    return value, tuple(dims[1:])


def _probed(
    model: "onnx.ModelProto", source: "onnx.ValueInfoProto", z_dim: int, batch: int | None, z_distribution: str
) -> tuple[int, int, int]:
    """[C, H, W] of what it really gives. ContractError: not images in [-1, 1], or not the latent's alone."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    dtype = onnx.helper.tensor_dtype_to_np_dtype(source.type.tensor_type.elem_type)
    pixels = math.prod(d or 0 for d in _dims(model.graph.output[0])[1:])
    n = batch or (PROBES if PROBES * pixels <= LARGE_PROBE else 2)

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
    if low < -1 - SLACK or high > 1 + SLACK:
        raise ContractError(f"its values lie in [{low:.3g}, {high:.3g}], not [-1, 1]: let it end in tanh")
    if low >= 0 and high > low:
        raise ContractError(f"its values lie in [{low:.3g}, {high:.3g}], not [-1, 1]: let it end in 2x - 1")
    latents[1, 0] = latents[0, 0]
    if np.abs(run(latents[1])[0] - first).max() > NEIGHBOURS:
        raise ContractError(
            "an image changes with its neighbours in the batch, or each time: export the generator in evaluation mode"
        )
    return cast(tuple[int, int, int], shape)


def _wrapped(
    model: "onnx.ModelProto",
    source: "onnx.ValueInfoProto",
    target: "onnx.ValueInfoProto",
    metadata: Metadata,
    batch: int | None,
) -> "onnx.ModelProto":
    """The model between the contract's names; its own get a prefix, so that none can clash."""
    import onnx
    from onnx import TensorProto, helper

    prefix = "foreign/"
    graph = onnx.compose.add_prefix_graph(model.graph, prefix)
    z_rank = len(source.type.tensor_type.shape.dim)
    constants: list[Any] = []

    def constant(name: str, value: Any, dtype: Any) -> str:
        tensor = onnx.numpy_helper.from_array(np.array(value, dtype))
        constants.append(helper.make_node("Constant", [], [name], value=tensor))  # old IRs know no free initializers
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
