"""The name of a run, which is also the name of its generator file, its report, its model in the service and its URL."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from imagesets import ARCHIVES, union_parts
from trainer.errors import TrainerError

NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,63}"
FOLDER = "folder:"
# Folders whose name says which part of a set they hold, not what it shows: the folder above them is named too.
PARTS = frozenset({"all", "data", "images", "img", "imgs", "jpg", "png", "test", "train", "training", "val", "valid"})


def checked_name(name: str) -> str:
    """Return the name if a model can be served under it.

    Raises:
        TrainerError: If the name has other characters or is too long. The message has a name that is valid.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        close = slug(name)
        hint = f"; try {close}" if close else ""
        raise TrainerError(
            f"a model's name has the characters a-z, 0-9, '.', '_' and '-', at most 64, and begins with a letter or a "
            f"digit, unlike {name!r}{hint}"
        )
    return name


def slug(text: str) -> str:
    """Return a valid name made of a text, without accents, or "" when no character of the text can be kept."""
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9._-]+", "-", plain).lstrip("-._")[:64].rstrip("-._")


def name_of_source(source: str) -> str | None:
    """Return the default name of a run on a user's images, `folder:PATH` or several joined by `+`.

    Args:
        source: A source as `data.source` has it.

    Returns:
        The name, or None for a source that is not a folder: then the preset's name is the default.
    """
    if len(parts := union_parts(source)) > 1:
        return slug("-".join(name_of_source(part) or part.partition("@")[0] for part in parts)) or "images"
    if not source.startswith(FOLDER):
        return None
    text = source.removeprefix(FOLDER)
    before, at, _ = text.rpartition("@")
    if at and not Path(text).expanduser().exists():  # a path may hold an @ itself
        text = before
    path = Path(text).expanduser()
    path = path if path.name not in ("", "..") else path.resolve()
    words = path.stem if path.suffix.lower() in (*ARCHIVES, ".npz", ".npy") else path.name
    if words.lower() in PARTS and (above := path.absolute().parent.name):
        words = f"{above}-{words}"
    return slug(words) or "images"


def name_of_file(path: Path) -> str:
    """Return the name of the model in a file: its stem, in the characters that a name may have."""
    return slug(path.stem) or "model"


def name_of_output(output: Path) -> str | None:
    """Return the name that an output path gives to the model in it; None where the path is a folder."""
    return name_of_file(output) if is_onnx_path(output) else None


def is_onnx_path(output: Path) -> bool:
    """Return whether an output path names a generator file, not a folder to put one in."""
    return output.suffix.lower() == ".onnx"


def redact_path(source: str) -> str:
    """Return a source without the folders above it: folder:/home/me/cats → folder:cats."""
    if len(parts := union_parts(source)) > 1:
        return "+".join(map(redact_path, parts))
    kind, colon, path = source.partition(":")
    return f"{kind}{colon}{Path(path).name}" if colon else source
