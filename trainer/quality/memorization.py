"""Memorization during training: the share of generated images that are near-copies of training images.

It is the metric `memorization` of the package evaluation, in the features of proxy_metrics.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from artifacts.plugins import is_plugin
from evaluation.metrics.neighbors import near_copy_share, nearest
from imagesets import ImageSet, ImageSetError, load_image_set
from imagesets.folder import SCALED_RESIZE

# GANs copy training images of sets of up to a few thousand; the share falls exponentially with the size of the set
# (Feng et al. 2021, "When do GANs replicate?"). Above this size the measurement would cost more than it shows.
MAX_IMAGES = 10_000
MIN_REAL = 20  # real images that a baseline needs
LEVEL = 0.99
OTHER_SPLIT = {"train": "test", "test": "train"}
# Real images this near to a training image, in median distances, are the same image twice. Rounding is below it.
SAME_IMAGE = 1e-4


class Memorization:
    """Measures near-copies of training images against those among real images.

    The real images are held out of training, or, where there are none, training images, each compared with the others.
    """

    def __init__(self, train: np.ndarray, real: np.ndarray) -> None:
        """Keep the features to compare with.

        Args:
            train: Features of all training images, float [N, d].
            real: Distances of real images to their nearest training image, float [M], M ≥ MIN_REAL.
        """
        self._train = train
        self._real = real

    @classmethod
    def create(cls, train: np.ndarray, subset: np.ndarray, held_out: np.ndarray | None = None) -> Memorization | None:
        """Return the measurement, or None where there are fewer than MIN_REAL real images to compare with.

        Args:
            train: Features of all training images, float [N, d].
            subset: Features of some of them, float [M, d], which are compared with the others without `held_out`.
            held_out: Features of real images that are not trained on, float [M, d].
        """
        if held_out is not None and len(real := _without_copies(nearest(held_out, train)[0][:, 0])) >= MIN_REAL:
            return cls(train, real)
        if len(train) < 2:
            return None
        # The nearest is the image itself.
        real = _without_copies(nearest(subset, train, k=2)[0][:, 1])
        return cls(train, real) if len(real) >= MIN_REAL else None

    def measure(self, features: np.ndarray) -> dict[str, float]:
        """Measure generated images by their features, float [N, d].

        Returns:
            "quality/memorization", the share of near-copies; "quality/memorization_real", that of real images; and
            "quality/memorization_excess", how far the first is above the second for certain: the gap between their
            99 % intervals (Clopper and Pearson 1934), 0 if they overlap.
        """
        found = near_copy_share(nearest(features, self._train)[0][:, 0], self._real)
        _, real_high = binomial_interval(found.held_out_share, len(self._real) // 2)
        low, _ = binomial_interval(found.share, len(features))
        return {
            "quality/memorization": found.share,
            "quality/memorization_real": found.held_out_share,
            "quality/memorization_excess": max(0.0, low - real_high),
        }


def _without_copies(distances: np.ndarray) -> np.ndarray:
    """Return the distances without those of images that the training set contains too."""
    return distances[distances > SAME_IMAGE * np.median(distances)] if len(distances) else distances


def binomial_interval(share: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson (1934) for a share of n independent images."""
    from scipy.special import betaincinv

    k, tail = round(share * n), (1 - level) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return low, high


def load_held_out(images: ImageSet, data_root: Path) -> ImageSet | None:
    """Return the other split of the images that a run trains on; None if there is none, or it is the same images.

    Both splits are decoded alike. A function of the user is not called for a split that the user did not name.
    """
    source, other = str(images.info.get("source", "")), OTHER_SPLIT.get(str(images.info.get("split")))
    if other is None or is_plugin(source):
        return None
    height, width, channels = images.images.shape[1:]
    try:
        found = load_image_set(
            f"{source}@{other}",
            resolution=(height, width),
            channels=channels,
            scale_jpegs=SCALED_RESIZE in str(images.info.get("resize")),
            data_root=data_root,
            progress=False,
        )
    except ImageSetError:
        return None
    same = found.images.shape[1:] != images.images.shape[1:] or found.fingerprint == images.fingerprint
    return None if same else found
