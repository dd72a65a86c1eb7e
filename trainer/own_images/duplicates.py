"""Images that are in a set more than once: equal pixels, and images that look the same.

Near-duplicates are searched among small gray versions of the images. Where the extractor of the memorization metric is
installed, the nearest pairs are compared in its features too, which separate similar pictures from the same picture.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from artifacts.images.alpha import over_white
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.extractors.default import default_extractor
from evaluation.metrics.neighbors import nearest
from evaluation.references.data_paths import DataPaths

MOST_COMPARED = 10_000  # images: the search takes a few seconds
MOST_CONFIRMED = 300  # pairs that an extractor compares: about ten seconds on a CPU
GRAY_SIDE = 16
# Distances as shares of that of two random images. Of 1,500 CIFAR-10 images, no two different pictures were nearer
# than 0.49 in the features of EfficientNet-Lite0 and 0.29 in gray pixels; half of the copies that were cropped by a
# pixel, or saved as JPEG of quality 60, were below 0.42 and 0.21.
NEAR_FEATURES = 0.45
NEAR_GRAY = 0.25
NEAR_GRAY_ALONE = 0.1  # without an extractor: different digits of MNIST are as near as 0.1
NEAR_IN_BOTH = 0.6  # in an extractor's features, for pairs that are near in gray pixels
CANDIDATES = 0.5  # share in gray pixels below which an extractor is asked
_BLOCK = 1024
_BATCH = 4  # images per run of an extractor: EfficientNet-Lite0 takes 15 MB for each
_TYPICAL = 64  # images whose distances are typical


@dataclass(frozen=True)
class Duplicates:
    """Images that are in a set more than once.

    Attributes:
        exact: Number of images that equal an earlier one.
        exact_example: Two of them, or None.
        near: Number of different images of which there is a near-duplicate.
        near_example: Two of them, or None.
        compared: Number of different images that were searched.
        features: What the images were compared by.
        blank: Number of images of one color.
    """

    exact: int
    exact_example: tuple[int, int] | None
    near: int
    near_example: tuple[int, int] | None
    compared: int
    features: str
    blank: int = 0

    @property
    def examples(self) -> tuple[int, ...]:
        """Indices of the images that are examples."""
        return (*(self.exact_example or ()), *(self.near_example or ()))


def find_duplicates(images: np.ndarray, *, use_extractor: bool = True) -> Duplicates:
    """Search a set for images that it has more than once.

    Args:
        images: uint8 [N, H, W, C].
        use_extractor: Whether to compare the nearest pairs in the features of the memorization metric, if its
            extractor is installed.
    """
    first: dict[bytes, int] = {}
    unique: list[int] = []
    example: tuple[int, int] | None = None
    blank = 0
    for index, image in enumerate(images):
        seen = first.setdefault(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), index)
        blank += bool((image == image[0, 0]).all())
        if seen == index:
            unique.append(index)
        elif example is None:
            example = seen, index
    exact = len(images) - len(unique)
    rows = _sample(np.array(unique), MOST_COMPARED)
    if len(rows) < 3:
        return Duplicates(exact, example, 0, None, len(rows), "pixels", blank)
    gray = _gray_features(images, rows)
    distances, neighbors = nearest(gray, gray, k=2)
    # A row is its own nearest unless another one has equal features.
    other = np.where(neighbors[:, 0] == np.arange(len(rows)), neighbors[:, 1], neighbors[:, 0])
    shares = distances[:, 1] / max(_typical_distance(gray), 1e-12)
    near, features = shares < NEAR_GRAY_ALONE, f"{GRAY_SIDE} px gray"
    # An extractor takes seconds to load, and once a minute to build: only where there are pairs to confirm.
    extractor = _extractor(images.shape[3]) if use_extractor and shares.min() < CANDIDATES else None
    if extractor is not None:
        asked = np.argsort(shares, kind="stable")[:MOST_CONFIRMED]
        asked = asked[shares[asked] < CANDIDATES]
        near, features = np.zeros(len(rows), dtype=bool), f"{extractor.name} on the nearest in {GRAY_SIDE} px gray"
        in_features = _feature_shares(extractor, images, rows, asked, other[asked])
        both = (shares[asked] < NEAR_GRAY) & (in_features < NEAR_IN_BOTH)
        near[asked] = (in_features < NEAR_FEATURES) | both
    nearest_pair = int(np.where(near, shares, np.inf).argmin()) if near.any() else None
    pair = None if nearest_pair is None else (int(rows[nearest_pair]), int(rows[other[nearest_pair]]))
    return Duplicates(exact, example, int(near.sum()), pair, len(rows), features, blank)


def _feature_shares(
    extractor: Extractor, images: np.ndarray, rows: np.ndarray, asked: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Return distances between rows and others in an extractor's features, as shares of a typical one."""
    needed = np.unique(np.concatenate([asked, others, _sample(np.arange(len(rows)), _TYPICAL)]))
    blocks = (rows[needed[i : i + _BATCH]] for i in range(0, len(needed), _BATCH))
    found = [extractor(over_white(images[block])).features for block in blocks]
    features = np.concatenate(found).astype(np.float64)
    at = {int(row): i for i, row in enumerate(needed)}
    typical = _typical_distance(features[[at[int(row)] for row in _sample(np.arange(len(rows)), _TYPICAL)]])
    ours, theirs = (features[[at[int(row)] for row in chosen]] for chosen in (asked, others))
    shares: np.ndarray = np.linalg.norm(ours - theirs, axis=1) / max(typical, 1e-12)
    return shares


def _extractor(channels: int) -> Extractor | None:
    """Return the extractor that `memorization` uses by default, or None where it is not installed or for gray."""
    with suppress(EvaluationError, OSError):
        return default_extractor(DataPaths().extractors, lambda: channels != 1)
    return None


def _gray_features(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return gray versions of images, averaged to 16 × 16 px, without their mean and contrast: float64 [N, 256]."""
    down, across = (_pooling(side) for side in images.shape[1:3])
    blocks = []
    for start in range(0, len(rows), _BLOCK):
        gray = over_white(images[rows[start : start + _BLOCK]]).mean(axis=3)
        pooled = np.einsum("ah,nhw,bw->nab", down, gray, across, optimize=True).reshape(len(gray), -1)
        pooled -= pooled.mean(axis=1, keepdims=True)
        blocks.append(pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1.0))
    return np.concatenate(blocks)


def _pooling(side: int) -> np.ndarray:
    """Return the weights that average `side` pixels to GRAY_SIDE by their overlap, float64 [GRAY_SIDE, side]."""
    edges = np.arange(GRAY_SIDE + 1) * side / GRAY_SIDE
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: np.ndarray = np.maximum(overlap, 0.0) * GRAY_SIDE / side
    return weights


def _typical_distance(features: np.ndarray) -> float:
    """Return the root mean squared distance of two random rows."""
    return float(np.sqrt(2.0 * features.var(axis=0).sum()))


def _sample(values: np.ndarray, most: int) -> np.ndarray:
    """Return all values, or `most` of them, drawn by a fixed seed, in order."""
    if len(values) <= most:
        return values
    return values[np.sort(np.argsort(np.random.Philox(key=1).random_raw(len(values)), kind="stable")[:most])]
