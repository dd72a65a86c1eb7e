"""Files that are whole or absent: written under a temporary name, fsynced, renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from evaluation.errors import EvaluationError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that takes `path`'s place only if the block succeeds. Folders are made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed below, before the rename
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False
        )
    except OSError as error:
        raise EvaluationError(f"cannot write {path}: {error.strerror or error}") from error
    temporary = Path(handle.name)
    try:
        with handle:
            yield handle  # type: ignore[misc]
            handle.flush()
            os.fsync(handle.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise EvaluationError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise EvaluationError now, rather than after minutes of work, if `path` cannot be written."""
    if path.is_dir():
        raise EvaluationError(f"cannot write {path}: it is a folder")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise EvaluationError(f"cannot write {path}: {above} is not a folder one may write to")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
