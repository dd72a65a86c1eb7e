"""Two mistakes of published FID scripts, repeated in this repository's own features.

Each protocol compares real training images, and a generator's images, with real test images. A correct protocol finds
next to no distance between real images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.extractors import Extractor, load_extractor
from evaluation.metrics.frechet import frechet_distance
from evaluation.metrics.statistics import FeatureStatistics
from evaluation.sources import Draw, open_source
from imagesets import load_image_set

SHEETS = 20  # grids that the CIFAR-10 notebook saves of either kind
PADDING = 2  # of torchvision's make_grid
BATCH = 500

Protocol = Callable[[np.ndarray], np.ndarray]  # images uint8 [N, H, W, C] → what the protocol compares


def resize(images: np.ndarray, side: int) -> np.ndarray:
    small = [Image.fromarray(image.squeeze()).resize((side, side), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in small]).reshape(-1, side, side, images.shape[3])


def as_grids(images: np.ndarray) -> np.ndarray:
    """Grids of 5 x 5 images, each treated as one image of the images' own size."""
    n, side, _, channels = images.shape
    edge = 5 * (side + PADDING) + PADDING
    sheets = np.zeros((min(SHEETS, n // 25), edge, edge, channels), np.uint8)
    for index, image in enumerate(images[: len(sheets) * 25]):
        row, column = divmod(index % 25, 5)
        top, left = PADDING + row * (side + PADDING), PADDING + column * (side + PADDING)
        sheets[index // 25, top : top + side, left : left + side] = image
    return resize(sheets, side)


def as_few(images: np.ndarray) -> np.ndarray:
    """As many single images as there are grids."""
    return images[: min(SHEETS, len(images) // 25)]


def cast_reals(images: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] cast to uint8: pure white becomes 1, everything else 0."""
    return (images / 255.0).astype(np.uint8)


def cast_fakes(images: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] cast to uint8: torch turns -1, pure black, into 255."""
    return np.trunc(images / 127.5 - 1).astype(np.int64).astype(np.uint8)


PROTOCOLS: dict[str, tuple[Protocol, Protocol]] = {
    "grids of 25 images, each as one image": (as_grids, as_grids),
    "single images": (as_few, as_few),
    "images, floats cast to `uint8`": (cast_reals, cast_fakes),
}


def measure(extractor: Path, model: Path, source: str, data_root: Path, side: int, n: int) -> list[dict[str, Any]]:
    """Return a row per protocol: the distances of real training images and of a generator from `n` test images."""
    network = load_extractor(extractor)
    random = np.random.default_rng(0)
    splits = []
    for split in ("train", "test"):
        images = np.asarray(load_image_set(f"{source}@{split}", resolution=side, data_root=data_root).images)
        splits.append(images[np.sort(random.permutation(len(images))[:n])])
    fakes = np.concatenate([batch.images for batch in open_source(str(model)).batches(Draw(0, n), 0, n, BATCH)])
    fakes = fakes if fakes.shape[1] == side else resize(fakes, side)
    rows = []
    for name, (of_reals, of_fakes) in PROTOCOLS.items():
        test = statistics(network, of_reals(splits[1]))
        distances = [
            float(frechet_distance(found.mu, found.sigma, test.mu, test.sigma))
            for found in (statistics(network, of_reals(splits[0])), statistics(network, of_fakes(fakes)))
        ]
        rows.append({"compared": name, "count": test.n, "real": distances[0], "generated": distances[1]})
    return rows


def statistics(network: Extractor, images: np.ndarray) -> FeatureStatistics:
    found = FeatureStatistics(network.dim)
    for start in range(0, len(images), BATCH):
        found.update(network(np.ascontiguousarray(images[start : start + BATCH])).features)
    return found
