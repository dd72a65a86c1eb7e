"""Transposed convolutions against strided ones (Radford et al. 2015)."""

from __future__ import annotations

from torch import nn

from artifacts.images.resolution import Resolution, height_and_width
from trainer.config.image_shape import first_map, num_upsamples
from trainer.config.schema import Model
from trainer.networks.base import Discriminator, Generator
from trainer.networks.layers import DenseToFeatureMap, FullConvHead, TransposedConv, batch_norm, d_head, d_norms


def generator(model: Model, resolution: Resolution, channels: int, classes: int) -> Generator:
    """Return a dense layer to the first map, such as 4x4, then transposed convolutions that double the resolution.

    With as many widths as doublings the last layer doubles too (the 64 px form of the paper); with one more,
    a 3x3 layer ends it (the 28 px form of Kunal627's DCGAN, and Miyato et al. 2018, table 3).
    """
    normalized_bias, end_bias = model.bias == "all", model.bias != "none"
    first, *rest = model.g_widths
    layers: list[nn.Module] = [
        DenseToFeatureMap(model.z_dim, first, first_map(resolution), bias=normalized_bias),  # [N, first, h, w]
        batch_norm(first, classes),
        nn.ReLU(inplace=True),
    ]
    width = first
    for hidden in rest:
        layers += [
            TransposedConv(width, hidden, 4, stride=2, padding=1, bias=normalized_bias),  # sides double
            batch_norm(hidden, classes),
            nn.ReLU(inplace=True),
        ]
        width = hidden
    kernel, stride = (3, 1) if len(rest) == num_upsamples(resolution) else (4, 2)
    layers.append(TransposedConv(width, channels, kernel, stride=stride, padding=1, bias=end_bias))
    return Generator(
        nn.Sequential(*layers), z_dim=model.z_dim, resolution=resolution, channels=channels, classes=classes
    )


def discriminator(model: Model, resolution: Resolution, channels: int, classes: int) -> Discriminator:
    """Return strided convolutions that halve the resolution, normalized except the first, and one logit."""
    end_bias = model.bias != "none"
    hidden_bias = model.bias == "all" or (model.bias == "unnormalized" and model.d_norm == "none")
    first, *rest = model.d_widths
    layers: list[nn.Module] = [
        nn.Conv2d(channels, first, 4, stride=2, padding=1, bias=end_bias),  # the pixels are not normalized
        nn.LeakyReLU(0.2, inplace=True),
    ]
    width, (height, across) = first, height_and_width(resolution)
    height, across = height // 2, across // 2
    for hidden in rest:
        layers += [
            nn.Conv2d(width, hidden, 4, stride=2, padding=1, bias=hidden_bias),  # sides halve
            *d_norms(model.d_norm, hidden),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        width, height, across = hidden, height // 2, across // 2
    score = d_head(model, width, lambda channels: FullConvHead(channels, 1, (height, across), bias=end_bias))
    return Discriminator(nn.Sequential(*layers), score, width=width, classes=classes)
