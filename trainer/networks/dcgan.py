"""Transposed convolutions against strided ones (Radford et al. 2015; sources 000 to 004)."""

from __future__ import annotations

from torch import nn

from trainer.config.agreement import base_side
from trainer.config.schema import Model
from trainer.networks.base import Discriminator, Generator
from trainer.networks.layers import Project, Score, batch_norm, d_norms


def generator(model: Model, resolution: int, channels: int, classes: int) -> Generator:
    """A projection to 4x4 (7x7), then transposed convolutions that double.

    With as many widths as doublings the last layer doubles too (the 64 px form of the paper); with one more,
    a 3x3 layer ends it (source 000's 28 px form, and Miyato et al. 2018, table 3).
    """
    normalized_bias, end_bias = model.bias == "all", model.bias != "none"
    base = base_side(resolution)
    first, *rest = model.g_widths
    layers: list[nn.Module] = [
        Project(model.z_dim, first, base, bias=normalized_bias),  # [N, first, base, base]
        batch_norm(first, classes),
        nn.ReLU(inplace=True),
    ]
    width, side = first, base
    for hidden in rest:
        layers += [
            nn.ConvTranspose2d(width, hidden, 4, stride=2, padding=1, bias=normalized_bias),  # side doubles
            batch_norm(hidden, classes),
            nn.ReLU(inplace=True),
        ]
        width, side = hidden, side * 2
    kernel, stride = (3, 1) if side == resolution else (4, 2)
    layers.append(nn.ConvTranspose2d(width, channels, kernel, stride=stride, padding=1, bias=end_bias))
    return Generator(
        nn.Sequential(*layers), z_dim=model.z_dim, resolution=resolution, channels=channels, classes=classes
    )


def discriminator(model: Model, resolution: int, channels: int, classes: int) -> Discriminator:
    """Strided convolutions that halve, a norm behind all but the first, one score over what is left."""
    end_bias = model.bias != "none"
    hidden_bias = model.bias == "all" or (model.bias == "unnormalized" and model.d_norm == "none")
    first, *rest = model.d_widths
    layers: list[nn.Module] = [
        nn.Conv2d(channels, first, 4, stride=2, padding=1, bias=end_bias),  # no norm on the pixels
        nn.LeakyReLU(0.2, inplace=True),
    ]
    width, side = first, resolution // 2
    for hidden in rest:
        layers += [
            nn.Conv2d(width, hidden, 4, stride=2, padding=1, bias=hidden_bias),  # side halves
            *d_norms(model.d_norm, hidden),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        width, side = hidden, side // 2
    return Discriminator(nn.Sequential(*layers), Score(width, 1, side, bias=end_bias), width=width, classes=classes)
