"""The plain CNN of Miyato et al. 2018, table 3: its discriminator, for the generator of a DCGAN.

It is made for spectral normalization (`model.d_spectral_norm`), and can be trained without.
"""

from __future__ import annotations

from torch import nn

from artifacts.images.resolution import Resolution, height_and_width
from trainer.config.schema import Model
from trainer.networks.base import Discriminator
from trainer.networks.layers import FullConvHead, d_head, d_norms


def discriminator(model: Model, resolution: Resolution, channels: int, classes: int) -> Discriminator:
    """Return a 3x3 and a halving 4x4 convolution per width, only the 3x3 for the last; LeakyReLU 0.1."""
    end_bias = model.bias != "none"
    hidden_bias = model.bias == "all" or (model.bias == "unnormalized" and model.d_norm == "none")
    *halving, last = model.d_widths
    layers: list[nn.Module] = []
    width, (height, across) = channels, height_and_width(resolution)

    def convolution(out: int, kernel: int, stride: int) -> list[nn.Module]:
        norms = d_norms(model.d_norm, out) if layers else []  # the pixels are not normalized
        bias = hidden_bias if layers else end_bias
        return [nn.Conv2d(width, out, kernel, stride, padding=1, bias=bias), *norms, nn.LeakyReLU(0.1, inplace=True)]

    for hidden in halving:
        layers += convolution(hidden, 3, 1)
        width = hidden
        layers += convolution(hidden, 4, 2)  # sides halve
        height, across = height // 2, across // 2
    layers += convolution(last, 3, 1)
    score = d_head(model, last, lambda channels: FullConvHead(channels, 1, (height, across), bias=end_bias))
    return Discriminator(nn.Sequential(*layers), score, width=last, classes=classes)
