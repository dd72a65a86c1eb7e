"""Plain generators whose weights lie beside them, as PyTorch's exporter writes them unless it is told otherwise."""

from pathlib import Path

from artifacts.generator_file import ContractError, tensors
from service.models import third_party_onnx


def weights_beside(path: Path) -> Path:
    """The one file whose weights are taken: `x.onnx.data` of `x.onnx`. What a model names otherwise is never opened."""
    return path.with_name(path.name + ".data")


def with_weights_inside(content: bytes, weights: bytes, name: str, max_bytes: int) -> bytes:
    """A plain generator that holds in itself what it refers to in `weights`, the content of the file `name`.

    Anything else is given back as it is. ContractError: it refers to another file, past the end of this one, or to
    more than `max_bytes` in all (one part of the file may be referred to many times).
    """
    import onnx

    try:
        model = onnx.load_from_string(content)
    except Exception:
        return content
    outside = [tensor for tensor in tensors(model) if tensor.data_location == tensor.EXTERNAL]
    if not outside or not third_party_onnx.is_foreign(model):
        return content
    total = len(content)
    for tensor in outside:
        told = {entry.key: entry.value for entry in tensor.external_data}
        location = told.get("location", "")
        if location != name:
            raise ContractError(f"its external weights lie in {location[:60]!r}; only {name!r}, beside it, is read")
        try:
            start = int(told.get("offset", "0"))
            length = int(told.get("length", len(weights) - start))
        except ValueError:
            raise ContractError("where its external weights begin or end is not a number") from None
        if start < 0 or length < 0 or start + length > len(weights):
            raise ContractError(f"{name!r} has {len(weights)} bytes; its external weights end past that")
        total += length
        if total > max_bytes:
            raise ContractError(f"with its weights larger than ATELIER_MAX_MODEL_BYTES ({max_bytes} bytes)")
        tensor.raw_data = weights[start : start + length]
        del tensor.external_data[:]
        tensor.data_location = tensor.DEFAULT
    try:
        return model.SerializeToString(deterministic=True)
    except Exception:  # two gigabytes are what the format can hold
        raise ContractError("with its weights larger than an ONNX file can be") from None
