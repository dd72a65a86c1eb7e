"""FID extrapolated to infinitely many images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evaluation.metrics.fid_infinity import fid_infinity
from evaluation.metrics.frechet import frechet_distance
from tests.support.evaluation.samples import normal


def test_fid_infinity_removes_the_bias_of_n() -> None:
    """Of one Gaussian against itself the distance is 0; at N images it is above, about as 1/N."""
    found = fid_infinity(normal(0, 6000, d=30), np.zeros(30), np.eye(30))
    assert found.ns[0] == 600
    assert found.ns[-1] == 6000
    assert len(found.ns) == 15
    assert found.values[0] > 5 * found.values[-1] > 0
    assert abs(found.value) < found.values[-1] / 5


def test_fid_infinity_last_point_is_whole_set_seed_fixes_rest() -> None:
    rows = normal(0, 400)
    found = fid_infinity(rows, np.zeros(6), np.eye(6), seed=3)
    whole = frechet_distance(rows.mean(0, dtype=float), np.cov(rows.T.astype(float)), np.zeros(6), np.eye(6))
    assert found.values[-1] == pytest.approx(whole, rel=1e-9)
    assert fid_infinity(rows, np.zeros(6), np.eye(6), seed=3) == found
    assert fid_infinity(rows, np.zeros(6), np.eye(6), seed=4).values != found.values
    with pytest.raises(ValueError, match="27 images or more for 6 features, not 26"):
        fid_infinity(rows[:26], np.zeros(6), np.eye(6))


@pytest.mark.slow
@pytest.mark.parametrize("n", [320, 640, 2000])
def test_fid_infinity_of_one_distribution_is_not_negative(n: int) -> None:
    """Against 1,000 images of the same Gaussian, whose own bias is left in."""
    for seed in range(4):
        reference = normal(100 + seed, 1000, d=64).astype(float)
        found = fid_infinity(normal(seed, n, d=64), reference.mean(0), np.cov(reference.T))
        assert found.value > 0
        assert found.ns[0] == max(n // 10, 4 * 64)


def test_fid_infinity_few_images_per_feature_fails() -> None:
    with pytest.raises(ValueError, match="needs 288 images or more for 64 features, not 130"):
        fid_infinity(normal(0, 130, d=64), np.zeros(64), np.eye(64))


def test_fid_infinity_standard_error_is_least_squares() -> None:
    found = fid_infinity(normal(0, 600), np.zeros(6), np.eye(6))
    line = stats.linregress(1 / np.array(found.ns), found.values)
    assert found.value == pytest.approx(line.intercept, rel=1e-9)
    assert found.standard_error == pytest.approx(line.intercept_stderr, rel=1e-9)
    assert fid_infinity(normal(0, 600), np.zeros(6), np.eye(6), points=2).standard_error is None
