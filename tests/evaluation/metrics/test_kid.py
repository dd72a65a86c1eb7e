"""KID in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.metrics.kid import kid, mmd2
from tests.support.evaluation.samples import normal


def test_mmd2_of_one_distribution_has_mean_zero() -> None:
    """Over many pairs of sets of one distribution its mean is 0, which the biased estimator's is not."""
    estimates = [mmd2(*normal(seed, 40).astype(float).reshape(2, 20, 6)) for seed in range(400)]
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 3 * error
    assert min(estimates) < 0
    biased = 2 * np.mean([((x @ x.T / 6 + 1) ** 3).trace() / 20**2 for x in [normal(1, 20)]])
    assert biased > 20 * error


def test_kid_two_points_equals_hand_computation() -> None:
    """k(x, y) = (xy + 1)³ of {0, 1} and {1, 1}: within 1 and 8, between (1 + 1 + 8 + 8) / 4."""
    assert mmd2(np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]])) == pytest.approx(1 + 8 - 2 * 4.5)
    two = kid(np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]]), subsets=3, subset_size=2)
    assert two == pytest.approx((0.0, 0.0))


def test_kid_fewer_images_than_a_subset_fails() -> None:
    with pytest.raises(ValueError, match="subsets of 1000 images needs as many on either side; there are 30 and 2000"):
        kid(normal(0, 30), normal(1, 2000))
    with pytest.raises(ValueError, match="not finite"):
        kid(np.full((5, 2), np.nan), np.zeros((5, 2)), subset_size=5)
