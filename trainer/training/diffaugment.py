"""DiffAugment: the same random, differentiable changes for reals and fakes, whenever D looks (Zhao et al. 2020).

With few real images D otherwise learns them by heart. Each function takes square images float [N, C, side, side] and
draws on their device, draws anew for every image, and returns images of the same shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from trainer.distributed.sharded_rng import Draws


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
    reach = int(images.shape[-1] / 8 + 0.5)
    return Shifted.apply(images, rng.randint(-reach, reach + 1, len(images), 2))


class Shifted(torch.autograd.Function):
    """images[n, :, i, j] → images[n, :, i + shift[n, 0], j + shift[n, 1]]; its gradient is shifted the other way.

    (Autograd would add up the gradient of every pixel read, in sorted order, though none is read twice.)
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(shift)
        n, side = len(images), images.shape[-1]
        # of an image with a border of zeros to point at: int64 [N, rows and columns, side]
        read = (torch.arange(1, side + 1, device=images.device) + shift[:, :, None]).clamp(0, side + 1)
        pixels = torch.nn.functional.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        image = torch.arange(n, device=images.device)[:, None, None]
        return pixels[image, read[:, 0, :, None], read[:, 1, None, :]].permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (shift,) = ctx.saved_tensors
        return Shifted.apply(gradient, -shift), None


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
