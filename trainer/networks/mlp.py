"""Fully connected networks (Goodfellow et al. 2014)."""

from __future__ import annotations

import math

from torch import nn

from artifacts.images.resolution import Resolution, height_and_width
from trainer.config.schema import Model
from trainer.networks.base import Discriminator, Generator


def generator(model: Model, resolution: Resolution, channels: int, classes: int) -> Generator:  # noqa: ARG001 (interface)
    """Return linear layers of `g_widths` with ReLU, and one to the pixels."""
    layers: list[nn.Module] = []
    width = model.z_dim
    for hidden in model.g_widths:
        layers += [nn.Linear(width, hidden, bias=model.bias != "none"), nn.ReLU(inplace=True)]
        width = hidden
    layers.append(nn.Linear(width, channels * math.prod(height_and_width(resolution)), bias=model.bias != "none"))
    return Generator(nn.Sequential(*layers), z_dim=model.z_dim, resolution=resolution, channels=channels)


def discriminator(model: Model, resolution: Resolution, channels: int, classes: int) -> Discriminator:  # noqa: ARG001 (interface)
    """Return linear layers of `d_widths` with LeakyReLU 0.2, and one to the logit."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = channels * math.prod(height_and_width(resolution))
    for hidden in model.d_widths:
        layers += [nn.Linear(width, hidden, bias=model.bias != "none"), nn.LeakyReLU(0.2, inplace=True)]
        width = hidden
    return Discriminator(nn.Sequential(*layers), nn.Linear(width, 1, bias=model.bias != "none"), width=width)
