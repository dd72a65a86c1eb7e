"""What a name on the command line refers to, by one rule for the images and for the reference."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluation.errors import EvaluationError
from evaluation.sources.arrays import IMAGE_KEYS
from evaluation.sources.checkpoint import is_run
from imagesets import list_sources

Kind = Literal["service", "generator", "checkpoint", "arrays", "statistics", "images"]
FOLDER = "folder:"
_KINDS: dict[str, Kind] = {".onnx": "generator", ".pt": "checkpoint", ".npy": "arrays", ".npz": "arrays"}
_MAKES = {"service": "a service", "generator": "an ONNX file of a network", "checkpoint": "a checkpoint"}


@dataclass(frozen=True)
class Location:
    """A source of images, or statistics of images.

    `path` is that of a file or folder. `image_set` is the name of images for `imagesets`, without the `split`.
    """

    kind: Kind
    text: str
    path: Path | None = None
    image_set: str = ""
    split: str | None = None

    @property
    def name(self) -> str:
        """Return the name for `imagesets`, with the split where one was given."""
        return self.image_set if self.split is None else f"{self.image_set}@{self.split}"

    def of_real_images(self) -> Location:
        """Return this location; raise EvaluationError for a generator, which real images cannot come from."""
        if self.kind in _MAKES:
            raise EvaluationError(
                f"{self.text} is {_MAKES[self.kind]}, and a reference is of real images: name an image set such as "
                "mnist@test, a folder, a .zip or an array file of images, or a file of `evaluation reference`"
            )
        return self


def resolve(text: str) -> Location:
    """Return what a name refers to.

    Args:
        text: `http://…` of a service; a `.onnx`, `.pt`, `.npy`, `.npz` or `.zip` file; a run folder or a folder of
            images; an image set such as `mnist`; `folder:PATH`. Image sets, folders and zips may have `@SPLIT` at the
            end. A name of `list_sources()` is that image set even where a folder is called so too.

    Raises:
        EvaluationError: If there is nothing of that name.
    """
    if not text.strip():
        raise EvaluationError("the name of the images is empty; is a variable not set?")
    scheme, colon, rest = text.partition("://")
    if colon and scheme.lower() in ("http", "https"):
        return Location("service", f"{scheme.lower()}://{rest}")
    if text.startswith(FOLDER):
        return _images(text.removeprefix(FOLDER), text)
    source, at, split = text.partition("@")
    if source in {info.name for info in list_sources() if not info.name.startswith(FOLDER)}:
        return Location("images", text, None, source, split if at else None)
    path = expanded(text)
    if path.is_dir():
        return Location("checkpoint", text, path) if is_run(path) else _images(text, text)
    kind = _KINDS.get(path.suffix.lower())
    if path.is_file() and kind in (None, "arrays") and _holds_statistics(path):
        return Location("statistics", text, path)
    if kind is not None:
        return Location(kind, text, path)
    before = expanded(text.rpartition("@")[0])
    if path.suffix.lower() == ".zip" or ("@" in text and before.suffix.lower() == ".zip"):
        return _images(text, text)
    if text.rpartition("@")[0] and before.is_dir() and not path.exists():
        return _images(text, text)
    if path.exists():
        raise EvaluationError(
            f"{text} is no source of images: name a URL, a .onnx, .pt, .npy, .npz or .zip file, or a folder"
        )
    if "/" in text:
        raise EvaluationError(f"there is no file or folder at {path}")
    return Location("images", text, None, source, split if at else None)  # imagesets names those that there are


def expanded(text: str) -> Path:
    """Return a path with `~` replaced by the home folder. EvaluationError: there is none."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise EvaluationError(f"{text}: there is no such home folder ({error}); write the path out") from error


def _images(text: str, told: str) -> Location:
    """A folder or zip of images, with or without a split."""
    whole, (before, at, split) = expanded(text), text.rpartition("@")
    if not text:
        raise EvaluationError(f"{told} names no folder")
    if not at or whole.exists():  # a path may hold an @ of its own
        return Location("images", told, whole, f"{FOLDER}{text}")
    return Location("images", told, expanded(before), f"{FOLDER}{before}", split)


def holds_images(path: Path) -> bool:
    """Return whether an array file has images; a damaged npz has nothing."""
    return path.suffix.lower() == ".npy" or any(key in _arrays(path) for key in IMAGE_KEYS)


def _holds_statistics(path: Path) -> bool:
    return {"mu", "sigma"} <= _arrays(path)


def _arrays(path: Path) -> set[str]:
    """The names of the arrays in an npz."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception:  # of half a dozen kinds; whoever reads the file reports why it cannot be read
        return set()
