"""Images that lie in memory or in a file of arrays: image sets, folders, zips, npy and npz."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.arrays import drop_page_cache, read_npy
from evaluation.errors import EvaluationError
from evaluation.sources.base import Draw, ImageBatch, choice
from imagesets import ImageSet
from imagesets.cache import content_fingerprint

KEPT = ("source", "split", "crop", "resize", "resolution", "channels", "n", "fingerprint")
# numpy's own name for the first array of savez, which image batches in the field are published under
IMAGE_KEYS, LABEL_KEYS = ("images", "arr_0"), ("labels", "arr_1")
MAX_CLASSES = 1_000_000  # a name is made for each number up to the largest


class ArraySource:
    """Images [N, H, W, C]. Fewer than all of them are a fixed random choice: sets are often sorted by class."""

    seeded = False

    def __init__(
        self,
        images: np.ndarray,
        description: dict[str, Any],
        labels: np.ndarray | None = None,
        class_names: tuple[str, ...] = (),
    ) -> None:
        self.images, self.labels, self.class_names = images, labels, class_names
        height, width, channels = images.shape[1:]
        self.shape = (height, width, channels)
        self.description = description

    def limit(self) -> int | None:
        return len(self.images)

    def batches(self, draw: Draw, start: int, stop: int, batch: int) -> Iterator[ImageBatch]:
        chosen = choice(len(self.images), draw.n, draw.first_seed, draw.part)
        for first in range(start, stop, batch):
            rows = chosen[first : min(first + batch, stop)]
            labels = None if self.labels is None else self.labels[rows]
            yield ImageBatch(np.asarray(self.images[rows]), labels=labels)
            drop_page_cache(self.images)


class ImageSetSource(ArraySource):
    """An image set of the ground floor: a named data set, or a folder or zip of images."""

    def __init__(self, images: ImageSet) -> None:
        description = {
            "kind": "image set",
            "name": images.name,
            **{key: images.info[key] for key in KEPT},
            "skipped": len(images.info.get("skipped", ())),
            "modes": images.info.get("modes"),  # an entry of the cache from before they were counted has none
        }
        super().__init__(images.images, description, images.labels, images.class_names)


def conversions(description: dict[str, Any], what: str) -> list[str]:
    """Loud words on image files of mixed modes, and on what no file keeps to the end: palettes, alpha, other depths.

    Files that are all RGB, or all grey, are compared as the report's `channels` say, which needs no warning.
    """
    modes = description.get("modes") or {}
    if set(modes) in (set(), {"RGB"}, {"L"}):
        return []
    target = "L" if description["channels"] == 1 else "RGB"
    others = {mode: count for mode, count in modes.items() if mode != target}
    white = any("A" in mode or "a" in mode for mode in others)  # RGBA, LA, PA, ...+transparency
    return [
        f"{sum(others.values())} of {sum(modes.values())} {what} were {'/'.join(others)} and were converted to {target}"
        + (", transparency laid over white" if white else "")
    ]


def array_source(path: Path) -> ArraySource:
    """The images of a .npy or .npz file, memory-mapped. EvaluationError: not uint8 [N, H, W, C], or damaged."""
    if not path.is_file():
        raise EvaluationError(f"there is no array file at {path}")
    images, labels = _npz(path) if path.suffix.lower() == ".npz" else (_load(path, path), None)
    if images.dtype != np.uint8:
        raise EvaluationError(
            f"{path} holds {images.dtype}, not uint8 in 0 … 255; a range is a guess, so make it uint8 yourself: "
            "(images * 255).round().clip(0, 255).astype('uint8') for images in [0, 1]"
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        turned = images.ndim == 4 and images.shape[1] in (1, 3)
        hint = "; save images.transpose(0, 2, 3, 1)" if turned else ""
        raise EvaluationError(f"{path} is {list(images.shape)}, not [N, H, W] or [N, H, W, 1 or 3]{hint}")
    if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in "iu"):
        raise EvaluationError(f"{path}: its labels are {labels.dtype} {list(labels.shape)}, not whole numbers [N]")
    if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() < MAX_CLASSES:
        raise EvaluationError(
            f"{path}: its labels are {labels.min()} … {labels.max()}; classes count from 0, {MAX_CLASSES} at most"
        )
    labels = None if labels is None else labels.astype(np.int64)
    description = {
        "kind": "array file",
        "path": str(path),
        "n": len(images),
        "shape": list(images.shape[1:]),
        "fingerprint": content_fingerprint(images, labels),  # that of an image set of the same content
    }
    names = () if labels is None or not len(labels) else tuple(str(label) for label in range(int(labels.max()) + 1))
    return ArraySource(images, description, labels, names)


def array_image_set(path: Path, resolution: int | None = None) -> ImageSet:
    """Return the images of a .npy or .npz file as an image set, for a reference.

    Args:
        path: The file.
        resolution: The side in pixels that the images must have; None: any.

    Raises:
        EvaluationError: If it is not an array file, or its images are not squares of that side.
    """
    source = array_source(path)
    height, width, channels = source.shape
    if height != width:
        raise EvaluationError(f"{path} holds images of {height}x{width}; real images are square")
    if resolution not in (None, height):
        raise EvaluationError(
            f"{path} holds images of {height}x{height} and {resolution}x{resolution} are needed: an array file is not "
            "resized; say --resolution reference to have the other images brought to its size"
        )
    info = {
        "source": str(path),
        "split": None,
        "crop": "none",
        "resize": "none",
        "resolution": height,
        "channels": channels,
        "n": len(source.images),
        "labels": source.labels is not None,
        "class_names": list(source.class_names),
        "fingerprint": source.description["fingerprint"],
        "skipped": [],
    }
    return ImageSet(str(path), source.images, source.labels, source.class_names, info)


def _npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The image and label arrays of an npz; unpacked to a temporary file, since a zip cannot be mapped."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.removesuffix(".npy"): name for name in archive.namelist()}
            key = next((key for key in IMAGE_KEYS if key in inside), None)
            if key is None:
                told = "statistics, which are a --reference" if {"mu", "sigma"} <= set(inside) else "no images"
                raise EvaluationError(f"{path} holds {told}; images are sought as `images` or `arr_0`")
            folder = Path(tempfile.mkdtemp(prefix="atelier-npz-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            images = _load(_unpack(archive, inside[key], folder / "images.npy"), path)
            label_key = next((key for key in LABEL_KEYS if key in inside), None)
            labels = _load(_unpack(archive, inside[label_key], folder / "labels.npy"), path) if label_key else None
    except EvaluationError:
        raise
    except Exception as error:  # a broken zip makes zipfile raise half a dozen kinds
        raise EvaluationError(f"{path} is not an npz file, or is truncated ({str(error)[:100]})") from error
    return images, labels


def _unpack(archive: zipfile.ZipFile, name: str, to: Path) -> Path:
    with archive.open(name) as packed, to.open("wb") as file:
        shutil.copyfileobj(packed, file, 2**20)
    return to


def _load(file: Path, told: Path) -> np.ndarray:
    try:
        loaded = read_npy(file)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{told} is not a npy file of numbers, or is truncated ({error})") from error
    return np.asarray(loaded) if loaded.size == 0 else loaded
