"""Where images come from: a service, a generator, a checkpoint, a folder or zip, a file of arrays, an image set."""

from __future__ import annotations

from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.sources.arrays import ArraySource, ImageSetSource, array_image_set, array_source
from evaluation.sources.base import Conditions, Draw, ImageBatch, ImageSource, choice
from evaluation.sources.checkpoint import CheckpointSource, checkpoints_of, is_run
from evaluation.sources.generator import GeneratorSource
from evaluation.sources.location import Location, resolve
from evaluation.sources.resized import ResizedSource
from evaluation.sources.service import PATIENCE_S, ServiceSource
from imagesets import load_image_set

__all__ = [
    "ArraySource",
    "CheckpointSource",
    "Conditions",
    "Draw",
    "GeneratorSource",
    "ImageBatch",
    "ImageSetSource",
    "ImageSource",
    "Location",
    "ResizedSource",
    "ServiceSource",
    "array_image_set",
    "array_source",
    "checkpoints_of",
    "choice",
    "is_run",
    "open_source",
    "resolve",
]


def open_source(
    text: str,
    *,
    model: str | None = None,
    conditions: Conditions = Conditions(),
    patience_s: float = PATIENCE_S,
    resolution: int | None = None,
    channels: int | None = None,
    data_root: Path | str = "data",
    cache_root: Path | str | None = None,
) -> ImageSource:
    """Return the source that `text` names, as `resolve` reads it.

    Args:
        text: A service, a generator file, a checkpoint, an array file, a folder or zip of images, or an image set.
        model: The service's model.
        conditions: How images are requested from a generator.
        patience_s: How long to wait for a service that is away.
        resolution: Side in pixels that image sets and folders are brought to as they are read.
        channels: Channels of image sets and folders, likewise.
        data_root: Where the data sets are.
        cache_root: Where decoded images are kept.

    Raises:
        EvaluationError: If there is no such source, or it cannot be read.
        ImageSetError: The same, for image sets.
    """
    location = resolve(text)
    path, kind = location.path or Path(), location.kind
    model = model or None  # a manifest's variable that is left empty names none
    if model is not None and kind != "service":
        raise EvaluationError(f"--model names a model of a service; {text} is none")
    if kind == "statistics":
        raise EvaluationError(f"{path} holds statistics, which are a --reference; a source has images")
    if kind == "service":
        return ServiceSource(location.text, model, conditions, patience_s)
    if kind == "generator":
        return GeneratorSource(path, conditions)
    if kind == "checkpoint":
        if not path.exists():
            raise EvaluationError(f"there is no checkpoint at {path}")
        return CheckpointSource(path, conditions)
    if conditions != Conditions():
        raise EvaluationError(f"--truncation and --labels are for a generator; {text} is images")
    if kind == "arrays":
        return array_source(path)
    images = load_image_set(
        location.name, resolution=resolution, channels=channels, data_root=data_root, cache_root=cache_root
    )
    return ImageSetSource(images)
