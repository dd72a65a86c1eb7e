"""Policies that change colors: color, brightness and contrast.

Each takes images float [N, C, H, W] in [-1, 1] and random numbers on their device, draws for each image, and returns
images of the same shape. An alpha channel (the fourth) is kept. color is DiffAugment's (Zhao et al. 2020), the others
ADA's (Karras et al. 2020, appendix B).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from trainer.distributed.sharded_rng import ShardedRNG

BRIGHTNESS_STD = 0.2
CONTRAST_STD = 0.5  # of the binary logarithm of a factor

Policy = Callable[[Tensor, ShardedRNG], Tensor]


def keeps_alpha(policy: Policy) -> Policy:
    """Return a policy that is applied to the first three of four channels."""

    @wraps(policy)
    def apply(images: Tensor, rng: ShardedRNG) -> Tensor:
        if images.shape[1] != 4:
            return policy(images, rng)
        return torch.cat([policy(images[:, :3], rng), images[:, 3:]], dim=1)

    return apply


def uniform(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Draw from U(0, 1) per image: float [N, 1, 1, 1]."""
    return rng.rand(len(images), 1, 1, 1)


@keeps_alpha
def color(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Change brightness by ±0.5, saturation by U(0, 2) and contrast by U(0.5, 1.5).

    Saturation scales around each pixel's mean, contrast around each image's.
    """
    images = images + (uniform(images, rng) - 0.5)
    mean = images.mean(dim=1, keepdim=True)
    images = (images - mean) * (uniform(images, rng) * 2) + mean
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (uniform(images, rng) + 0.5) + mean


@keeps_alpha
def brightness(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Add N(0, 0.2²)."""
    return images + BRIGHTNESS_STD * rng.randn(len(images), 1, 1, 1)


@keeps_alpha
def contrast(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Multiply by 2^N(0, 0.5²)."""
    return images * torch.exp2(CONTRAST_STD * rng.randn(len(images), 1, 1, 1))
