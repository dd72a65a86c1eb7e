"""Output files: checked to be writable before the work, written atomically, with one-line errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from artifacts.files import atomic_write
from evaluation.errors import EvaluationError


@contextlib.contextmanager
def atomic_output(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that takes `path`'s place only if the block succeeds. Folders are made.

    A file that is there keeps its mode, and a link to one stays a link. EvaluationError: it cannot be written, or what
    is there is no file but a device or a pipe, which a rename would take the place of.
    """
    check_writable(path)
    with reraise_write_errors(path), atomic_write(path) as handle:
        yield handle


def check_writable(path: Path) -> None:
    """Raise EvaluationError now, rather than after minutes of work, if `path` cannot be written."""
    with reraise_write_errors(path):
        if path.is_dir():
            raise EvaluationError(f"cannot write {path}: it is a folder")
        if path.exists() and not path.is_file():
            raise EvaluationError(f"cannot write {path}: it is a device, a pipe or a socket, not a file")
        # lexists: a link that leads nowhere is no place to make a folder at
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise EvaluationError(f"cannot write {path}: {above} is not a writable folder")


@contextlib.contextmanager
def reraise_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError (a full disk, a name that is too long, a folder that takes no files) into EvaluationError."""
    try:
        yield
    except OSError as error:
        raise EvaluationError(f"cannot write {shorten_path(path)}: {error.strerror or error}") from error


def shorten_path(path: Path | str) -> str:
    """For a message: a path of thousands of characters is no help there."""
    text = str(path)
    return text if len(text) <= 200 else f"{text[:100]}…{text[-60:]}"
