"""Precision, recall, density and coverage of two sets of features, by balls about each to its k-th neighbour.

Equal distances decide these figures where features are quantized or images are copies, so distances that differ by no
more than their rounding count as equal.

Precision and recall: Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. 1 and 2, whose balls are closed (≤), as in
torch-fidelity. Density and coverage: Naeem et al. 2020, arXiv:2002.09797, section 3, whose balls are open (<)
in the authors' `prdc`. The two differ where distances are equal: copies, above all.
"""

from __future__ import annotations

import numpy as np

from evaluation.metrics.neighbors import (
    blocks,
    check_features,
    mean_of,
    neighbour_distances,
    rounding,
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
    """{"precision", "recall", "density", "coverage"} of `fake` float [N, d] against `real` float [M, d].

    precision: share of fakes within a real's ball. recall: share of reals within a fake's ball. density: how many
    real balls hold a fake, over k, on average (may exceed 1). coverage: share of reals whose ball holds a fake.
    Computed in float64 and in blocks: three passes over pairs, O(N + M) memory besides the blocks. Raises
    ValueError when there are no more rows than k, shapes do not fit or features are not finite.
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
    real_near = neighbour_distances(real, k, center)
    fake_near = neighbour_distances(fake, precision_recall_k, center)
    real_radius, fake_radius = real_near[:, precision_recall_k - 1], fake_near[:, precision_recall_k - 1]
    real_ball = real_near[:, density_coverage_k - 1]

    precise = np.zeros(len(fake), dtype=bool)
    recalled = np.zeros(len(real), dtype=bool)
    holding = np.zeros(len(fake), dtype=np.int64)
    covered = np.zeros(len(real), dtype=bool)
    for reals, x, x_norms in blocks(real, center):
        # A closed ball takes what is on its surface, an open one leaves it out, both up to rounding.
        closed = real_radius[reals] + rounding(x_norms, real_radius[reals], x.shape[1])
        opened = real_ball[reals] - rounding(x_norms, real_ball[reals], x.shape[1])
        for fakes, y, y_norms in blocks(fake, center):
            distances = squared_distances(x, x_norms, y, y_norms)  # [reals, fakes]
            precise[fakes] |= (distances <= closed[:, None]).any(axis=0)
            reach = fake_radius[fakes] + rounding(y_norms, fake_radius[fakes], y.shape[1])
            recalled[reals] |= (distances <= reach).any(axis=1)
            inside = distances < opened[:, None]
            holding[fakes] += inside.sum(axis=0)
            covered[reals] |= inside.any(axis=1)
    return {
        "precision": float(precise.mean()),
        "recall": float(recalled.mean()),
        "density": float(holding.mean() / density_coverage_k),
        "coverage": float(covered.mean()),
    }
