"""FID∞: the Fréchet distance extrapolated to infinitely many images (Chong and Forsyth 2020, arXiv:1911.07023).

The bias of the distance is linear in 1/N to first order, with a slope that depends on the generator: two
generators at one N need not be ranked as at N → ∞. The intercept of a line through distances at several N
removes the fakes' share of it; the reference's own share (its M) is left in.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evaluation.metrics.frechet import frechet_distance
from evaluation.statistics import FeatureStatistics
from imagesets.rows import release

POINTS = 15
_ROWS = 2048


class Extrapolation(NamedTuple):
    """The intercept, and the curve it was fitted to: the distance `values[i]` at `ns[i]` images."""

    value: float
    ns: tuple[int, ...]
    values: tuple[float, ...]


def fid_infinity(
    fake: np.ndarray, mu_ref: np.ndarray, sigma_ref: np.ndarray, *, points: int = POINTS, seed: int = 0
) -> Extrapolation:
    """Intercept of the least-squares line of distance against 1/N, over `points` sizes evenly spaced up to all.

    `fake` float [N, d]; `mu_ref` [d], `sigma_ref` [d, d]. Each size takes a fresh random subset, drawn without
    replacement within itself (`default_rng(seed)`); subsets of two sizes overlap, as the authors' do. The
    smallest size is N/10, as theirs (5,000 of 50,000), but no fewer than 2d images, or N/2 where that is less:
    below d the covariance is singular and the distance not on the line. The whole set is the last point.
    Raises ValueError for fewer than 20 images, 2 points, or values that are not finite.
    """
    if fake.ndim != 2 or len(fake) < 20 or points < 2:
        raise ValueError(f"an extrapolation needs 20 images and 2 points or more, not {len(fake)} and {points}")
    n, d = fake.shape
    smallest = max(n // 10, min(2 * d, n // 2), 2)
    ns = tuple(sorted({round(size) for size in np.linspace(smallest, n, points)}))
    random = np.random.default_rng(seed)
    values = []
    for size in ns:
        chosen = np.sort(random.choice(n, size, replace=False))  # sorted, so that a file is read forwards
        statistics = subset_statistics(fake, chosen)
        values.append(frechet_distance(statistics.mu, statistics.sigma, mu_ref, sigma_ref))
    slope_and_intercept = np.polyfit(1.0 / np.array(ns), values, 1)
    return Extrapolation(float(slope_and_intercept[1]), ns, tuple(values))


def subset_statistics(features: np.ndarray, rows: np.ndarray) -> FeatureStatistics:
    """Mean and covariance of the rows (int [n]) of float [N, d], which may be on disk."""
    statistics = FeatureStatistics(features.shape[1])
    for start in range(0, len(rows), _ROWS):
        statistics.update(features[rows[start : start + _ROWS]])
        release(features)
    return statistics
