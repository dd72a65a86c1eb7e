"""Confidence interval of a score from independent repetitions.

Repetitions are disjoint ranges of seeds, N new images each. Resampling one set with replacement is no substitute: a
copy adds no spread, so a Fréchet distance of resampled images is biased upwards, by about its own size at small N.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

REPETITIONS = 5


class Interval(NamedTuple):
    """Mean and both ends of an interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return Student's t interval of the mean: mean ± t · s / √k.

    It says which mean other seeds would give at the same N. The bias of N and the choice of reference images are the
    same in every repetition, and therefore not in the interval.

    Args:
        values: The score of each repetition, k ≥ 2 finite numbers.
        level: Confidence level, between 0 and 1.

    Returns:
        The mean and the ends of the interval.

    Raises:
        ValueError: If there are fewer than 2 values, or one is not finite.
    """
    from scipy.special import stdtrit

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all() or not 0 < level < 1:
        raise ValueError(f"an interval needs 2 finite values or more, not {list(values)}")
    half = float(stdtrit(len(array) - 1, (1 + level) / 2) * array.std(ddof=1) / np.sqrt(len(array)))
    mean = float(array.mean())
    return Interval(mean, mean - half, mean + half)
