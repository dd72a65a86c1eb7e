"""Seed → latent: the draw that every part of the line makes alike, and any language can repeat.

Training draws its latents from torch's generator; this one is for images that have a seed: sample grids,
the check of an export. A grid's image of seed 7 is the image the service answers for seed 7.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from scipy.special import ndtri

ZDistribution = Literal["normal", "uniform"]
MAX_SEED = 2**53


def latent(seed: int, z_dim: int, distribution: ZDistribution = "normal") -> np.ndarray:
    """The latent of a seed, float32 [z_dim]: N(0, 1) or U(-1, 1).

    r = Philox4x64-10(key = seed), u = ((r >> 12) + 0.5) / 2^52 in (0, 1), z = Φ⁻¹(u) or 2u - 1, in float64 until
    the last cast. Raises ValueError for a seed outside [0, 2^53).
    """
    if not 0 <= seed < MAX_SEED:
        raise ValueError(f"a seed is an integer from 0 to 2^53 - 1, not {seed}")
    raw = np.random.Philox(key=seed).random_raw(z_dim)
    u = ((raw >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    z = ndtri(u) if distribution == "normal" else 2.0 * u - 1.0
    return z.astype(np.float32)


def label(seed: int, z_dim: int, classes: int) -> int:
    """The label of a seed when none is given: the raw draw after its latent's, modulo the classes."""
    return int(np.random.Philox(key=seed).random_raw(z_dim + 1)[-1] % np.uint64(classes))


def labels(seeds: Iterable[int], z_dim: int, classes: int) -> np.ndarray | None:
    """The labels of several seeds, int64 [N]; None for an unconditional generator."""
    return np.array([label(seed, z_dim, classes) for seed in seeds], dtype=np.int64) if classes else None


def latents(seeds: Iterable[int], z_dim: int, distribution: ZDistribution = "normal") -> np.ndarray:
    """The latents of several seeds, float32 [N, z_dim]."""
    return np.stack([latent(seed, z_dim, distribution) for seed in seeds])
