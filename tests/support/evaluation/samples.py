"""Feature vectors to compare."""

from __future__ import annotations

import numpy as np


def normal(seed: int, n: int, d: int = 6, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, size=(n, d)).astype(np.float32)
