"""Inception score (Salimans et al. 2016, arXiv:1606.03498, section 4): exp E KL(p(y|x) ‖ p(y))."""

from __future__ import annotations

import numpy as np

from artifacts.arrays import drop_page_cache
from evaluation.metrics.kid import SEED, MeanStd

SPLITS = 10


def inception_score(logits: np.ndarray, *, splits: int = SPLITS, seed: int | None = SEED) -> MeanStd:
    """Return mean and standard deviation of the score over equal parts of the images.

    torch-fidelity's definition: images are in the order `RandomState(seed).permutation(N)`, part i starts at row
    i·N // splits, and the softmax is float64. The score never looks at real images: it measures how confident the
    network is of each image, and how evenly it sees its classes.

    Args:
        logits: float [N, classes], N ≥ `splits`.
        splits: Number of parts.
        seed: Seed of the order; None keeps the given order.

    Returns:
        The score, from 1 (images all alike, or the network never confident) to the number of classes, and its spread
        over the parts.

    Raises:
        ValueError: If there are too few rows, or a logit is not finite.
    """
    if logits.ndim != 2 or splits < 1 or len(logits) < splits:
        raise ValueError(f"the score over {splits} splits needs logits [N ≥ {splits}, classes], not {logits.shape}")
    n = len(logits)
    order = np.arange(n) if seed is None else np.random.RandomState(seed).permutation(n)
    scores = []
    for i in range(splits):
        part = logits[order[i * n // splits : (i + 1) * n // splits]].astype(np.float64)
        drop_page_cache(logits)
        if not np.isfinite(part).all():
            raise ValueError("logits are not finite")
        part -= part.max(axis=1, keepdims=True)
        log_p = part - np.log(np.exp(part).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        # Where p underflows to 0 the term is 0, though log p(y) may be -inf there.
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(p > 0, p * (log_p - np.log(p.mean(axis=0))), 0.0)
        scores.append(np.exp(terms.sum(axis=1).mean()))
    return MeanStd(float(np.mean(scores)), float(np.std(scores)))
