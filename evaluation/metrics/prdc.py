"""Precision, recall, density and coverage of two sets of features.

Each image has a ball, whose radius is the distance to its k-th nearest neighbor in its own set. Precision and recall
(Kynkäänniemi et al. 2019, arXiv:1904.06991, equations 1 and 2) use closed balls (≤), as torch-fidelity does. Density
and coverage (Naeem et al. 2020, arXiv:2002.09797, section 3) use open balls (<), as the authors' `prdc` does. The two
differ where distances are equal, above all for copies. Distances that differ by no more than their rounding count as
equal.
"""

from __future__ import annotations

import numpy as np

from evaluation.metrics.neighbors import (
    blocks,
    check_features,
    mean_of,
    neighbor_distances,
    rounding_bound,
    squared_distances,
)

PRECISION_RECALL_K = 3  # Kynkäänniemi et al.'s and torch-fidelity's
DENSITY_COVERAGE_K = 5  # Naeem et al.'s


def precision_recall_density_coverage(
    fake: np.ndarray,
    real: np.ndarray,
    *,
    precision_recall_k: int = PRECISION_RECALL_K,
    density_coverage_k: int = DENSITY_COVERAGE_K,
) -> dict[str, float]:
    """Return the four scores of generated images against real ones.

    Computed in float64 and in blocks: three passes over the pairs, O(N + M) memory in addition to the blocks.

    Args:
        fake: Features of generated images, float [N, d].
        real: Features of real images, float [M, d].
        precision_recall_k: Neighbor that gives the radius for precision and recall.
        density_coverage_k: Neighbor that gives the radius for density and coverage.

    Returns:
        `precision`: share of fakes within a real image's ball, 0 to 1.
        `recall`: share of reals within a fake's ball, 0 to 1.
        `density`: number of real balls that contain a fake, divided by k, on average; may exceed 1.
        `coverage`: share of reals whose ball contains a fake, 0 to 1.

    Raises:
        ValueError: If a set has no more than k images, shapes differ or a feature is not finite.
    """
    check_features(real)
    check_features(fake, real.shape[1])
    k = max(precision_recall_k, density_coverage_k)
    if min(precision_recall_k, density_coverage_k) < 1 or min(len(fake), len(real)) <= k:
        raise ValueError(
            f"precision, recall, density and coverage with k={k} need {k + 1} images or more on either side; "
            f"there are {len(fake)} and {len(real)}"
        )
    # One center for all passes, so that the rounding of every distance is known from the norms about it.
    center = mean_of(real)
    real_neighbors = neighbor_distances(real, k, center)
    fake_neighbors = neighbor_distances(fake, precision_recall_k, center)
    real_radius, fake_radius = real_neighbors[:, precision_recall_k - 1], fake_neighbors[:, precision_recall_k - 1]
    real_open_radius = real_neighbors[:, density_coverage_k - 1]

    is_precise = np.zeros(len(fake), dtype=bool)
    is_recalled = np.zeros(len(real), dtype=bool)
    num_containing = np.zeros(len(fake), dtype=np.int64)
    is_covered = np.zeros(len(real), dtype=bool)
    for reals, x, x_norms in blocks(real, center):
        # A closed ball includes its surface and an open one does not, both up to rounding.
        closed = real_radius[reals] + rounding_bound(x_norms, real_radius[reals], x.shape[1])
        open_ = real_open_radius[reals] - rounding_bound(x_norms, real_open_radius[reals], x.shape[1])
        for fakes, y, y_norms in blocks(fake, center):
            distances = squared_distances(x, x_norms, y, y_norms)  # [reals, fakes]
            is_precise[fakes] |= (distances <= closed[:, None]).any(axis=0)
            reach = fake_radius[fakes] + rounding_bound(y_norms, fake_radius[fakes], y.shape[1])
            is_recalled[reals] |= (distances <= reach).any(axis=1)
            inside = distances < open_[:, None]
            num_containing[fakes] += inside.sum(axis=0)
            is_covered[reals] |= inside.any(axis=1)
    return {
        "precision": float(is_precise.mean()),
        "recall": float(is_recalled.mean()),
        "density": float(num_containing.mean() / density_coverage_k),
        "coverage": float(is_covered.mean()),
    }
