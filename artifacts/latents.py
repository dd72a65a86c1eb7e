"""Seed → latent and label: the one mapping that training samples, the service and reports share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

ZDistribution = Literal["normal", "uniform"]

NUM_SEEDS = 2**53  # seeds are below this, so that JSON numbers represent them exactly everywhere


def raw_draws(seeds: Sequence[int], count: int) -> NDArray[np.uint64]:
    """Return the first `count` words of Philox4x64-10 keyed by each seed.

    Args:
        seeds: N seeds in [0, 2^53).
        count: Words per seed.

    Returns:
        uint64 [N, count].

    Raises:
        ValueError: If a seed is out of range.
    """
    draws = np.empty((len(seeds), count), np.uint64)
    bits = np.random.Philox(key=0)  # one generator per seed would cost six times the drawing
    key, start = np.zeros(2, np.uint64), bits.state
    start["state"]["key"] = key
    for row, seed in zip(draws, seeds, strict=True):
        if not 0 <= seed < NUM_SEEDS:
            raise ValueError(f"a seed is an integer from 0 to 2^53 - 1, not {seed}")
        key[0] = seed
        bits.state = start
        row[:] = bits.random_raw(count)
    return draws


def seeds_to_latents(
    seeds: Sequence[int],
    z_dim: int,
    distribution: ZDistribution = "normal",
    truncation: float | None = None,
    num_classes: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Return the latents of seeds, and the labels that the seeds draw.

    With r the raw draws and u = ((r >> 12) + 1/2) / 2^52, strictly within (0, 1): normal z = Φ⁻¹(u), uniform
    z = 2u − 1, in float64 until the last cast. Truncation at t > 0 takes the same u through the normal distribution
    truncated to [−t, t]: z = Φ⁻¹(Φ(−t) + u·(Φ(t) − Φ(−t))).

    Args:
        seeds: N seeds in [0, 2^53).
        z_dim: Length of a latent.
        distribution: Distribution of the latents: N(0, 1) or U(−1, 1).
        truncation: Largest absolute value of a normal latent, or None.
        num_classes: Number of classes of a conditional generator, or 0.

    Returns:
        Latents float32 [N, z_dim]; labels int64 [N], the next raw draw modulo the classes, or None without classes.

    Raises:
        ValueError: If a seed is out of range, or uniform latents are to be truncated.
    """
    raw = raw_draws(seeds, z_dim + (num_classes > 0))
    u = ((raw[:, :z_dim] >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    if distribution == "uniform":
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


def seeds_to_labels(seeds: Sequence[int], z_dim: int, num_classes: int) -> NDArray[np.int64] | None:
    """Return the labels that seeds draw where none is given, int64 [N], or None without classes."""
    if not num_classes:
        return None
    return (raw_draws(seeds, z_dim + 1)[:, z_dim] % np.uint64(num_classes)).astype(np.int64)
