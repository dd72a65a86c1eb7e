"""Two ways in which the source documents went wrong about FID, repeated in this repository's own features.

Both are tried on real images against real images, where a right protocol finds next to nothing, and on a generator's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.extractors import Extractor, load_extractor
from evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from imagesets import load_image_set

GRID = 25  # images in a grid of 001's notebook, five wide
SHEETS = 20  # such grids that it saves of either kind: every hundredth batch of five epochs
PADDING = 2  # of torchvision's make_grid
BATCH = 500

Spoil = Callable[[np.ndarray], np.ndarray]  # images uint8 [N, H, W, C] → what a mistaken protocol compares


def as_they_are(images: np.ndarray) -> np.ndarray:
    return images


def as_grids(images: np.ndarray, grids: int = SHEETS) -> np.ndarray:
    """Source 001: pictures of 25 images each, and each picture taken for an image of its own size."""
    n, side, _, channels = images.shape
    edge = 5 * (side + PADDING) + PADDING
    sheets = np.zeros((min(grids, n // GRID), edge, edge, channels), np.uint8)
    for index, image in enumerate(images[: len(sheets) * GRID]):
        sheet, (row, column) = index // GRID, divmod(index % GRID, 5)
        top, left = PADDING + row * (side + PADDING), PADDING + column * (side + PADDING)
        sheets[sheet, top : top + side, left : left + side] = image
    reduced = [Image.fromarray(sheet.squeeze()).resize((side, side), Image.Resampling.BILINEAR) for sheet in sheets]
    return np.stack([np.asarray(sheet) for sheet in reduced]).reshape(-1, side, side, channels)


def as_few(images: np.ndarray) -> np.ndarray:
    """As many images as there are grids, whole: what is wrong with so few of anything."""
    return images[: len(as_grids(images))]


def as_cast_reals(images: np.ndarray) -> np.ndarray:
    """Source 000's script: reals, floats in [0, 1], cast to uint8: pure white becomes 1, all else 0."""
    return (images / 255.0).astype(np.uint8)


def as_cast_fakes(images: np.ndarray) -> np.ndarray:
    """The same script's fakes: G's tanh in [-1, 1], cast as it is; torch makes 255 of -1, of pure black."""
    return np.trunc(images / 127.5 - 1).astype(np.int64).astype(np.uint8)


@dataclass(frozen=True)
class Protocol:
    """A way to compare; `name` has a place for how many items come of it."""

    name: str
    reals: Spoil
    fakes: Spoil


PROTOCOLS = (
    Protocol("images, as they are", as_they_are, as_they_are),
    Protocol("{} grids of 25 images, each as one image", as_grids, as_grids),
    Protocol("{} images", as_few, as_few),
    Protocol("floats cast to uint8 as they are: reals of [0, 1], fakes of [-1, 1]", as_cast_reals, as_cast_fakes),
)


@dataclass(frozen=True)
class Row:
    """A protocol, how many items it compares, and the distances that it finds of reals and of fakes from reals."""

    name: str
    items: int
    reals: float
    generated: float | None


def distances(
    extractor: Path, source: str, side: int, generated: np.ndarray | None, data_root: Path, count: int
) -> list[Row]:
    """For each protocol the Fréchet distance of real training images and of `generated` from real test images.

    generated: uint8 [N, side, side, C], or None to compare reals alone. `count` of each are compared.
    """
    judge = load_extractor(extractor)
    train, test = (
        np.asarray(load_image_set(f"{source}@{split}", resolution=side, data_root=data_root).images)
        for split in ("train", "test")
    )
    rng = np.random.default_rng(0)
    train, test = (images[np.sort(rng.permutation(len(images))[:count])] for images in (train, test))
    rows = []
    for protocol in PROTOCOLS:
        real = statistics(judge, protocol.reals(test))
        others = distance(statistics(judge, protocol.reals(train)), real)
        fakes = None if generated is None else distance(statistics(judge, protocol.fakes(generated[:count])), real)
        rows.append(Row(protocol.name.format(real.n), real.n, others, fakes))
    return rows


def distance(ours: FeatureStatistics, real: FeatureStatistics) -> float:
    return float(frechet_distance(ours.mu, ours.sigma, real.mu, real.sigma))


def statistics(extractor: Extractor, images: np.ndarray) -> FeatureStatistics:
    found = FeatureStatistics(extractor.dim)
    for start in range(0, len(images), BATCH):
        found.update(extractor(np.ascontiguousarray(images[start : start + BATCH])).features)
    return found


def generated(path: Path, count: int, side: int) -> np.ndarray:
    """The first `count` seeds of a generator file, uint8 [N, side, side, C]."""
    from evaluation.sources import Draw, open_source

    batches = open_source(str(path)).batches(Draw(0, count), 0, count, BATCH)
    images = np.concatenate([batch.images for batch in batches])
    if images.shape[1] == side:
        return images
    shrunk = [Image.fromarray(image.squeeze()).resize((side, side), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in shrunk]).reshape(-1, side, side, images.shape[3])
