"""Seed → latent and label, as every room that makes images does it, and any language can."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

MAX_SEED = 2**53


def latents_of(
    first_seed: int,
    n: int,
    z_dim: int,
    z_distribution: str,
    num_classes: int = 0,
    truncation: float | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Latents float32 [n, z_dim] of seeds first_seed … first_seed+n-1, and labels int64 [n] or None.

    r = Philox4x64-10(key=seed), u = ((r >> 12) + 0.5) / 2^52; normal z = Φ⁻¹(u), uniform z = 2u - 1, in
    float64 until the last cast. Truncation at t > 0 takes the same u through the normal truncated to
    [-t, t]: z = Φ⁻¹(Φ(-t) + u·(Φ(t) - Φ(-t))). The label is the next raw draw modulo `num_classes`, when
    there are any. ValueError: truncation of uniform latents, or a seed out of range.
    """
    raw = _raw(first_seed, n, z_dim + 1)
    u = ((raw[:, :z_dim] >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    if z_distribution != "normal":
        if truncation is not None:
            raise ValueError("truncation is of the normal distribution; this model's latents are uniform")
        z = 2.0 * u - 1.0
    elif truncation is None:
        z = ndtri(u)
    else:
        low = ndtr(-truncation)
        z = ndtri(low + u * (ndtr(truncation) - low))
    labels = (raw[:, z_dim] % np.uint64(num_classes)).astype(np.int64) if num_classes else None
    return z.astype(np.float32), labels


def drawn_labels(first_seed: int, n: int, z_dim: int, num_classes: int) -> np.ndarray:
    """The labels that seeds draw by themselves, int64 [n]: those that a service gives images without a label."""
    return (_raw(first_seed, n, z_dim + 1)[:, z_dim] % np.uint64(num_classes)).astype(np.int64)


def _raw(first_seed: int, n: int, words: int) -> np.ndarray:
    if not 0 <= first_seed <= MAX_SEED - n:
        raise ValueError(f"seeds lie in 0 … 2^53 - 1, not at {first_seed} and the {n} from it")
    draws = np.empty((n, words), np.uint64)
    for row, seed in zip(draws, range(first_seed, first_seed + n), strict=True):
        row[:] = np.random.Philox(key=seed).random_raw(words)
    return draws
