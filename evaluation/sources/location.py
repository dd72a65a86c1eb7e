"""Resolve what a user names as images or as a reference, by one rule for both sides, and open it as a source."""

from __future__ import annotations

import difflib
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from artifacts.images.resolution import Resolution
from artifacts.plugins import is_plugin
from evaluation.errors import EvaluationError
from evaluation.output_files import shorten_path
from evaluation.sources.arrays import IMAGE_KEYS, array_source
from evaluation.sources.base import ImageSource, SamplingOptions
from evaluation.sources.checkpoint import CheckpointSource, is_run
from evaluation.sources.function import FunctionSource
from evaluation.sources.generator import GeneratorSource
from evaluation.sources.image_sets import ImageSetSource, checked_image_set
from evaluation.sources.service import PATIENCE_S, ServiceSource
from imagesets import ARCHIVES, ImageSet, ImageSetError, list_sources, load_image_set, split_of_union, union_parts

# What a caller from Python may give: text or a path as on the command line, images, or a function that makes them.
ImagesLike = str | Path | np.ndarray | Sequence[np.ndarray] | ImageSet | Callable[[Any], Any]
Kind = Literal["service", "generator", "checkpoint", "function", "arrays", "statistics", "images"]
FOLDER = "folder:"
_KINDS: dict[str, Kind] = {".onnx": "generator", ".pt": "checkpoint", ".npy": "arrays", ".npz": "arrays"}
_GENERATORS = {
    "service": "a service",
    "generator": "an ONNX file of a network",
    "checkpoint": "a checkpoint",
    "function": "a function",
}


@dataclass(frozen=True)
class Location:
    """A source of images, or statistics of images, as the user named it in `text`.

    `path` is the file or folder, `image_set` the name for `imagesets` without the split, and `value` the array, image
    set or function of a caller from Python.
    """

    kind: Kind
    text: str
    path: Path | None = None
    image_set: str = ""
    split: str | None = None
    value: Any = None

    @property
    def name(self) -> str:
        """The name for `imagesets`, with the split if one was named."""
        return self.image_set if self.split is None else f"{self.image_set}@{self.split}"

    @property
    def is_statistics(self) -> bool:
        """Whether it is a file of statistics; an absent or damaged file is, whose reader reports what is wrong."""
        if self.kind == "arrays" and self.path is not None:
            return not self.path.is_file() or not _holds_images(self.path)
        return self.kind == "statistics"

    def require_real_images(self) -> Location:
        """Return this location; raise EvaluationError for a generator, which is not a source of real images."""
        if self.kind in _GENERATORS:
            raise EvaluationError(
                f"{self.text} is {_GENERATORS[self.kind]}, and a reference is of real images: name an image set such "
                "as mnist@test, a folder, a .zip or an array file of images, or a file of `evaluation reference`"
            )
        return self


def resolve(images: ImagesLike) -> Location:
    """Return what a name, array, image set or function refers to.

    Args:
        images: `http://…` of a service; a `.onnx`, `.pt`, `.npy`, `.npz`, `.zip`, `.tar` or `.parquet` file; a run
            folder or a folder of images; an image set such as `mnist`; `folder:PATH`, or several as
            `folder:A+folder:B`. Image sets, folders and archives may end in `@SPLIT`. A name of `list_sources()` is
            that image set even if a folder has the same name. From Python also a uint8 array [N, H, W, C], a list of
            equally sized arrays, an `ImageSet`, or a function that returns images.

            An array file is used as it is; `folder:FILE.npz` reads it as an image set, which is resized.

    Raises:
        EvaluationError: If there is nothing of that name, or it is something else.
    """
    if isinstance(images, np.ndarray):
        return Location("arrays", "the array", value=images)
    if isinstance(images, ImageSet):
        return Location("images", f"the image set {images.name}", value=images)
    if isinstance(images, list | tuple) and all(isinstance(image, np.ndarray) for image in images):
        if len({(image.shape, image.dtype) for image in images}) != 1:
            raise EvaluationError("a list of images must have arrays of one size and type, at least one")
        return Location("arrays", "the list", value=np.stack(images))
    if isinstance(images, str | os.PathLike):
        text = os.fspath(images)
        try:
            return _resolve_text(os.fsdecode(text))
        except OSError as error:  # a name that is too long, a folder that may not be searched
            raise EvaluationError(f"cannot read {shorten_path(os.fsdecode(text))}: {error.strerror}") from error
    if callable(images):
        return Location("function", "the function", value=images)
    raise EvaluationError(
        f"images are given as a path, URL or name of a dataset, a uint8 array [N, H, W, C], a list of equally sized "
        f"arrays, an imagesets.ImageSet, or a function that returns images, not as {type(images).__name__}"
    )


