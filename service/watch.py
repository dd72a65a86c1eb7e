"""What a folder of generator files looks like from outside: cheap enough to look several times a second."""

import os
from pathlib import Path

from service.external_weights import weights_beside

Signature = tuple[int, ...]


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
    """The folder's *.onnx by name, but hidden ones, which are others' unfinished copies. OSError: it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(".onnx") and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in sorted(names)]
