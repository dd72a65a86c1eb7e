"""Model files: which a folder holds, whether they changed, their bytes, and whether these are a usable generator."""

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from artifacts.files import LFS_HINT, is_lfs_pointer
from artifacts.generator_file import ContractError, Metadata, check
from artifacts.onnx_metadata import onnx_error_message
from service.models.third_party_onnx import adapt, embed_external_weights, is_third_party, weights_path

NOT_UTF8 = "its names or metadata are not UTF-8: the file is damaged, or was written by another tool"
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".safetensors", ".pkl", ".h5", ".keras", ".pb", ".tflite", ".ort", ".onnx.gz")
PARTIAL_COPIES = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".download")

FileSignature = tuple[int, ...]


class UnreadableFileError(ContractError):
    """The content of the file is unknown; the next attempt may succeed."""


@dataclass(frozen=True)
class ValidatedModel:
    """A valid generator that has not run yet.

    Attributes:
        metadata: What the file says about itself.
        content: ONNX bytes from which a session is made.
        batch: The only batch size that the graph accepts; None if it accepts any.
    """

    metadata: Metadata
    content: bytes
    batch: int | None


def file_signature(path: Path) -> FileSignature | None:
    """Return numbers that change whenever the file changes, or its external weights; links are followed.

    Returns:
        The signature, or None if the file is missing or out of reach.
    """
    found = _stat_numbers(path)
    return None if found is None else found + (_stat_numbers(weights_path(path)) or ())


def signature_bytes(signature: FileSignature | None) -> int:
    """Return the bytes of a file with this signature, its external weights included."""
    return sum((signature or ())[2::5])


def _stat_numbers(path: Path) -> FileSignature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # ctime: a copy that keeps size and time (cp -p, rsync) still changes it
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def list_generator_files(folder: Path) -> list[Path]:
    """Return the folder's *.onnx files (in any case) by name, without hidden ones, which are unfinished copies.

    Raises:
        OSError: If the folder exists and cannot be read.
    """
    return [folder / name for name in _names(folder) if name.lower().endswith(".onnx") and not name.startswith(".")]


def list_ignored_files(folder: Path) -> dict[str, str]:
    """Return the files that look like models but are not read, with the reason, by name.

    Raises:
        OSError: If the folder exists and cannot be read.
    """
    names = _names(folder)
    models = {name for name in names if name.lower().endswith(".onnx")}
    candidates = [name for name in names if name not in models and not name.startswith(".")]
    return {name: reason for name in candidates if (reason := _ignore_reason(name, models))}


def display_name(path: Path) -> str:
    """Return the file name with whatever is not UTF-8 or not printable escaped, for responses, logs and metrics."""
    name = os.fsencode(path.name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _ignore_reason(name: str, models: set[str]) -> str | None:
    lower = name.lower()
    if lower.endswith(PARTIAL_COPIES) or (lower.endswith(".data") and name[: -len(".data")] in models):
        return None
    if lower.strip(" .").endswith(".onnx"):
        return "its name has to end in .onnx, with nothing after it"
    if ".onnx" in lower:
        return "its name does not end in .onnx"
    if lower.endswith(CHECKPOINTS):
        return "it is not an ONNX file; export it (`trainer export`, `torch.onnx.export`)"
    return None


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_model_bytes(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a model file; a plain generator's external weights (`<file>.data`) are embedded.

    Raises:
        UnreadableFileError: If the file is out of reach.
        ContractError: If it is not a regular file or, with its weights, too large.
    """
    content = _read(path, max_bytes)
    sidecar = weights_path(path)
    if not sidecar.exists():
        return content
    weights = _read(sidecar, max_bytes)
    if is_lfs_pointer(weights):
        raise ContractError(f"{sidecar.name!r}, with its weights, is {LFS_HINT}")
    return embed_external_weights(content, weights, sidecar.name, max_bytes)


def check_readable(path: Path, max_bytes: int) -> None:
    """Raise what `read_model_bytes` would raise for a file and its weights, without reading their content."""
    for each in (path, weights_path(path)):
        if each == path or each.exists():
            _read(each, max_bytes, first=0)


def _read(path: Path, max_bytes: int, first: int | None = None) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would never end
            is_weights = path.name.lower().endswith(".data")
            raise ContractError(f"{path.name!r}, with its weights, is not a file" if is_weights else "not a file")
        if found.st_size > max_bytes:
            raise ContractError(f"larger than ATELIER_MAX_MODEL_BYTES ({max_bytes} bytes)")
        with path.open("rb") as file:
            # at most the size that was checked, because the file may grow
            return file.read(found.st_size if first is None else first)
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror}") from None


def validate_model(path: Path, content: bytes, shape: tuple[int, int, int] | None = None) -> ValidatedModel:
    """Check a file's content, and adapt a plain generator to the contract of generator files.

    Args:
        path: The file. A plain generator takes its name and creation time from it.
        content: Its bytes, from `read_model_bytes`.
        shape: The images' [C, H, W] if the content was checked before. Without it a plain generator is run once.

    Returns:
        The metadata, and the bytes from which a session is made.

    Raises:
        ContractError: If the file is rejected; the message is the reason.
    """
    import onnx

    if is_lfs_pointer(content):
        raise ContractError(LFS_HINT)
    try:
        model = onnx.load_from_string(content)
    except Exception:
        raise ContractError("not an ONNX file") from None
    if not model.HasField("graph"):
        raise ContractError("not an ONNX file")  # an empty file is a message without fields
    try:
        if not is_third_party(model):
            return ValidatedModel(check(model), content, None)
    except (UnicodeError, TypeError):  # such fields are read as bytes
        raise ContractError(NOT_UTF8) from None
    try:
        created = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror}") from None
    try:
        adapted, metadata, batch = adapt(model, content, path.stem, created, shape)
        return ValidatedModel(metadata, adapted.SerializeToString(), batch)
    except (ContractError, MemoryError):
        raise
    except UnicodeError:
        raise ContractError(NOT_UTF8) from None
    except Exception as error:
        if isinstance(error, TypeError) and "bytes" in str(error):
            raise ContractError(NOT_UTF8) from None
        raise ContractError(f"ONNX Runtime does not run it: {onnx_error_message(error)}") from None
