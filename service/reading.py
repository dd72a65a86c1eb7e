"""From a file's bytes to what a session is made of: its own kind checked, others' brought under the contract."""

import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from service import foreign
from service.external_weights import weights_beside, with_weights_inside
from service.generator_file import ContractError, Metadata, check


class Unreadable(ContractError):
    """Nothing is known of the file's content; the next try may succeed."""


@dataclass(frozen=True)
class Prepared:
    """A file that was read and found sound, not yet run: `content` is what a session is made of."""

    metadata: Metadata
    content: bytes
    batch: int | None


def read(path: Path, max_bytes: int) -> bytes:
    """A file's bytes; a plain generator's with the weights in it that lie beside it, in `<file>.data`.

    Unreadable: out of reach. ContractError: no file (a pipe would never end), or, with its weights, too large.
    """
    content = _read(path, max_bytes)
    beside = weights_beside(path)
    if not beside.exists():
        return content
    return with_weights_inside(content, _read(beside, max_bytes), beside.name, max_bytes)


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ContractError("not a file")
        if found.st_size > max_bytes:
            raise ContractError(f"larger than ATELIER_MAX_MODEL_BYTES ({max_bytes} bytes)")
        with path.open("rb") as file:
            # no more than was looked at: memory is taken for as much as is asked for, and a file may grow
            return file.read(found.st_size)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None


def prepare(path: Path, content: bytes, probe: bool = True) -> Prepared:
    """Check a file's content, its own or that of others. probe: run others' to see what they give.

    ContractError: it is refused, and why.
    """
    import onnx

    try:
        model = onnx.load_from_string(content)
    except Exception:
        raise ContractError("not an ONNX file") from None
    if not model.HasField("graph"):
        raise ContractError("not an ONNX file")  # no bytes at all are a message without fields
    if not foreign.is_foreign(model):
        return Prepared(check(model), content, None)
    try:
        created = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    try:
        wrapped, metadata, batch = foreign.adopt(model, content, path.stem, created, probe)
        return Prepared(metadata, wrapped.SerializeToString(), batch)
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(f"ONNX Runtime does not run it: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
