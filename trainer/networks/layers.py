"""Layers that PyTorch does not have, or has in a form that trains slower."""

from __future__ import annotations

from typing import Any

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
        features = self.norm(features)
        scale, shift = (own(labels).to(features.dtype)[:, :, None, None] for own in (self.scale, self.shift))
        return torch.addcmul(shift, features, scale)


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

    One power iteration each time a training network computes its weights, of all its weights together. Always in
    float32: under autocast the iteration would lose the digits that it adds up.
    """

    u: Tensor

    def __init__(self, weight: Tensor, together: PowerIteration, warm_up: int = 15) -> None:
        super().__init__()
        matrix = as_matrix(weight.detach())
        u = F.normalize(torch.randn(matrix.shape[0]), dim=0)
        for _ in range(warm_up):
            u = F.normalize(matrix @ F.normalize(u @ matrix, dim=0), dim=0)
        self.register_buffer("u", u)
        self.together = together
        self.iterated: tuple[Tensor, Tensor, Tensor] | None = None  # u, v and σ that wait to be used once,
        self.version = -1  # of the weight as it was then

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                if self.iterated is None or self.version != weight._version:
                    self.together.iterate()
                assert self.iterated is not None
                (u, v, sigma), self.iterated = self.iterated, None
            else:
                with torch.no_grad():
                    u = self.u.clone()  # that may wait for its backward while the next iteration writes into the buffer
                    v = F.normalize(u @ as_matrix(weight), dim=0)
                    sigma = torch.dot(u, as_matrix(weight) @ v)
            return Normalized.apply(weight, u, v, sigma)


class PowerIteration:
    """The iteration of many weights at once: on a GPU their small vectors cost a kernel together, not one each."""

    def __init__(self) -> None:
        self.of: list[tuple[SpectralNorm, nn.Module]] = []  # each with the layer whose weight it normalises

    @torch.no_grad()
    def iterate(self) -> None:
        norms = [norm for norm, _ in self.of]
        weights: list[Tensor] = [layer.parametrizations.weight.original for _, layer in self.of]  # type: ignore[index,misc,union-attr]
        matrices = [as_matrix(weight) for weight in weights]
        v = unit([norm.u @ matrix for norm, matrix in zip(norms, matrices, strict=True)])[0]
        u, sigma = unit([matrix @ each for matrix, each in zip(matrices, v, strict=True)])  # |W v| is σ: u · W v
        torch._foreach_copy_([norm.u for norm in norms], list(u))
        for norm, weight, found in zip(norms, weights, zip(u, v, sigma, strict=True), strict=True):
            norm.iterated, norm.version = found, weight._version


class Normalized(torch.autograd.Function):
    """W / σ, whose gradient takes dσ/dW = u vᵀ for what it is: autograd would find it by twice the kernels."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        normalized = weight / sigma
        ctx.save_for_backward(normalized, u, v, sigma)
        return normalized

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        normalized, u, v, sigma = ctx.saved_tensors
        permuted = columns_last(normalized)
        if permuted:
            gradient, normalized = gradient.permute(0, 2, 3, 1), normalized.permute(0, 2, 3, 1)
        share = torch.dot(gradient.flatten(), normalized.flatten())
        tilted = torch.addr(gradient.flatten(1), u * share, v, alpha=-1).view(normalized.shape)
        return (tilted.permute(0, 3, 1, 2) if permuted else tilted) / sigma, None, None, None


def as_matrix(weight: Tensor) -> Tensor:
    """A weight [out, in, …] as [out, in·…], its columns in the order that they have in memory, so that none is copied.

    σ and u are the same in any order of the columns; v has the same order as they.
    """
    return (weight.permute(0, 2, 3, 1) if columns_last(weight) else weight).flatten(1)


def columns_last(weight: Tensor) -> bool:
    return weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)


def unit(vectors: list[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Vectors at length 1, and the lengths they had."""
    lengths = torch._foreach_norm(vectors)
    return torch._foreach_div(vectors, torch._foreach_clamp_min(lengths, 1e-12)), lengths


def spectrally_normalized(network: nn.Module) -> nn.Module:
    """The network with SpectralNorm on every weight of a linear, convolution or embedding layer."""
    together = PowerIteration()
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            norm = SpectralNorm(module.weight, together)
            parametrize.register_parametrization(module, "weight", norm, unsafe=True)  # safe would compute it, to check
            together.of.append((norm, module))
    return network
