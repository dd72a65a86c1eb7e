"""Two mistakes of published FID scripts, repeated in this repository's own features.

Each protocol compares real training images, and a generator's images, with real test images. A correct protocol finds
next to no distance between real images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import imagesets
from evaluation.extractors import load_extractor
from evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from evaluation.sources import SeedRange, open_source
from trainer.reports.image_grids import grid

SHEETS = 20  # grids of 5 x 5 images that the CIFAR-10 notebook saves of either kind
BATCH = 500


def resize(images: np.ndarray, side: int) -> np.ndarray:
    small = [Image.fromarray(image.squeeze()).resize((side, side), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in small]).reshape(-1, side, side, images.shape[3])


def as_grids(images: np.ndarray) -> np.ndarray:
    """Return grids of 25 images, each treated as one image of the images' own size."""
    sheets = [grid(images[25 * index : 25 * (index + 1)]) for index in range(len(as_few(images)))]
    return resize(np.stack(sheets), images.shape[1])


def as_few(images: np.ndarray) -> np.ndarray:
    """Return as many single images as there are grids."""
    return images[: min(SHEETS, len(images) // 25)]


def cast_reals(images: np.ndarray) -> np.ndarray:
    """Cast floats in [0, 1] to uint8: pure white becomes 1, everything else 0."""
    return (images / 255.0).astype(np.uint8)


def cast_fakes(images: np.ndarray) -> np.ndarray:
    """Cast floats in [-1, 1] to uint8, which turns -1, pure black, into 255 as torch does."""
    return np.trunc(images / 127.5 - 1).astype(np.int64).astype(np.uint8)


PROTOCOLS = {
    "grids of 25 images, each as one image": (as_grids, as_grids),
    "single images": (as_few, as_few),
    "images, floats cast to `uint8`": (cast_reals, cast_fakes),
}


def measure(extractor: Path, model: Path, source: str, data_root: Path, side: int, n: int) -> Iterator[dict[str, Any]]:
    """Yield a row per protocol: the distances of real training images and of a generator from `n` test images."""
    network, random = load_extractor(extractor), np.random.default_rng(0)

    def statistics(images: np.ndarray) -> FeatureStatistics:
        found = FeatureStatistics(network.dim)
        for start in range(0, len(images), BATCH):
            found.update(network(np.ascontiguousarray(images[start : start + BATCH])).features)
        return found

    def load(split: str) -> np.ndarray:
        images = np.asarray(imagesets.load(f"{source}@{split}", resolution=side, data_root=data_root).images)
        return images[np.sort(random.permutation(len(images))[:n])]

    train, test = load("train"), load("test")
    fakes = np.concatenate([batch.images for batch in open_source(str(model)).batches(SeedRange(0, n), 0, n, BATCH)])
    fakes = fakes if fakes.shape[1] == side else resize(fakes, side)
    for name, (of_reals, of_fakes) in PROTOCOLS.items():
        reference = statistics(of_reals(test))
        ours = (statistics(of_reals(train)), statistics(of_fakes(fakes)))
        real, generated = (frechet_distance(one.mu, one.sigma, reference.mu, reference.sigma) for one in ours)
        yield {"compared": name, "count": reference.n, "real": float(real), "generated": float(generated)}
