"""How confident a classifier is of images, which classes it sees, and how many modes images cover."""

from __future__ import annotations

import numpy as np


def classifier_confidence(logits: np.ndarray, threshold: float) -> tuple[float, np.ndarray]:
    """Return the share of images whose most likely class has a probability of at least `threshold`.

    Args:
        logits: float [N, classes], N ≥ 1.
        threshold: Probability, 0 to 1.

    Returns:
        The share, 0 to 1, and the share of images of each class, float64 [classes]. An image counts for its most
        likely class, whatever its probability.

    Raises:
        ValueError: If there are no images or the shape is different.
    """
    confidence = class_confidence(logits)
    counts = np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])
    return float((confidence >= threshold).mean()), counts / len(logits)


def class_confidence(logits: np.ndarray) -> np.ndarray:
    """Return the probability of each image's most likely class, float64 [N]: a softmax in float64.

    Args:
        logits: float [N, classes], N ≥ 1.

    Raises:
        ValueError: If there are no images or the shape is different.
    """
    if logits.ndim != 2 or not len(logits):
        raise ValueError(f"logits must be [N, classes] with N of 1 or more, not {list(logits.shape)}")
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    # The most likely class has shifted logit 0, hence probability 1 / Σ exp.
    return np.asarray(1.0 / np.exp(shifted).sum(axis=1))


def mode_coverage(modes: np.ndarray, num_modes: int) -> tuple[int, float]:
    """Return how many of K equally likely modes images cover, and how unevenly (Metz et al. 2017).

    The divergence is KL(p ‖ uniform) = Σ pₖ ln(K pₖ) in nats, where pₖ is the share of images in mode k. It is 0 if all
    modes have as many images, and ln K if one mode has all. N perfect draws have about (K - 1) / 2N, so never compare
    values of different N.

    Args:
        modes: Mode of each image, int [N] in 0 … K-1, N ≥ 1.
        num_modes: K.

    Returns:
        The number of modes with at least one image, and the divergence.

    Raises:
        ValueError: If there are no images, or a mode is out of range.
    """
    if not len(modes) or modes.min() < 0 or modes.max() >= num_modes:
        raise ValueError(f"modes must be one or more of 0 to {num_modes - 1}")
    counts = np.bincount(modes)
    shares = counts[counts > 0] / len(modes)
    return len(shares), max(0.0, float((shares * np.log(num_modes * shares)).sum()))
