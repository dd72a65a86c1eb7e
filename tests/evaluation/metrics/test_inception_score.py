"""The Inception score in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.metrics.inception_score import inception_score


def test_inception_score_identical_images_is_1() -> None:
    assert inception_score(np.zeros((40, 7))) == pytest.approx((1.0, 0.0))
    assert inception_score(np.tile([9.0, 1.0, -4.0], (40, 1))) == pytest.approx((1.0, 0.0))


def test_inception_score_confident_even_images_is_class_count() -> None:
    sure = np.tile(np.eye(5) * 2000, (8, 1))  # so sure that the other probabilities underflow to 0
    assert inception_score(sure, splits=4, seed=None) == pytest.approx((5.0, 0.0), rel=1e-12)


def test_inception_score_split_uses_its_own_images() -> None:
    """In order of classes every split holds one class, and scores 1: why the rows are shuffled first."""
    by_class = np.repeat(np.eye(5) * 50, 200, axis=0)
    assert inception_score(by_class, splits=5, seed=None).mean == pytest.approx(1.0)
    assert inception_score(by_class, splits=5).mean > 4.9
    with pytest.raises(ValueError, match="10 splits"):
        inception_score(np.zeros((9, 3)))
