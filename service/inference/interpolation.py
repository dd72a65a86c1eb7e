"""Paths between latents and weighted sums of them, in float64: the same numbers on every machine."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from artifacts.latents import ZDistribution

Mode = Literal["slerp", "lerp"]
Easing = Literal["linear", "ease_in", "ease_out", "ease_in_out"]
Floats = NDArray[np.float64]
Latents = NDArray[np.float32]

_PARALLEL = 1e-6  # sine of the angle below which slerp's denominator vanishes


def lerp(a: NDArray[np.floating], b: NDArray[np.floating], t: Floats) -> Floats:
    """Return (1 − t)·a + t·b for a, b [z_dim] and t [T] in [0, 1]: [T, z_dim]."""
    t = t[:, None]
    result: Floats = (1.0 - t) * a.astype(np.float64) + t * b.astype(np.float64)
    return result


def slerp(a: NDArray[np.floating], b: NDArray[np.floating], t: Floats) -> Floats:
    """Return the spherical interpolation of a, b [z_dim] at t [T] in [0, 1]: [T, z_dim].

    sin((1−t)ω)/sin ω · a + sin(tω)/sin ω · b, where ω is the angle between a and b (Shoemake 1985; White 2016,
    arXiv:1609.04468). Vectors of equal norm keep it. A zero vector has no angle and (anti)parallel ones no plane:
    those are interpolated linearly.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    length_x, length_y = np.linalg.norm(x), np.linalg.norm(y)
    if length_x == 0 or length_y == 0:
        return lerp(x, y, t)
    unit_x, unit_y = x / length_x, y / length_y
    # arctan2 of the half-angle's sides is exact near 0 and π, where arccos of the dot product is not.
    omega = 2.0 * np.arctan2(np.linalg.norm(unit_x - unit_y), np.linalg.norm(unit_x + unit_y))
    sine = np.sin(omega)
    if sine < _PARALLEL:
        return lerp(x, y, t)
    t = t[:, None]
    result: Floats = (np.sin((1.0 - t) * omega) * x + np.sin(t * omega) * y) / sine
    return result


def ease(t: Floats, easing: Easing) -> Floats:
    """Map t in [0, 1] to [0, 1], increasing, with 0 and 1 fixed; `ease_in_out` is the smoothstep 3t² − 2t³."""
    curves = {"linear": t, "ease_in": t * t, "ease_out": t * (2.0 - t), "ease_in_out": t * t * (3.0 - 2.0 * t)}
    return curves[easing]


def frame_count(keyframes: int, steps: int, loop: bool) -> int:
    """Return the number of frames of `interpolate`: K keyframes have K − 1 segments, or K with a loop."""
    return keyframes * (steps - 1) if loop else (keyframes - 1) * (steps - 1) + 1


def interpolate(
    keyframes: Latents, steps: int, mode: Mode = "slerp", easing: Easing = "linear", loop: bool = False
) -> tuple[Latents, NDArray[np.int64]]:
    """Return latents along keyframes, which are met exactly.

    Args:
        keyframes: float32 [K, z_dim], K ≥ 2.
        steps: Frames per segment, at least 2, including both its keyframes as in numpy's linspace. A keyframe that two
            segments share appears once, so F = (K−1)(steps−1) + 1.
        mode: Interpolation between two keyframes.
        easing: Motion between two keyframes.
        loop: Add a last segment back to the first keyframe, which is not repeated: F = K(steps−1).

    Returns:
        Latents float32 [F, z_dim], and the index of the keyframe nearest to each, int64 [F].
    """
    count = len(keyframes)
    between = slerp if mode == "slerp" else lerp
    t = ease(np.arange(steps - 1, dtype=np.float64) / (steps - 1), easing)
    frames, nearest = [], []
    for start in range(count if loop else count - 1):
        end = (start + 1) % count
        segment = between(keyframes[start], keyframes[end], t).astype(np.float32)
        segment[0] = keyframes[start]
        frames.append(segment)
        nearest.append(np.where(t < 0.5, start, end))
    if not loop:
        frames.append(keyframes[-1:].astype(np.float32))
        nearest.append(np.array([count - 1]))
    return np.concatenate(frames), np.concatenate(nearest).astype(np.int64)


def weighted_sum(latents: Latents, weights: Sequence[float], distribution: ZDistribution, normalize: bool) -> Latents:
    """Return Σ wᵢzᵢ: vector arithmetic (Radford et al. 2015, section 6.3.2).

    Args:
        latents: float32 [T, z_dim].
        weights: T weights.
        distribution: Distribution of the latents.
        normalize: Rescale the sum to the distribution of a single latent, however many terms there are. Normal: to the
            norm sqrt(Σ wᵢ²‖zᵢ‖² / Σ wᵢ²), which on average divides independent terms by sqrt(Σ wᵢ²), and gives exactly
            z for one term z of any positive weight and for equal terms. Uniform: Σ wᵢzᵢ / Σ |wᵢ|, within [−1, 1].

    Returns:
        float32 [z_dim], computed in float64.

    Raises:
        ValueError: If a sum to be normalized cancels, or has weights that are all 0.
    """
    z, w = latents.astype(np.float64), np.asarray(weights, np.float64)
    if not normalize:
        total: Floats = w @ z
        return total.astype(np.float32)
    if not w.any():
        raise ValueError("the weights are all 0")
    w = w / np.abs(w).max()  # only their proportions matter; the square of 1e-200 would be 0
    total, norms = w @ z, np.linalg.norm(z, axis=1)
    length, target = np.linalg.norm(total), np.linalg.norm(w * norms) / np.linalg.norm(w)
    if length <= 1e-9 * (np.abs(w) @ norms):  # a sum that cancels up to rounding has no direction
        if target > 0:
            raise ValueError("the terms cancel, so their sum has no direction")
        return np.zeros_like(latents[0])
    total = total / np.abs(w).sum() if distribution == "uniform" else total * (target / length)
    return total.astype(np.float32)
