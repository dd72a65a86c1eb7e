"""What every generator and every discriminator is, whatever its layers.

A generator knows its own shape (`z_dim`, `classes`, `height`, `width`, `channels`) and maps latents float [N, z_dim] to
images float [N, C, H, W] in (-1, 1). A discriminator maps such images to logits float [N] (scores, for a critic). No
network contains a sigmoid: it belongs to the loss. Class-conditional ones (`classes` > 0) also take labels int64 [N].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from artifacts.images.resolution import Resolution, height_and_width
from trainer.config.schema import Model
from trainer.distributed.sharded_rng import ShardedRNG


class ConditionalLayer(nn.Module):
    """A layer whose forward takes labels int64 [N] after its features; None in an unconditional network."""


class MixingLayer(nn.Module):
    """A layer of D, other than BatchNorm, whose features of an image depend on the other images of the batch."""


class Generator(nn.Module):
    """Layers, the last one's tanh, and the image's shape."""

    def __init__(
        self, net: nn.Sequential, *, z_dim: int, resolution: Resolution, channels: int, classes: int = 0
    ) -> None:
        """Wrap the layers `net`; `classes` is 0 for an unconditional generator."""
        super().__init__()
        self.net = net
        self.z_dim = z_dim
        self.resolution = resolution
        self.height, self.width = height_and_width(resolution)
        self.channels = channels
        self.classes = classes
        self.output: Callable[[Tensor], Tensor] = torch.tanh  # an imported generator may end in another function

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images float [N, C, H, W] of latents float [N, z_dim]."""
        features = z
        for layer in self.net:
            features = layer(features, labels) if isinstance(layer, ConditionalLayer) else layer(features)
        return self.output(features).reshape(-1, self.channels, self.height, self.width)


class Discriminator(nn.Module):
    """A head over the features of an image, plus, with classes, their projection on the label's embedding.

    logit = head(h) + <embedding(y), sum of h over space> (Miyato and Koyama 2018, equation 6).

    Attributes:
        mixes_images: Whether an image's logit depends on the other images of the batch, as with BatchNorm.
        decoders: Layers of `reconstruction_loss` only, for a D that has such a loss; otherwise None.
    """

    decoders: nn.Module | None

    def __init__(self, net: nn.Module, score: nn.Module, *, width: int, classes: int = 0) -> None:
        """Wrap the layers `net`, whose features have `width` channels, and the head `score`."""
        super().__init__()
        self.net = net
        self.score = score
        self.projection = nn.Embedding(classes, width) if classes else None
        self.mixes_images = any(isinstance(layer, nn.BatchNorm2d | MixingLayer) for layer in self.modules())
        self.decoders = None

    def forward(
        self, images: Tensor, labels: Tensor | None = None, *, with_features: bool = False
    ) -> Tensor | tuple[Tensor, Any]:
        """Return logits float [N] of images float [N, C, H, W]; `with_features` also what `net` makes of them."""
        features = self.net(images)
        logits: Tensor = self.score(features).flatten()
        if self.projection is not None:
            logits = logits + (self.projection(labels) * self.pool(features)).sum(dim=1)
        return (logits, features) if with_features else logits

    def pool(self, features: Any) -> Tensor:
        """Return the features, summed over space, for the projection: [N, width]."""
        pooled: Tensor = features.sum(dim=(2, 3))
        return pooled

    def reconstruction_loss(self, images: Tensor, features: Any, rng: ShardedRNG) -> Tensor:
        """Return a loss of real images that trains D in addition to its objective; for a D that has `decoders`.

        Args:
            images: Real images as D saw them, float [B, C, H, W].
            features: What `net` made of a batch whose first rows are these images.
            rng: Random numbers, to draw from.
        """
        raise NotImplementedError(f"{type(self).__name__} has decoders but no reconstruction_loss")


@dataclass(frozen=True)
class Architecture:
    """A pair of networks that `model.architecture` can name.

    Attributes:
        generator: (model, resolution, channels, classes) → Generator; `classes` is 0 for an unconditional pair, and
            `resolution` the side of square images, or HEIGHTxWIDTH (`artifacts.images.resolution.height_and_width`).
        discriminator: (model, resolution, channels, classes) → Discriminator.
        check: (model, resolution) → None, or raises ValueError, with one line that says what to set instead, for a
            config that these networks cannot be built from.
        rectangles: Whether `resolution` may be HEIGHTxWIDTH; otherwise it is a side in pixels.
    """

    generator: Callable[[Model, Any, int, int], Generator]
    discriminator: Callable[[Model, Any, int, int], Discriminator]
    check: Callable[[Model, Any], None] | None = None
    rectangles: bool = False
