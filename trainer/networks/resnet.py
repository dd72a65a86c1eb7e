"""The residual pair of Miyato et al. 2018, tables 4 and 5 (after Gulrajani et al. 2017)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config.agreement import base_side
from trainer.config.schema import Model
from trainer.networks.base import Discriminator, Generator, Labelled
from trainer.networks.layers import Project, SumScore, batch_norm


class UpBlock(Labelled):
    """[N, C, H, W] → [N, width, 2H, 2W]: (norm, ReLU, double, 3x3, norm, ReLU, 3x3) beside a doubled 1x1."""

    def __init__(self, channels: int, width: int, classes: int, *, hidden_bias: bool, end_bias: bool) -> None:
        super().__init__()
        self.norm1 = batch_norm(channels, classes)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=hidden_bias)
        self.norm2 = batch_norm(width, classes)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=end_bias)
        self.skip = nn.Conv2d(channels, width, 1, bias=end_bias)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        hidden = self.conv1(doubled(F.relu(normed(self.norm1, features, labels))))
        hidden = self.conv2(F.relu(normed(self.norm2, hidden, labels)))
        return hidden + doubled(self.skip(features))  # a 1x1 before the doubling: the same numbers, a quarter the work


def normed(norm: nn.Module, features: Tensor, labels: Tensor | None) -> Tensor:
    return norm(features, labels) if isinstance(norm, Labelled) else norm(features)


def doubled(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


class DownBlock(nn.Module):
    """[N, C, H, W] → [N, width, H/2, W/2] (or H, W): (ReLU, 3x3, ReLU, 3x3, mean of 2x2) beside a 1x1.

    The `first` block sees pixels: no ReLU before it.
    """

    def __init__(self, channels: int, width: int, *, halve: bool, first: bool, bias: bool) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        hidden = width if first else channels
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(hidden, width, 3, padding=1, bias=bias)
        self.skip = nn.Conv2d(channels, width, 1, bias=bias) if halve or channels != width else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        hidden = features if self.first else F.relu(features)
        hidden = self.conv2(F.relu(self.conv1(hidden)))
        if not self.halve:
            return hidden + self.skip(features)
        return F.avg_pool2d(hidden, 2) + self.skip(F.avg_pool2d(features, 2))


def generator(model: Model, resolution: int, channels: int, classes: int) -> Generator:
    """A projection to 4x4 (7x7) of the first width, a block that doubles for each further one, a 3x3 layer."""
    hidden_bias, end_bias = model.bias == "all", model.bias != "none"
    base = base_side(resolution)
    first, *rest = model.g_widths
    layers: list[nn.Module] = [Project(model.z_dim, first, base, bias=end_bias)]
    width = first
    for out in rest:
        layers.append(UpBlock(width, out, classes, hidden_bias=hidden_bias, end_bias=end_bias))
        width = out
    layers += [
        nn.BatchNorm2d(width),  # plain in a conditional generator too, as the paper's code has it
        nn.ReLU(inplace=True),
        nn.Conv2d(width, channels, 3, padding=1, bias=end_bias),
    ]
    return Generator(
        nn.Sequential(*layers), z_dim=model.z_dim, resolution=resolution, channels=channels, classes=classes
    )


def discriminator(model: Model, resolution: int, channels: int, classes: int) -> Discriminator:
    """A block a width, the first `d_halvings` of them halving; ReLU, sum over space, a linear score."""
    bias = model.bias != "none"
    halvings = len(model.d_widths) - 1 if model.d_halvings is None else model.d_halvings
    blocks: list[nn.Module] = []
    width = channels
    for index, out in enumerate(model.d_widths):
        blocks.append(DownBlock(width, out, halve=index < halvings, first=index == 0, bias=bias))
        width = out
    net = nn.Sequential(*blocks, nn.ReLU())
    return Discriminator(net, SumScore(width, 1, bias=bias), width=width, classes=classes)
