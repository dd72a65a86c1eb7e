"""Where images come from: a service, a generator, a checkpoint, a folder or zip, a file of arrays, an image set."""

from __future__ import annotations

from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.sources.arrays import ArraySource, ImageSetSource, array_source
from evaluation.sources.base import Conditions, Draw, ImageBatch, ImageSource, choice
from evaluation.sources.checkpoint import CheckpointSource, checkpoints_of, is_run
from evaluation.sources.generator import GeneratorSource
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
    "ResizedSource",
    "ServiceSource",
    "array_source",
    "checkpoints_of",
    "choice",
    "is_run",
    "open_source",
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
    """The source that `text` names.

    `http://…` is a service; `.onnx` a generator file; `.pt` or a run folder a checkpoint; `.npy` or `.npz` an array
    file; another folder or a `.zip` the images in it; anything else an image set such as mnist@test. `model` is for a
    service, `conditions` for generators; `resolution` and `channels` for image sets and folders, which are brought to
    them as they are read. Raises EvaluationError or ImageSetError for a source that cannot be had.
    """
    path = Path(text).expanduser()
    service = text.startswith(("http://", "https://"))
    model = model or None  # a manifest's variable that is left empty names none
    if model is not None and not service:
        raise EvaluationError(f"--model names a model of a service; {text} is none")
    if service:
        return ServiceSource(text, model, conditions, patience_s)
    if text.endswith(".onnx"):
        return GeneratorSource(path, conditions)
    if text.endswith(".pt") or is_run(path):
        if not path.exists():
            raise EvaluationError(f"there is no checkpoint at {path}")
        return CheckpointSource(path, conditions)
    if conditions != Conditions():
        raise EvaluationError(f"--truncation and --labels are for a generator; {text} is images")
    if text.endswith((".npy", ".npz")):
        if not path.is_file():
            raise EvaluationError(f"there is no array file at {path}")
        return array_source(path)
    if path.is_dir() or text.endswith(".zip"):
        text = f"folder:{text}"
    elif path.exists():
        raise EvaluationError(f"{text} is no source: say a URL, a .onnx, .pt, .npy, .npz or .zip file, or a folder")
    images = load_image_set(text, resolution=resolution, channels=channels, data_root=data_root, cache_root=cache_root)
    return ImageSetSource(images)
