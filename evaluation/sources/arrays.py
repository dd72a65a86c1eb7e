"""Images in arrays: in memory, and in npy and npz files."""

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
from artifacts.images.resolution import Resolution, resolution_of, size_text
from evaluation.errors import EvaluationError
from evaluation.sources.base import ImageBatch, SeedRange, random_subset
from imagesets import ImageSet
from imagesets.cache import content_fingerprint

IMAGE_SET_KEYS = ("source", "split", "crop", "resize", "resolution", "channels", "n", "fingerprint")
# `arr_0` is numpy's name for the first array of savez, under which image batches are published.
IMAGE_KEYS, LABEL_KEYS = ("images", "arr_0"), ("labels", "arr_1")
MAX_CLASSES = 1_000_000  # one class name is made per number up to the largest label
# Pillow's antialiased bicubic on uint8, which Parmar et al. (2022, arXiv:2104.11222) recommend.
RESIZE_PROTOCOL = "pil-bicubic"


class ArraySource:
    """Images uint8 [N, H, W, C]. A fixed random subset is taken of them, since sets are often sorted by class."""

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
        self.num_images: int | None = len(images)
        self.description = description

    def batches(self, seeds: SeedRange, start: int, stop: int, batch_size: int) -> Iterator[ImageBatch]:
        """Yield images start … stop-1 of the subset."""
        chosen = random_subset(len(self.images), seeds.n, seeds.first_seed, seeds.repetition)
        for first in range(start, stop, batch_size):
            rows = chosen[first : min(first + batch_size, stop)]
            labels = None if self.labels is None else self.labels[rows]
            yield ImageBatch(np.asarray(self.images[rows]), labels=labels)
            drop_page_cache(self.images)


def array_source(value: Path | np.ndarray) -> ArraySource:
    """Open images uint8 [N, H, W] or [N, H, W, 1, 3 or 4] of an array, or of a .npy or .npz file, memory-mapped."""
    labels, name = None, "the array"
    description: dict[str, Any] = {"kind": "array"}
    if isinstance(value, Path):
        if not value.is_file():
            raise EvaluationError(f"there is no array file at {value}")
        name, description = str(value), {"kind": "array file", "path": str(value)}
        images, labels = _read_npz(value) if value.suffix.lower() == ".npz" else (_read_array(value, value), None)
    else:
        images = value
    if images.dtype != np.uint8:
        raise EvaluationError(
            f"{name} holds {images.dtype}, not uint8 in 0 … 255; convert it, for images in [0, 1] with "
            "(images * 255).round().clip(0, 255).astype('uint8')"
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        transposed = images.ndim == 4 and images.shape[1] in (1, 3, 4)
        hint = "; save images.transpose(0, 2, 3, 1)" if transposed else ""
        raise EvaluationError(f"{name} is {list(images.shape)}, not [N, H, W] or [N, H, W, 1, 3 or 4]{hint}")
    if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in "iu"):
        raise EvaluationError(f"{name}: its labels are {labels.dtype} {list(labels.shape)}, not integers [N]")
    if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() < MAX_CLASSES:
        raise EvaluationError(
            f"{name}: its labels are {labels.min()} … {labels.max()}; classes count from 0, {MAX_CLASSES} at most"
        )
    labels = None if labels is None else labels.astype(np.int64)
    fingerprint = content_fingerprint(images, labels)  # equals that of an image set with the same content
    description |= {"n": len(images), "shape": list(images.shape[1:]), "fingerprint": fingerprint}
    class_names = () if labels is None or not len(labels) else tuple(map(str, range(int(labels.max()) + 1)))
    return ArraySource(images, description, labels, class_names)


def array_image_set(value: Path | np.ndarray, resolution: Resolution | None = None) -> ImageSet:
    """Return images of an array or array file, which must have `resolution` if it is given, as an image set."""
    source = array_source(value)
    name = str(value) if isinstance(value, Path) else "array"
    height, width, channels = source.shape
    own = resolution_of(height, width)
    if resolution not in (None, own):
        raise EvaluationError(
            f"{name} holds images of {height}x{width} and {size_text(resolution)} are needed: an array file is not "
            "resized; give --resolution reference to resize the other images to its size"
        )
    info = {
        "source": name,
        "split": None,
        "crop": "none",
        "resize": "none",
        "resolution": own,
        "channels": channels,
        "n": len(source.images),
        "labels": source.labels is not None,
        "class_names": list(source.class_names),
        "fingerprint": source.description["fingerprint"],
        "skipped": [],
    }
    return ImageSet(name, source.images, source.labels, source.class_names, info)


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the images and labels of an npz, unpacked to a temporary file, since a zip cannot be memory-mapped."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            found = [next((members[key] for key in keys if key in members), None) for keys in (IMAGE_KEYS, LABEL_KEYS)]
            if found[0] is None:
                content = "statistics, which are a --reference" if {"mu", "sigma"} <= set(members) else "no images"
                raise EvaluationError(
                    f"{path} holds {content}; images are expected as `images` or `arr_0`; folder:{path} reads "
                    "further names, such as `x_train`"
                )
            folder = Path(tempfile.mkdtemp(prefix="atelier-npz-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            images, labels = (
                None if name is None else _read_array(Path(archive.extract(name, folder)), path) for name in found
            )
    except EvaluationError:
        raise
    except Exception as error:  # zipfile raises many types for a damaged file
        raise EvaluationError(f"{path} is not an npz file, or is truncated ({str(error)[:100]})") from error
    assert images is not None
    return images, labels


def _read_array(file: Path, source: Path) -> np.ndarray:
    try:
        array = read_npy(file)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{source} is not a npy file of numbers, or is truncated ({error})") from error
    return np.asarray(array) if array.size == 0 else array