def _resolve_text(text: str) -> Location:
    """Return what a name refers to; see `resolve`."""
    if not text.strip():
        raise EvaluationError("the name of the images is empty; is a variable not set?")
    scheme, colon, rest = text.partition("://")
    if colon and scheme.lower() in ("http", "https"):
        return Location("service", f"{scheme.lower()}://{rest}")
    if len(union_parts(text)) > 1:
        try:
            return Location("images", text, None, *split_of_union(text))
        except ImageSetError as error:
            raise EvaluationError(str(error)) from error
    if text.startswith(FOLDER):
        return _folder(text.removeprefix(FOLDER), text)
    source, at, split = text.partition("@")
    if source in {info.name for info in list_sources() if not info.name.startswith(FOLDER)}:
        return Location("images", text, None, source, split if at else None)
    path = expand(text)
    if path.is_dir():
        return Location("checkpoint", text, path) if is_run(path) else _folder(text, text)
    kind = _KINDS.get(path.suffix.lower())
    if path.is_file() and kind in (None, "arrays") and {"mu", "sigma"} <= _array_names(path):
        return Location("statistics", text, path)
    if kind is not None:
        return Location(kind, text, path)
    before = expand(text.rpartition("@")[0])
    if path.suffix.lower() in ARCHIVES or ("@" in text and before.suffix.lower() in {*ARCHIVES, ".npz"}):
        return _folder(text, text)
    if text.rpartition("@")[0] and before.is_dir() and not path.exists():
        return _folder(text, text)
    if path.exists():
        raise EvaluationError(
            f"{text} is not a source of images: name a URL, a .onnx, .pt, .npy, .npz, .zip, .tar or .parquet file, "
            "or a folder"
        )
    if "/" in text:
        raise EvaluationError(f"there is no file or folder at {path}")
    if is_plugin(source):
        return Location("images", text, None, source, split if at else None)
    datasets = [info.name for info in list_sources() if info.resolution is not None]
    close = difflib.get_close_matches(source, datasets, 1)
    hint = f"did you mean {close[0]}?" if close else f"the datasets are {', '.join(datasets)}"
    raise EvaluationError(f"there is no file, folder or dataset {text!r}; {hint}")


def open_source(
    images: ImagesLike,
    *,
    model: str | None = None,
    sampling: SamplingOptions = SamplingOptions(),
    patience_s: float = PATIENCE_S,
    resolution: Resolution | None = None,
    channels: int | None = None,
    data_root: Path | str = "data",
    cache_root: Path | str | None = None,
) -> ImageSource:
    """Open the source that `images` names, as `resolve` reads it.

    Args:
        images: A service, generator file, checkpoint, array file, folder or zip of images, image set, uint8 array
            [N, H, W, C], list of such images, or function that makes such arrays.
        model: The service's model.
        sampling: How a generator is sampled.
        patience_s: Seconds to wait for a service that does not answer.
        resolution: Resolution in pixels that image sets and folders are resized to as they are read.
        channels: Channels of image sets and folders, likewise.
        data_root: Where the datasets are.
        cache_root: Where decoded images are kept.

    Raises:
        EvaluationError: If there is no such source, or it cannot be read.
        ImageSetError: The same, for image sets.
    """
    location = resolve(images)
    path, kind = location.path or Path(), location.kind
    model = model or None  # an empty variable of a manifest names no model
    if model is not None and kind != "service":
        raise EvaluationError(f"--model names a model of a service; {location.text} is not a service")
    if kind == "statistics":
        raise EvaluationError(f"{path} holds statistics, which are a --reference; a source has images")
    if kind == "service":
        return ServiceSource(location.text, model, sampling, patience_s)
    if kind == "generator":
        return GeneratorSource(path, sampling)
    if kind == "checkpoint":
        return CheckpointSource(path, sampling)
    if sampling != SamplingOptions():
        raise EvaluationError(f"--truncation and --labels are for a generator; {location.text} is not one")
    if kind == "function":
        return FunctionSource(location.value)
    if kind == "arrays":
        return array_source(path if location.value is None else location.value)
    if location.value is not None:
        return ImageSetSource(checked_image_set(location.value))
    return ImageSetSource(
        load_image_set(
            location.name, resolution=resolution, channels=channels, data_root=data_root, cache_root=cache_root
        )
    )


def expand(text: str) -> Path:
    """Return a path with `~` replaced by the home folder; raise EvaluationError if there is none."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise EvaluationError(f"{text}: there is no such home folder ({error}); write the path out") from error


def _holds_images(path: Path) -> bool:
    """Return whether an array file has images; a damaged npz has nothing."""
    return path.suffix.lower() == ".npy" or any(key in _array_names(path) for key in IMAGE_KEYS)


def _folder(text: str, original: str) -> Location:
    """Return the location of a folder or zip of images, with or without a split."""
    path, (before, at, split) = expand(text), text.rpartition("@")
    if not text:
        raise EvaluationError(f"{original} names no folder")
    if not at or path.exists():  # a path may contain an @
        return Location("images", original, path, f"{FOLDER}{text}")
    return Location("images", original, expand(before), f"{FOLDER}{before}", split)


def _array_names(path: Path) -> set[str]:
    """Return the names of the arrays in an npz."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception:  # of many types; the reader of the file reports why it cannot be read
        return set()
