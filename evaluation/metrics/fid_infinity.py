"""FID∞: the Fréchet distance extrapolated to infinitely many images (Chong and Forsyth 2020, arXiv:1911.07023).

The bias of the distance is linear in 1/N to first order, with a slope that depends on the generator: the ranking of
two generators at one N may differ from that at N → ∞. The intercept of a line through distances at several N removes
the part of the bias that the generated images cause. The part that the number of reference images causes remains.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from evaluation.metrics.frechet import FeatureStatistics, frechet_distance

POINTS = 15
# Images per feature in the smallest subset. With fewer, the distance is not on the line yet, and the intercept is far
# below 0 (-2.5 for two samples of one Gaussian of 64 features and subsets of 1 image per feature).
_SUBSET_PER_FEATURE = 4
# Images per feature in the whole set, so that the sizes of the subsets differ.
_IMAGES_PER_FEATURE = 4.5
_MIN_IMAGES = 20


class Extrapolation(NamedTuple):
    """The intercept, and the curve it was fitted to.

    Attributes:
        value: The intercept, which can be negative.
        ns: Sizes of the subsets, ascending.
        values: The distance at each size.
        standard_error: Standard error of the intercept by ordinary least squares, None for two sizes. The subsets
            overlap, so the true error is at least this large.
    """

    value: float
    ns: tuple[int, ...]
    values: tuple[float, ...]
    standard_error: float | None


def min_images(dim: int) -> int:
    """Return the smallest number of images that an extrapolation accepts, for `dim` features."""
    return max(math.ceil(_IMAGES_PER_FEATURE * dim), _MIN_IMAGES)


def fid_infinity(
    fake: np.ndarray, mu_ref: np.ndarray, sigma_ref: np.ndarray, *, points: int = POINTS, seed: int = 0
) -> Extrapolation:
    """Return the intercept of the least-squares line of the distance against 1/N.

    The line is fitted to up to `points` sizes, evenly spaced up to all images. The smallest size is N/10, as the
    authors' (5,000 of 50,000), but at least 4 images per feature. Each size takes a new random subset, drawn without
    replacement; subsets of two sizes overlap, as the authors' do. The last point is the whole set.

    Args:
        fake: Features, float [N, d], N of `min_images(d)` or more.
        mu_ref: Mean of the reference, float [d].
        sigma_ref: Covariance of the reference, float [d, d].
        points: Number of sizes, 2 or more.
        seed: Seed of the subsets (`default_rng`).

    Returns:
        The intercept with its standard error and the curve.

    Raises:
        ValueError: If there are too few images or points, or a value is not finite.
    """
    if fake.ndim != 2 or points < 2:
        raise ValueError(f"an extrapolation needs features [N, d] and 2 points or more, not {fake.shape} and {points}")
    n, d = fake.shape
    if n < min_images(d):
        raise ValueError(f"an extrapolation needs {min_images(d)} images or more for {d} features, not {n}")
    smallest = max(n // 10, _SUBSET_PER_FEATURE * d, 2)
    ns = tuple(sorted({round(size) for size in np.linspace(smallest, n, points)}))
    random = np.random.default_rng(seed)
    values = []
    for size in ns:
        # Sorted, so that a file is read forwards.
        statistics = FeatureStatistics.from_features(fake, np.sort(random.choice(n, size, replace=False)))
        values.append(frechet_distance(statistics.mu, statistics.sigma, mu_ref, sigma_ref))
    intercept, error = _intercept(1.0 / np.array(ns), np.array(values))
    return Extrapolation(intercept, ns, tuple(values), error)


def _intercept(x: np.ndarray, y: np.ndarray) -> tuple[float, float | None]:
    """Return the least-squares line's value at x = 0 and its standard error, for float [k], k of 2 or more."""
    centered = x - x.mean()
    spread = centered @ centered
    slope = float(centered @ y / spread)
    intercept = float(y.mean() - slope * x.mean())
    if len(x) < 3:
        return intercept, None
    residuals = y - intercept - slope * x
    variance = residuals @ residuals / (len(x) - 2)
    return intercept, float(np.sqrt(variance * (1 / len(x) + x.mean() ** 2 / spread)))
