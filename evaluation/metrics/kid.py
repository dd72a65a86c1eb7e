"""Kernel inception distance (Bińkowski et al. 2018, arXiv:1801.01401, section 4).

The squared maximum mean discrepancy under k(x, y) = (x·y / d + 1)³ by its unbiased estimator (Gretton et al. 2012,
equation 3). Its expectation does not depend on N. It is about as often slightly negative as positive for two samples
of one distribution.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from artifacts.arrays import drop_page_cache

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020


class MeanStd(NamedTuple):
    """Mean and standard deviation (divided by their number) over subsets or splits."""

    mean: float
    std: float


def kid(
    fake: np.ndarray, real: np.ndarray, *, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = SEED
) -> MeanStd:
    """Return mean and standard deviation of the squared MMD over pairs of random subsets.

    Each subset is drawn without replacement. For one seed the subsets are torch-fidelity's (`RandomState(seed)`, the
    fakes' first), so that the value equals its value. Computed in float64.

    Args:
        fake: Features of generated images, float [N, d], N ≥ `subset_size`.
        real: Features of real images, float [M, d], M ≥ `subset_size`.
        subsets: Number of pairs.
        subset_size: Images per subset, 2 or more.
        seed: Seed of the subsets.

    Returns:
        The mean, and the standard deviation of one subset's estimate, which is not an interval of the mean.

    Raises:
        ValueError: If there are too few images, shapes differ, or a feature is not finite.
    """
    if fake.ndim != 2 or real.ndim != 2 or fake.shape[1] != real.shape[1]:
        raise ValueError(f"features must be [N, d] and [M, d], not {list(fake.shape)} and {list(real.shape)}")
    if subset_size < 2 or subsets < 1:
        raise ValueError(f"a kernel distance needs subsets of 2 images or more, not {subsets} of {subset_size}")
    if min(len(fake), len(real)) < subset_size:
        raise ValueError(
            f"a kernel distance over subsets of {subset_size} images needs as many on either side; there are "
            f"{len(fake)} and {len(real)}: take more images or a smaller subset size"
        )
    random = np.random.RandomState(seed)
    estimates = []
    for _ in range(subsets):
        chosen = [features[random.choice(len(features), subset_size, replace=False)] for features in (fake, real)]
        for features in (fake, real):
            drop_page_cache(features)
        estimates.append(mmd2(*(rows.astype(np.float64) for rows in chosen)))
    if not np.isfinite(estimates).all():
        raise ValueError("features are not finite")
    return MeanStd(float(np.mean(estimates)), float(np.std(estimates)))


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased squared MMD of float64 [m, d] and [n, d], m and n ≥ 2, under the cubic kernel."""
    m, n, d = len(x), len(y), x.shape[1]

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        values: np.ndarray = a @ b.T
        values /= d
        values += 1.0
        cubes: np.ndarray = values * values * values
        return cubes

    k_xx, k_yy = kernel(x, x), kernel(y, y)
    within = (k_xx.sum() - np.trace(k_xx)) / (m * (m - 1)) + (k_yy.sum() - np.trace(k_yy)) / (n * (n - 1))
    return float(within - 2.0 * kernel(x, y).mean())
