from __future__ import annotations

import numpy as np
import pytest

from evaluation.metrics.classifier_confidence import class_confidence, mode_coverage


def test_mode_coverage_of_equal_shares_has_no_divergence() -> None:
    assert mode_coverage(np.repeat(np.arange(1000), 26), 1000) == (1000, 0.0)


def test_mode_coverage_of_one_mode_is_the_logarithm_of_all() -> None:
    assert mode_coverage(np.full(50, 999), 1000) == (1, pytest.approx(np.log(1000)))


def test_mode_coverage_is_the_divergence_from_equal_shares() -> None:
    found = mode_coverage(np.repeat([0, 2, 3], [5, 3, 2]), 4)
    expected = 0.5 * np.log(0.5 / 0.25) + 0.3 * np.log(0.3 / 0.25) + 0.2 * np.log(0.2 / 0.25)
    assert found == (3, pytest.approx(expected))


def test_mode_coverage_of_perfect_draws_has_the_bias_of_n() -> None:
    modes = np.random.default_rng(0).integers(0, 1000, 26_000)
    count, divergence = mode_coverage(modes, 1000)
    assert count == 1000
    # 2N KL is nearly chi-squared with 999 degrees of freedom, whose relative standard deviation is 4.5 %.
    assert divergence == pytest.approx(999 / 52_000, rel=0.15)


@pytest.mark.parametrize("modes", [[], [-1], [3, 4]])
def test_mode_coverage_of_no_or_unknown_modes_fails(modes: list[int]) -> None:
    with pytest.raises(ValueError, match="one or more of 0 to 3"):
        mode_coverage(np.array(modes, np.int64), 4)


def test_class_confidence_is_the_largest_probability() -> None:
    logits = np.log(np.array([[0.95, 0.05], [0.6, 0.4], [0.2, 0.8]], np.float32)) + 1000
    assert class_confidence(logits) == pytest.approx([0.95, 0.6, 0.8], abs=1e-4)
