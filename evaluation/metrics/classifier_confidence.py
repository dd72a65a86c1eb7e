"""What a classifier makes of images: how sure it is, and which classes it sees."""

from __future__ import annotations

import numpy as np


def certainty(logits: np.ndarray, sure: float) -> tuple[float, np.ndarray]:
    """Share of images whose most likely class has probability ≥ `sure`, and each class's share [classes].

    `logits` float [N, classes], N ≥ 1. Probabilities are softmax in float64; an image counts for its most
    likely class, sure or not.
    """
    if logits.ndim != 2 or not len(logits):
        raise ValueError(f"logits must be [N, classes] with N of 1 or more, not {list(logits.shape)}")
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    # The most likely class has shifted logit 0, hence probability 1 / Σ exp.
    most_likely = 1.0 / np.exp(shifted).sum(axis=1)
    counts = np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])
    return float((most_likely >= sure).mean()), counts / len(logits)
