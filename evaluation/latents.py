"""Seed → latent, as every room that makes images does it, and any language can."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

MAX_SEED = 2**53


def latents_of(
    first_seed: int, n: int, z_dim: int, z_distribution: str, num_classes: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """Latents float32 [n, z_dim] of seeds first_seed … first_seed+n-1, and labels int64 [n] or None.

    r = Philox4x64-10(key=seed), u = ((r >> 12) + 0.5) / 2^52; normal z = Φ⁻¹(u), uniform z = 2u - 1, in
    float64 until the last cast. The label is the next raw draw modulo `num_classes`, when there are any.
    """
    if not 0 <= first_seed <= MAX_SEED - n:
        raise ValueError(f"seeds lie in 0 … 2^53 - 1, not at {first_seed} and the {n} from it")
    raw = np.stack([np.random.Philox(key=seed).random_raw(z_dim + 1) for seed in range(first_seed, first_seed + n)])
    u = ((raw[:, :z_dim] >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    z = ndtri(u) if z_distribution == "normal" else 2.0 * u - 1.0
    labels = (raw[:, z_dim] % np.uint64(num_classes)).astype(np.int64) if num_classes else None
    return z.astype(np.float32), labels
