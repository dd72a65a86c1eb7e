"""What a folder of generator files looks like from outside: cheap enough to look several times a second."""

import os
from pathlib import Path

from service.models.external_weights import weights_beside

Signature = tuple[int, ...]
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".safetensors", ".pkl", ".h5", ".keras", ".pb", ".tflite", ".ort", ".onnx.gz")


def signature(path: Path) -> Signature | None:
    """What changes whenever the file behind a path does, links followed, or the weights that lie beside it.

    None: there is none, or it is out of reach.
    """
    told = _told(path)
    return None if told is None else told + (_told(weights_beside(path)) or ())


def size(found: Signature | None) -> int:
    """Bytes of a file with this signature, those beside it included."""
    return sum((found or ())[2::5])


def _told(path: Path) -> Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # ctime: a copy that keeps size and time (cp -p, rsync) still changes it
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def generator_files(folder: Path) -> list[Path]:
    """The folder's *.onnx (in any case) by name, but hidden ones, which are unfinished copies. OSError: unreadable."""
    return [folder / name for name in _names(folder) if name.lower().endswith(".onnx") and not name.startswith(".")]


def look_alikes(folder: Path) -> dict[str, str]:
    """The folder's files that may be meant as models but are not read, by name, and why. OSError: unreadable."""
    names = _names(folder)
    models = {name for name in names if name.lower().endswith(".onnx")}
    return {
        name: why
        for name in names
        if name not in models and not name.startswith(".") and (why := _why_left_out(name, models))
    }


def shown_name(path: Path) -> str:
    """A file's name as answers, logs and metrics can carry it: what is not UTF-8 or not printable is escaped."""
    name = os.fsencode(path.name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _why_left_out(name: str, models: set[str]) -> str | None:
    lower = name.lower()
    if lower.endswith((".part", ".partial", ".tmp", ".crdownload", ".filepart", ".download")):
        return None  # a copy that is being made
    if lower.endswith(".data") and name[: -len(".data")] in models:
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
