"""FID∞: the Fréchet distance extrapolated to infinitely many images (Chong and Forsyth 2020, arXiv:1911.07023).

The bias of the distance is linear in 1/N to first order, with a slope that depends on the generator: two
generators at one N need not be ranked as at N → ∞. The intercept of a line through distances at several N
removes the fakes' share of it; the reference's own share (its M) is left in.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from artifacts.arrays import drop_page_cache
from evaluation.metrics.frechet import frechet_distance
from evaluation.metrics.statistics import FeatureStatistics

POINTS = 15
# Images per feature of the smallest subset: below it the distance is not on the line yet, and the intercept is far
# below 0 (for two samples of one Gaussian of 64 features, -2.5 with subsets of 1 image per feature).
PER_FEATURE = 4
# Images per feature of the whole set, so that the sizes are apart.
_WHOLE = 4.5
_FEWEST = 20
_ROWS = 2048


class Extrapolation(NamedTuple):
    """The intercept, and the curve it was fitted to: the distance `values[i]` at `ns[i]` images.

    `standard_error` is that of the intercept by ordinary least squares, None for two sizes. The subsets overlap and
    share the images of the whole set, so it is the least that the error can be. The intercept can be negative.
    """

    value: float
    ns: tuple[int, ...]
    values: tuple[float, ...]
    standard_error: float | None


def fewest_images(dim: int) -> int:
    """Return the least number of images that can be extrapolated from, for `dim` features."""
    return max(math.ceil(_WHOLE * dim), _FEWEST)


def fid_infinity(
    fake: np.ndarray, mu_ref: np.ndarray, sigma_ref: np.ndarray, *, points: int = POINTS, seed: int = 0
) -> Extrapolation:
    """Return the intercept of the least-squares line of the distance against 1/N.

    The line goes through up to `points` sizes, evenly spaced up to all images. The smallest size is N/10, as the
    authors' (5,000 of 50,000), but at least 4 images per feature. Each size takes a fresh random subset, drawn
    without replacement within itself; subsets of two sizes overlap, as the authors' do. The last point is the whole
    set.

    Args:
        fake: Features, float [N, d], N of `fewest_images(d)` or more.
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
    if n < fewest_images(d):
        raise ValueError(f"an extrapolation needs {fewest_images(d)} images or more for {d} features, not {n}")
    smallest = max(n // 10, PER_FEATURE * d, 2)
    ns = tuple(sorted({round(size) for size in np.linspace(smallest, n, points)}))
    random = np.random.default_rng(seed)
    values = []
    for size in ns:
        # Sorted, so that a file is read forwards.
        chosen = np.sort(random.choice(n, size, replace=False))
        statistics = subset_statistics(fake, chosen)
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


def subset_statistics(features: np.ndarray, rows: np.ndarray) -> FeatureStatistics:
    """Mean and covariance of the rows (int [n]) of float [N, d], which may be on disk."""
    statistics = FeatureStatistics(features.shape[1])
    for start in range(0, len(rows), _ROWS):
        statistics.update(features[rows[start : start + _ROWS]])
        drop_page_cache(features)
    return statistics
