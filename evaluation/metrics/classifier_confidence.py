"""How confident a classifier is of images, and which classes it sees."""

from __future__ import annotations

import numpy as np


def classifier_confidence(logits: np.ndarray, threshold: float) -> tuple[float, np.ndarray]:
    """Return the share of images whose most likely class has a probability of at least `threshold`.

    Probabilities are the softmax of the logits in float64.

    Args:
        logits: float [N, classes], N ≥ 1.
        threshold: Probability, 0 to 1.

    Returns:
        The share, 0 to 1, and the share of images of each class, float64 [classes]. An image counts for its most
        likely class, whatever its probability.

    Raises:
        ValueError: If there are no images or the shape is different.
    """
    if logits.ndim != 2 or not len(logits):
        raise ValueError(f"logits must be [N, classes] with N of 1 or more, not {list(logits.shape)}")
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    # The most likely class has shifted logit 0, hence probability 1 / Σ exp.
    most_likely = 1.0 / np.exp(shifted).sum(axis=1)
    counts = np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])
    return float((most_likely >= threshold).mean()), counts / len(logits)
