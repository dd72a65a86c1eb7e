"""The residual pair of Miyato et al. 2018, tables 4 and 5 (after Gulrajani et al. 2017)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from artifacts.images.resolution import Resolution
from trainer.config.image_shape import first_map
from trainer.config.schema import Model
from trainer.networks.base import ConditionalLayer, Discriminator, Generator
from trainer.networks.layers import DenseToFeatureMap, SumPoolHead, batch_norm, d_head


class UpBlock(ConditionalLayer):
    """[N, C, H, W] → [N, width, 2H, 2W]: (norm, ReLU, double, 3x3, norm, ReLU, 3x3) plus a doubled 1x1."""

    def __init__(self, channels: int, width: int, classes: int, *, hidden_bias: bool, end_bias: bool) -> None:
        """Make a block; `end_bias` is for the layers without a norm after them."""
        super().__init__()
        self.norm1 = batch_norm(channels, classes)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=hidden_bias)
        self.norm2 = batch_norm(width, classes)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=end_bias)
        self.skip = nn.Conv2d(channels, width, 1, bias=end_bias)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return features of twice the resolution."""
        hidden: Tensor = self.conv1(_double(F.relu(_normalize(self.norm1, features, labels))))
        hidden = self.conv2(F.relu(_normalize(self.norm2, hidden, labels)))
        # A 1x1 before the doubling gives the same numbers with a quarter of the work.
        return hidden + _double(self.skip(features))


def _normalize(norm: nn.Module, features: Tensor, labels: Tensor | None) -> Tensor:
    normalized: Tensor = norm(features, labels) if isinstance(norm, ConditionalLayer) else norm(features)
    return normalized


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


class DownBlock(nn.Module):
    """[N, C, H, W] → [N, width, H/2, W/2] (or H, W): (ReLU, 3x3, ReLU, 3x3, mean of 2x2) plus a 1x1.

    The `first` block takes pixels, without a ReLU before it.
    """

    def __init__(self, channels: int, width: int, *, halve: bool, first: bool, bias: bool) -> None:
        """Make a block that keeps the resolution unless `halve`."""
        super().__init__()
        self.halve, self.first = halve, first
        hidden = width if first else channels
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(hidden, width, 3, padding=1, bias=bias)
        self.skip = nn.Conv2d(channels, width, 1, bias=bias) if halve or channels != width else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Return features of half the resolution, or the same."""
        hidden: Tensor = features if self.first else F.relu(features)
        hidden = self.conv2(F.relu(self.conv1(hidden)))
        if self.halve:
            hidden, features = F.avg_pool2d(hidden, 2), F.avg_pool2d(features, 2)
        shortcut: Tensor = self.skip(features)
        return hidden + shortcut


def generator(model: Model, resolution: Resolution, channels: int, classes: int) -> Generator:
    """Return a dense layer to the first map, a block that doubles it per further width, and a 3x3 layer."""
    hidden_bias, end_bias = model.bias == "all", model.bias != "none"
    first, *rest = model.g_widths
    layers: list[nn.Module] = [DenseToFeatureMap(model.z_dim, first, first_map(resolution), bias=end_bias)]
    width = first
    for out in rest:
        layers.append(UpBlock(width, out, classes, hidden_bias=hidden_bias, end_bias=end_bias))
        width = out
    layers += [
        nn.BatchNorm2d(width),  # unconditional in every generator, as in the paper's code
        nn.ReLU(inplace=True),
        nn.Conv2d(width, channels, 3, padding=1, bias=end_bias),
    ]
    return Generator(
        nn.Sequential(*layers), z_dim=model.z_dim, resolution=resolution, channels=channels, classes=classes
    )


def discriminator(model: Model, resolution: Resolution, channels: int, classes: int) -> Discriminator:  # noqa: ARG001 (interface)
    """Return a block per width, of which the first `d_downsamples` halve; ReLU, sum over space, a linear layer."""
    bias = model.bias != "none"
    downsamples = len(model.d_widths) - 1 if model.d_downsamples is None else model.d_downsamples
    blocks: list[nn.Module] = []
    width = channels
    for index, out in enumerate(model.d_widths):
        blocks.append(DownBlock(width, out, halve=index < downsamples, first=index == 0, bias=bias))
        width = out
    net = nn.Sequential(*blocks, nn.ReLU())
    score = d_head(model, width, lambda channels: SumPoolHead(channels, 1, bias=bias))
    return Discriminator(net, score, width=width, classes=classes)
