"""Paths between latents and weighted sums of them, in float64: the same numbers on every machine."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from artifacts.latents import ZDistribution

Mode = Literal["slerp", "lerp"]
Easing = Literal["linear", "ease_in", "ease_out", "ease_in_out"]

_PARALLEL = 1e-6  # sin of the angle below which slerp's formula divides by nothing


def lerp(a: NDArray, b: NDArray, t: NDArray) -> NDArray[np.float64]:
    """(1 − t)·a + t·b for a, b [z_dim] and t [T] in [0, 1]: float64 [T, z_dim]."""
    t = t[:, None]
    return (1.0 - t) * a.astype(np.float64) + t * b.astype(np.float64)


def slerp(a: NDArray, b: NDArray, t: NDArray) -> NDArray[np.float64]:
    """Spherical interpolation of a, b [z_dim] at t [T] in [0, 1]: float64 [T, z_dim].

    sin((1−t)ω)/sin ω · a + sin(tω)/sin ω · b, ω the angle between a and b (Shoemake 1985; White 2016,
    arXiv:1609.04468). Vectors of one norm stay on its sphere. A zero vector has no angle and
    (anti)parallel ones no plane: those are interpolated linearly.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    length_x, length_y = np.linalg.norm(x), np.linalg.norm(y)
    if length_x == 0 or length_y == 0:
        return lerp(x, y, t)
    unit_x, unit_y = x / length_x, y / length_y
    # arctan2 of the half-angle's sides is exact near 0 and π, where arccos of the dot product is not
    omega = 2.0 * np.arctan2(np.linalg.norm(unit_x - unit_y), np.linalg.norm(unit_x + unit_y))
    sine = np.sin(omega)
    if sine < _PARALLEL:
        return lerp(x, y, t)
    t = t[:, None]
    return (np.sin((1.0 - t) * omega) * x + np.sin(t * omega) * y) / sine


def ease(t: NDArray[np.float64], easing: Easing) -> NDArray[np.float64]:
    """t in [0, 1] to [0, 1], increasing, 0 and 1 fixed; `ease_in_out` is the smoothstep 3t² − 2t³."""
    match easing:
        case "linear":
            return t
        case "ease_in":
            return t * t
        case "ease_out":
            return t * (2.0 - t)
        case "ease_in_out":
            return t * t * (3.0 - 2.0 * t)


def frame_count(keyframes: int, steps: int, loop: bool) -> int:
    """Return the number of frames of `interpolate`: K keyframes have K − 1 segments, or K with a loop."""
    return keyframes * (steps - 1) if loop else (keyframes - 1) * (steps - 1) + 1


def interpolate(
    keyframes: NDArray[np.float32],
    steps: int,
    mode: Mode = "slerp",
    easing: Easing = "linear",
    loop: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Latents along keyframes [K ≥ 2, z_dim]: float32 [F, z_dim], and the index of each's nearest, int64 [F].

    `steps` ≥ 2 is the number of frames of a segment, both its keyframes counted (numpy's linspace); a
    keyframe that two segments share appears once, so F = (K−1)(steps−1) + 1. With `loop` a last segment
    returns to the first keyframe, which is not repeated: F = K(steps−1). Keyframes are met exactly.
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


def weighted_sum(
    latents: NDArray[np.float32], weights: Sequence[float], distribution: ZDistribution, normalize: bool
) -> NDArray[np.float32]:
    """Σ wᵢzᵢ of latents [T, z_dim], in float64, as float32 [z_dim]: vector arithmetic (Radford 2015, §6.3.2).

    With `normalize` the sum is again like a latent, however many terms there are. Normal: it gets the norm
    sqrt(Σ wᵢ²‖zᵢ‖² / Σ wᵢ²), which for independent terms is dividing by sqrt(Σ wᵢ²) on average, and which gives
    exactly z for one term z of any positive weight and for the same z many times. Uniform: Σ wᵢzᵢ / Σ |wᵢ|, which
    stays within [−1, 1]. ValueError: normalising a sum that cancels to nothing, of either
    distribution, or whose weights are all 0.
    """
    z, w = latents.astype(np.float64), np.asarray(weights, np.float64)
    if not normalize:
        return (w @ z).astype(np.float32)
    if not w.any():
        raise ValueError("the weights are all 0")
    w = w / np.abs(w).max()  # their proportions alone matter; the square of 1e-200 would be 0
    total, norms = w @ z, np.linalg.norm(z, axis=1)
    length, wanted = np.linalg.norm(total), np.linalg.norm(w * norms) / np.linalg.norm(w)
    if length <= 1e-9 * (np.abs(w) @ norms):  # what rounding leaves of terms that cancel has no direction
        if wanted > 0:
            raise ValueError("the terms cancel, so that their sum has no direction")
        return np.zeros_like(latents[0])
    if distribution == "uniform":
        return (total / np.abs(w).sum()).astype(np.float32)
    return (total * (wanted / length)).astype(np.float32)
