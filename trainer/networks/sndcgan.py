"""The plain CNN of Miyato et al. 2018, table 3: a DCGAN's generator, and a discriminator of twice the layers.

Its discriminator is made for spectral normalisation (`model.d_spectral_norm`), and can be trained without.
"""

from __future__ import annotations

from torch import nn

from trainer.config.schema import Model
from trainer.networks.base import Discriminator
from trainer.networks.dcgan import generator
from trainer.networks.layers import Score, d_norms

__all__ = ["discriminator", "generator"]


def discriminator(model: Model, resolution: int, channels: int, classes: int) -> Discriminator:
    """A 3x3 and a halving 4x4 convolution for every width but the last, which has the 3x3 alone; LeakyReLU 0.1."""
    end_bias = model.bias != "none"
    hidden_bias = model.bias == "all" or (model.bias == "unnormalized" and model.d_norm == "none")
    *halving, last = model.d_widths
    layers: list[nn.Module] = []
    width, side = channels, resolution

    def convolution(out: int, kernel: int, stride: int) -> list[nn.Module]:
        norms = d_norms(model.d_norm, out) if layers else []  # none on the pixels
        bias = hidden_bias if layers else end_bias
        return [nn.Conv2d(width, out, kernel, stride, padding=1, bias=bias), *norms, nn.LeakyReLU(0.1, inplace=True)]

    for hidden in halving:
        layers += convolution(hidden, 3, 1)
        width = hidden
        layers += convolution(hidden, 4, 2)  # side halves
        side //= 2
    layers += convolution(last, 3, 1)
    return Discriminator(nn.Sequential(*layers), Score(last, 1, side, bias=end_bias), width=last, classes=classes)
