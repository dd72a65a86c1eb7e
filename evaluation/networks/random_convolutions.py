"""A small convolutional network of fixed random weights, whose features suit any images.

Naeem et al. 2020 (section 4.2) recommend random embeddings where ImageNet's do not fit.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 64  # channels; each is averaged over the four quarters of an image, which gives 256 features


class RandomConvolutions(nn.Module):
    """Three convolutions of random weights, averaged over the quarters: [N, C, H, W] in [-1, 1] → [N, 256]."""

    dim = 4 * WIDTH

    def __init__(self, channels: int) -> None:
        """Draw the weights, which are the same for every network of as many channels, so that scores compare."""
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        sizes = ((channels, WIDTH // 2), (WIDTH // 2, WIDTH), (WIDTH, WIDTH))
        for index, (into, out) in enumerate(sizes):
            weight = torch.randn(out, into, 3, 3, generator=rng) * math.sqrt(2 / (9 * into))
            self.register_buffer(f"weight_{index}", weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        weights = list(self.buffers())
        for index, weight in enumerate(weights):
            x = F.relu(F.conv2d(x, weight, padding=1))
            if index < len(weights) - 1 and min(x.shape[2:]) >= 4:
                x = F.avg_pool2d(x, 2)
        return F.adaptive_avg_pool2d(x, 2).flatten(1)
