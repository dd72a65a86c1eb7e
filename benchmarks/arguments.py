"""What a command line may ask of a benchmark: a mistake is a line and exit code 2 before anything is measured."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def at_least_one(text: str) -> int:
    """Of rounds, seeds, requests: there is no median of none."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number, 1 at least, and not {text}")
    return number


def folder_to_write(text: str) -> Path:
    """A folder, made where there is none: whether one may write to it is known when something was written."""
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or error
        raise argparse.ArgumentTypeError(f"name a folder one may write to, and not {text} ({why})") from error
    return folder


def file_to_write(text: str) -> Path:
    """A file in such a folder."""
    path = Path(text)
    folder_to_write(str(path.parent))
    if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
        raise argparse.ArgumentTypeError(f"name a file one may write to, and not {text}")
    return path


@contextmanager
def mistakes(parser: argparse.ArgumentParser) -> Iterator[None]:
    """What the trainer and the image sets say of a user's mistake, as the parser says its own."""
    from imagesets import ImageSetError
    from trainer.errors import TrainerError

    try:
        yield
    except (TrainerError, ImageSetError) as error:
        parser.error(str(error))
