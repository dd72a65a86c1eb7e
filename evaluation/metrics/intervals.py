"""An interval for a figure from independent repetitions of it.

Repetitions are disjoint ranges of seeds, N fresh images each. Resampling one set with replacement is no substitute: a
copy adds no spread, so a Fréchet distance of resampled images is biased upwards, by about its own size at
small N, and the interval misses the figure itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

REPETITIONS = 5


class Interval(NamedTuple):
    """Mean and the two ends."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent `values`, two or more: mean ± t · s / √k.

    It tells what other seeds would have given at the same N. The bias of N and the choice of reference images are
    in every repetition alike, and not in the interval. Raises ValueError for fewer than 2 values.
    """
    from scipy.special import stdtrit

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all() or not 0 < level < 1:
        raise ValueError(f"an interval needs 2 finite values or more, not {list(values)}")
    half = float(stdtrit(len(array) - 1, (1 + level) / 2) * array.std(ddof=1) / np.sqrt(len(array)))
    mean = float(array.mean())
    return Interval(mean, mean - half, mean + half)
