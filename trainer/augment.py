"""DiffAugment: the same random, differentiable changes for reals and fakes, whenever D looks (Zhao et al. 2020).

With few real images D otherwise learns them by heart. Each function takes square images float [N, C, side, side] and
draws on their device, draws anew for every image, and returns images of the same shape.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from trainer.draws import Draws


def uniform(images: Tensor, rng: Draws) -> Tensor:
    """U(0, 1), one an image: float [N, 1, 1, 1]."""
    return rng.rand(len(images), 1, 1, 1)


def color(images: Tensor, rng: Draws) -> Tensor:
    """Brightness ±0.5, saturation times U(0, 2) about a pixel's mean, contrast times U(0.5, 1.5) about an image's."""
    images = images + (uniform(images, rng) - 0.5)
    mean = images.mean(dim=1, keepdim=True)
    images = (images - mean) * (uniform(images, rng) * 2) + mean
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (uniform(images, rng) + 0.5) + mean


def translation(images: Tensor, rng: Draws) -> Tensor:
    """Shift by up to an eighth of the side in each direction; what moves in from outside is zero."""
    n, side = len(images), images.shape[-1]
    reach = int(side / 8 + 0.5)
    shift = rng.randint(1 - reach, reach + 2, n, 2, 1)  # by 1 more: what is read is padded by one
    read = (torch.arange(side, device=images.device) + shift).clamp(0, side + 1)  # [N, rows and columns, side]
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))  # a border of zeros to point at
    pixels = padded.permute(0, 2, 3, 1)  # [N, side + 2, side + 2, C]
    image = torch.arange(n, device=images.device)[:, None, None]
    return pixels[image, read[:, 0, :, None], read[:, 1, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor, rng: Draws) -> Tensor:
    """Zero a square of half the side (rounded up), centred anywhere; what of it lies outside is lost."""
    n, side = len(images), images.shape[-1]
    size = (side + 1) // 2
    start = rng.randint(-(size // 2), side + 1 - size % 2 - size // 2, n, 2, 1)
    place = torch.arange(side, device=images.device) - start  # in the square, if from 0 to size - 1
    inside = place == place.clamp(0, size - 1)  # [N, rows and columns, side]
    return images.masked_fill(inside[:, :1, :, None] & inside[:, 1:, None, :], 0.0)


POLICIES = {"color": color, "translation": translation, "cutout": cutout}


def augment(images: Tensor, policies: Iterable[str], rng: Draws) -> Tensor:
    """The named policies, in the paper's order (colour, translation, cutout) whatever order they are named in."""
    for name, policy in POLICIES.items():
        if name in policies:
            images = policy(images, rng)
    return images
