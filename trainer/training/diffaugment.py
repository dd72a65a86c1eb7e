"""DiffAugment: differentiable random augmentations of all images that D sees, real and fake (Zhao et al. 2020).

Without them D memorizes a small image set. Each function takes square images float [N, C, side, side] and a generator
on their device, draws for each image, and returns images of the same shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from trainer.distributed.sharded_rng import ShardedRNG


def uniform(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Draw from U(0, 1) per image: float [N, 1, 1, 1]."""
    return rng.rand(len(images), 1, 1, 1)


def color(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Change brightness by ±0.5, saturation by U(0, 2) and contrast by U(0.5, 1.5).

    Saturation scales around each pixel's mean, contrast around each image's.
    """
    images = images + (uniform(images, rng) - 0.5)
    mean = images.mean(dim=1, keepdim=True)
    images = (images - mean) * (uniform(images, rng) * 2) + mean
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (uniform(images, rng) + 0.5) + mean


def translation(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Shift by up to an eighth of the side in each direction, and fill with zeros."""
    reach = int(images.shape[-1] / 8 + 0.5)
    shifted: Tensor = ShiftFn.apply(images, rng.randint(-reach, reach + 1, len(images), 2))
    return shifted


class ShiftFn(torch.autograd.Function):
    """images[n, :, i, j] → images[n, :, i + shift[n, 0], j + shift[n, 1]]; the gradient is shifted back.

    Autograd would instead sort and add the gradients of all pixels read, although each is read once.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, shift: Tensor) -> Tensor:
        """Return the shifted images."""
        ctx.save_for_backward(shift)
        n, side = len(images), images.shape[-1]
        # Indices into an image with a border of zeros, int64 [N, rows and columns, side].
        read = (torch.arange(1, side + 1, device=images.device) + shift[:, :, None]).clamp(0, side + 1)
        pixels = torch.nn.functional.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        image = torch.arange(n, device=images.device)[:, None, None]
        return pixels[image, read[:, 0, :, None], read[:, 1, None, :]].permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient, shifted back."""
        (shift,) = ctx.saved_tensors
        return ShiftFn.apply(gradient, -shift), None


def cutout(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Zero a square of half the side (rounded up), centered anywhere in the image."""
    n, side = len(images), images.shape[-1]
    size = (side + 1) // 2
    start = rng.randint(-(size // 2), side + 1 - size % 2 - size // 2, n, 2, 1)
    offset = torch.arange(side, device=images.device) - start  # 0 to size - 1 inside the square
    inside = offset == offset.clamp(0, size - 1)  # [N, rows and columns, side]
    return images.masked_fill(inside[:, :1, :, None] & inside[:, 1:, None, :], 0.0)


POLICIES = {"color": color, "translation": translation, "cutout": cutout}


def augment(images: Tensor, policies: Iterable[str], rng: ShardedRNG) -> Tensor:
    """Apply the named policies, always in the paper's order: color, translation, cutout."""
    for name, policy in POLICIES.items():
        if name in policies:
            images = policy(images, rng)
    return images
