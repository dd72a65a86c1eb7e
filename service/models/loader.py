"""From a file's bytes to what a session is made of: its own kind checked, others' brought under the contract."""

import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from artifacts.files import LFS_HINT, is_lfs_pointer
from artifacts.generator_file import ContractError, Metadata, check
from artifacts.onnx_files import onnx_reason
from service.models import third_party_onnx
from service.models.external_weights import weights_beside, with_weights_inside

NOT_UTF8 = "its names or metadata are not UTF-8: the file is damaged, or was written by another tool"


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
    weights = _read(beside, max_bytes)
    if is_lfs_pointer(weights):
        raise ContractError(f"{beside.name!r}, with its weights, is {LFS_HINT}")
    return with_weights_inside(content, weights, beside.name, max_bytes)


def check_readable(path: Path, max_bytes: int) -> None:
    """Raise what `read` would raise for a file, and for the weights next to it, without reading them."""
    for each in (path, weights_beside(path)):
        if each == path or each.exists():
            _read(each, max_bytes, first=0)


def _read(path: Path, max_bytes: int, first: int | None = None) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            beside = path.name.lower().endswith(".data")
            raise ContractError(f"{path.name!r}, with its weights, is not a file" if beside else "not a file")
        if found.st_size > max_bytes:
            raise ContractError(f"larger than ATELIER_MAX_MODEL_BYTES ({max_bytes} bytes)")
        with path.open("rb") as file:
            # no more than was looked at: memory is taken for as much as is asked for, and a file may grow
            return file.read(found.st_size if first is None else first)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None


def prepare(path: Path, content: bytes, shape: tuple[int, int, int] | None = None) -> Prepared:
    """Check a file's content and bring it under the contract.

    Args:
        path: The file, whose name and time a plain generator takes.
        content: Its bytes.
        shape: The images' [C, H, W], if the content was checked before; a plain generator is run to find it otherwise.

    Returns:
        The metadata and what a session is made of.

    Raises:
        ContractError: If it is refused; the message is the reason.
    """
    import onnx

    if is_lfs_pointer(content):
        raise ContractError(LFS_HINT)
    try:
        model = onnx.load_from_string(content)
    except Exception:
        raise ContractError("not an ONNX file") from None
    if not model.HasField("graph"):
        raise ContractError("not an ONNX file")  # no bytes at all are a message without fields
    try:
        if not third_party_onnx.is_foreign(model):
            return Prepared(check(model), content, None)
    except (UnicodeError, TypeError):  # such fields are read as bytes
        raise ContractError(NOT_UTF8) from None
    try:
        created = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    try:
        wrapped, metadata, batch = third_party_onnx.adopt(model, content, path.stem, created, shape)
        return Prepared(metadata, wrapped.SerializeToString(), batch)
    except (ContractError, MemoryError):
        raise
    except UnicodeError:
        raise ContractError(NOT_UTF8) from None
    except Exception as error:
        if isinstance(error, TypeError) and "bytes" in str(error):
            raise ContractError(NOT_UTF8) from None
        raise ContractError(f"ONNX Runtime does not run it: {onnx_reason(error)}") from None
