"""What every generator and every discriminator is, whatever its layers.

A generator carries its own contract (`z_dim`, `classes`, `resolution`, `channels`) and maps latents float
[N, z_dim] to images float [N, C, H, W] in (-1, 1). A discriminator maps such images to logits float [N]
(scores, for a critic); there is no sigmoid in any network, it belongs to the loss. Class-conditional ones
(`classes` > 0) take labels int64 [N] as well.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Labelled(nn.Module):
    """A layer whose forward takes labels int64 [N] beside its features; None in an unconditional network."""


class Generator(nn.Module):
    """Layers, the last one's tanh, and the image's shape."""

    def __init__(self, net: nn.Sequential, *, z_dim: int, resolution: int, channels: int, classes: int = 0) -> None:
        super().__init__()
        self.net = net
        self.z_dim = z_dim
        self.resolution = resolution
        self.channels = channels
        self.classes = classes
        self.output: Callable[[Tensor], Tensor] = torch.tanh  # an imported one may end in another function

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        features = z
        for layer in self.net:
            features = layer(features, labels) if isinstance(layer, Labelled) else layer(features)
        return self.output(features).reshape(-1, self.channels, self.resolution, self.resolution)


class Discriminator(nn.Module):
    """A score over the features of an image, plus, with classes, their projection on the label's embedding.

    logit = score(h) + <embedding(y), sum of h over space> (Miyato and Koyama 2018, equation 6). `mixes_images`: whether
    an image's logit depends on its neighbours in the batch, as BatchNorm has it.
    """

    def __init__(self, net: nn.Module, score: nn.Module, *, width: int, classes: int = 0) -> None:
        super().__init__()
        self.net = net
        self.score = score
        self.projection = nn.Embedding(classes, width) if classes else None
        self.mixes_images = any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        features = self.net(images)
        logits = self.score(features).flatten()
        if self.projection is not None:
            logits = logits + (self.projection(labels) * features.sum(dim=(2, 3))).sum(dim=1)
        return logits
