"""Policies that move pixels: flip, rotate90, scale, translation and cutout.

Each takes images float [N, C, H, W] and random numbers on their device, draws for each image, and returns images of
the same shape. translation and cutout are DiffAugment's (Zhao et al. 2020), the others ADA's (Karras et al. 2020,
appendix B).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.distributed.sharded_rng import ShardedRNG

SCALE_STD = 0.2  # of the binary logarithm of a scale


def flip(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Mirror left to right, with probability 0.5."""
    mirrored = rng.randint(0, 2, len(images), 1, 1, 1) == 1
    return torch.where(mirrored, images.flip(3), images)


def rotate90(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Rotate by a multiple of 90°; by 0° or 180° where height and width differ. All have the same probability."""
    if images.shape[2] != images.shape[3]:
        quarters = 2 * rng.randint(0, 2, len(images), 1, 1, 1)
    else:
        quarters = rng.randint(0, 4, len(images), 1, 1, 1)
        images = torch.where(quarters % 2 == 1, images.rot90(1, (2, 3)), images)
    return torch.where(quarters >= 2, images.rot90(2, (2, 3)), images)


def scale(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Scale around the center by 2^N(0, 0.2²), bilinear, and fill with zeros."""
    factors = torch.exp2(SCALE_STD * rng.randn(len(images)))
    return resample(images, factors)


def resample(images: Tensor, factors: Tensor) -> Tensor:
    """Enlarge each image around its center by its factor, float [N]; bilinear, and zero outside.

    Products with one matrix per side: any derivative is exact, and deterministic on every device.
    """
    rows, columns = (interpolation(side, factors) for side in images.shape[2:])
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 would round the pixels
        scaled = rows[:, None] @ images.to(rows.dtype) @ columns[:, None].mT
    return scaled.to(images.dtype).contiguous(memory_format=torch.channels_last)


def interpolation(side: int, factors: Tensor) -> Tensor:
    """Return the weights of the old pixels in each new one, [N, side, side]."""
    pixels = torch.arange(side, device=factors.device, dtype=factors.dtype)
    center = (side - 1) / 2
    read = (pixels - center) / factors[:, None] + center  # where each new pixel is in the old image
    return (1 - (read[:, :, None] - pixels).abs()).clamp(min=0)


def translation(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Shift by up to an eighth of the side in each direction, and fill with zeros."""
    reach = [int(side / 8 + 0.5) for side in images.shape[2:]]
    shift = random_pairs(rng, [(-most, most + 1) for most in reach], len(images))
    shifted: Tensor = ShiftFn.apply(images, shift)
    return shifted


def random_pairs(rng: ShardedRNG, bounds: list[tuple[int, int]], n: int) -> Tensor:
    """Draw an integer for the height and one for the width, each from low to high - 1, int64 [n, 2]."""
    height, width = bounds
    if height == width:
        return rng.randint(*height, n, 2)
    return torch.cat([rng.randint(*height, n, 1), rng.randint(*width, n, 1)], dim=1)


class ShiftFn(torch.autograd.Function):
    """images[n, :, i, j] → images[n, :, i + shift[n, 0], j + shift[n, 1]]; the gradient is shifted back.

    Autograd would instead sort and add the gradients of all pixels read, although each is read once.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, shift: Tensor) -> Tensor:
        """Return the shifted images."""
        ctx.save_for_backward(shift)
        # Indices into an image with a border of zeros, int64 [N, side].
        rows, columns = (
            (torch.arange(1, side + 1, device=images.device) + shift[:, axis, None]).clamp(0, side + 1)
            for axis, side in enumerate(images.shape[2:])
        )
        pixels = torch.nn.functional.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        image = torch.arange(len(images), device=images.device)[:, None, None]
        return pixels[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient, shifted back."""
        (shift,) = ctx.saved_tensors
        return ShiftFn.apply(gradient, -shift), None


def cutout(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Zero a rectangle of half the sides (rounded up), centered anywhere in the image."""
    sizes = [(side + 1) // 2 for side in images.shape[2:]]
    bounds = [
        (-(size // 2), side + 1 - size % 2 - size // 2) for size, side in zip(sizes, images.shape[2:], strict=True)
    ]
    starts = random_pairs(rng, bounds, len(images))
    rows, columns = (
        _is_within(torch.arange(side, device=images.device) - starts[:, axis, None], sizes[axis])
        for axis, side in enumerate(images.shape[2:])
    )
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


def _is_within(offset: Tensor, size: int) -> Tensor:
    """Return which offsets are from 0 to size - 1."""
    return offset == offset.clamp(0, size - 1)
