"""Intervals of repeated scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.metrics.frechet import frechet_distance
from evaluation.metrics.intervals import interval


def test_interval_five_values_is_students_t() -> None:
    """t(0.975, 4) = 2.776445105; s of 1..5 is √2.5."""
    got = interval([1, 2, 3, 4, 5])
    half = 2.7764451051977987 * math.sqrt(2.5 / 5)
    assert got == pytest.approx((3, 3 - half, 3 + half), rel=1e-9)
    with pytest.raises(ValueError, match="2 finite values"):
        interval([1.0])


@pytest.mark.slow
def test_interval_of_disjoint_ranges_contains_the_expectation() -> None:
    """Of fresh sets the interval holds the expected figure about as often as it says; resampled ones are biased."""
    d, n, origin = 40, 300, (np.zeros(40), np.eye(40))

    def distance(rows: np.ndarray) -> float:
        return frechet_distance(rows.mean(0), np.cov(rows.T), *origin)

    random = np.random.default_rng(0)
    expected = np.mean([distance(random.normal(size=(n, d))) for _ in range(100)])
    intervals = [interval([distance(random.normal(size=(n, d))) for _ in range(5)]) for _ in range(60)]
    holding = sum(one.low <= expected <= one.high for one in intervals)
    assert holding >= 52  # of 60 at 95%: fewer has a probability below 1%
    rows = random.normal(size=(n, d))
    resampled = interval([distance(rows[random.integers(0, n, n)]) for _ in range(5)])
    assert resampled.low > 1.5 * expected
