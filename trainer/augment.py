"""DiffAugment: the same random, differentiable changes for reals and fakes, whenever D looks (Zhao et al. 2020).

With few real images D otherwise learns them by heart. Each function takes images float [N, C, H, W] and draws on their
device, draws anew for every image, and returns images of the same shape.
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
    n, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))  # a border of zeros to point at
    rows = _shifted(height, n, images.device, rng)
    columns = _shifted(width, n, images.device, rng)
    pixels = padded.permute(0, 2, 3, 1)  # [N, H + 2, W + 2, C]
    batch = torch.arange(n, device=images.device)
    return pixels[batch[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _shifted(side: int, n: int, device: torch.device, rng: Draws) -> Tensor:
    """Indices int64 [n, side] into a side padded by one, each row shifted by its own draw."""
    reach = int(side / 8 + 0.5)
    shift = rng.randint(-reach, reach + 1, n, 1)
    return (torch.arange(side, device=device) + shift + 1).clamp(0, side + 1)


def cutout(images: Tensor, rng: Draws) -> Tensor:
    """Zero a square of half the side, centred anywhere; what of it lies outside is lost."""
    n, _, height, width = images.shape
    rows, columns = (_cut(side, n, images.device, rng) for side in (height, width))
    hole = rows[:, :, None] & columns[:, None, :]
    return images * (~hole)[:, None].to(images.dtype)


def _cut(side: int, n: int, device: torch.device, rng: Draws) -> Tensor:
    """Which of a side's pixels are cut out, bool [n, side]: half of them in a row, rounded up, where they fit."""
    size = (side + 1) // 2
    start = rng.randint(0, side + 1 - size % 2, n, 1) - size // 2
    pixels = torch.arange(side, device=device)
    return (pixels >= start) & (pixels < start + size)


POLICIES = {"color": color, "translation": translation, "cutout": cutout}


def augment(images: Tensor, policies: Iterable[str], rng: Draws) -> Tensor:
    """The named policies, in the paper's order (colour, translation, cutout) whatever order they are named in."""
    for name, policy in POLICIES.items():
        if name in policies:
            images = policy(images, rng)
    return images
