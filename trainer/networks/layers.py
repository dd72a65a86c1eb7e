"""Layers that PyTorch does not have, or has in a form that trains slower."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trainer.networks.base import Labelled


class ConditionalBatchNorm(Labelled):
    """BatchNorm whose scale and shift are the class's own (Dumoulin et al. 2017): [N, C, H, W], labels [N]."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.scale = nn.Embedding(classes, width)
        self.shift = nn.Embedding(classes, width)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        scale, shift = self.scale(labels)[:, :, None, None], self.shift(labels)[:, :, None, None]
        return self.norm(features) * scale + shift


def batch_norm(width: int, classes: int) -> nn.Module:
    return ConditionalBatchNorm(width, classes) if classes else nn.BatchNorm2d(width)


def d_norms(kind: str, width: int) -> list[nn.Module]:
    """What stands behind a discriminator's convolution: nothing, BatchNorm, or LayerNorm over [C, H, W].

    LayerNorm (as GroupNorm of one group) keeps the images of a batch apart, which a gradient penalty a sample needs
    (Gulrajani et al. 2017, section 4).
    """
    if kind == "batch":
        return [nn.BatchNorm2d(width)]
    return [nn.GroupNorm(1, width)] if kind == "layer" else []


class Project(nn.ConvTranspose2d):
    """A transposed convolution of a 1x1 map, [N, z] → [N, C, k, k], computed as the matrix product it is.

    Channels-last weights are multiplied in their own order, so that training copies nothing.
    """

    def forward(self, z: Tensor, output_size: list[int] | None = None) -> Tensor:
        k, c = self.kernel_size[0], self.out_channels
        if self.weight.is_contiguous(memory_format=torch.channels_last):
            features = (z @ self.weight.permute(0, 2, 3, 1).flatten(1)).unflatten(1, (k, k, c)).permute(0, 3, 1, 2)
        else:
            features = (z @ self.weight.flatten(1)).unflatten(1, (c, k, k))
        return features if self.bias is None else features + self.bias.view(1, -1, 1, 1)


class Score(nn.Conv2d):
    """A convolution that covers its whole [N, C, k, k] input, → [N, 1], computed as the dot product it is."""

    def forward(self, features: Tensor) -> Tensor:
        weight = self.weight
        if weight.is_contiguous(memory_format=torch.channels_last):
            features, weight = features.permute(0, 2, 3, 1), weight.permute(0, 2, 3, 1)
        return F.linear(features.flatten(1), weight.flatten(1), self.bias)


class SumScore(nn.Linear):
    """A linear score of features summed over space, [N, C, H, W] → [N, 1] (global sum pooling)."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.sum(dim=(2, 3)))


class SpectralNorm(nn.Module):
    """W → W / σ(W), σ the largest singular value of W as a matrix [out, in·k·k] (Miyato et al. 2018, algorithm 1).

    One power iteration each time a training network computes its weights. Always in float32: under autocast the
    iteration would lose the digits that it adds up.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, warm_up: int = 15) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(matrix.shape[0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(matrix.shape[1]), dim=0))
        for _ in range(warm_up):
            self._iterate(matrix)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        self.v.copy_(F.normalize(matrix.t() @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            if self.training:
                self._iterate(matrix.detach())
            # copies: the next iteration writes into the buffers while this graph still waits for its backward
            sigma = torch.dot(self.u.clone(), matrix @ self.v.clone())
            return weight / sigma


def spectrally_normalized(network: nn.Module) -> nn.Module:
    """The network with SpectralNorm on every weight of a linear, convolution or embedding layer."""
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight))
    return network
