"""Layers that PyTorch lacks or has in a slower form, and the initialization of weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trainer.config.schema import Model
from trainer.networks.base import ConditionalLayer, MixingLayer

N = TypeVar("N", bound=nn.Module)


class ConditionalBatchNorm(ConditionalLayer):
    """BatchNorm with a scale and shift per class (Dumoulin et al. 2017): [N, C, H, W], labels [N]."""

    def __init__(self, width: int, classes: int) -> None:
        """Normalize `width` channels."""
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.scale = nn.Embedding(classes, width)
        self.shift = nn.Embedding(classes, width)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the features, normalized, scaled and shifted."""
        features = self.norm(features)
        scale, shift = (table(labels).to(features.dtype)[:, :, None, None] for table in (self.scale, self.shift))
        return torch.addcmul(shift, features, scale)


def batch_norm(width: int, classes: int) -> nn.Module:
    """Return a generator's BatchNorm, which is conditional with `classes` above 0."""
    return ConditionalBatchNorm(width, classes) if classes else nn.BatchNorm2d(width)


def d_norms(kind: str, width: int) -> list[nn.Module]:
    """Return the normalization after a discriminator's convolution: none, BatchNorm, or LayerNorm over [C, H, W].

    LayerNorm (as GroupNorm of one group) does not mix the images of a batch, which a gradient penalty per image needs
    (Gulrajani et al. 2017, section 4).
    """
    if kind == "batch":
        return [nn.BatchNorm2d(width)]
    return [nn.GroupNorm(1, width)] if kind == "layer" else []


class DenseToFeatureMap(nn.ConvTranspose2d):
    """A transposed convolution of a 1x1 map, [N, z] → [N, C, h, w], computed as a matrix product.

    Channels-last weights are multiplied in their memory order, so that training copies nothing.
    """

    def forward(self, z: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: ARG002 (torch's signature)
        """Return the feature map of latents [N, z]."""
        features: Tensor
        (h, w), c = self.kernel_size, self.out_channels
        if self.weight.is_contiguous(memory_format=torch.channels_last):
            features = (z @ self.weight.permute(0, 2, 3, 1).flatten(1)).unflatten(1, (h, w, c)).permute(0, 3, 1, 2)
        else:
            features = (z @ self.weight.flatten(1)).unflatten(1, (c, h, w))
        return features if self.bias is None else features + self.bias.view(1, -1, 1, 1)


class TransposedConv(nn.ConvTranspose2d):
    """A transposed convolution, [N, C, H, W] → [N, D, h, w], whose bias takes its gradient from a plain sum.

    On a CPU, PyTorch computes that gradient slowly.
    """

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the convolution of features."""
        if self.bias is None or features.device.type != "cpu" or not (self.training and torch.is_grad_enabled()):
            return super().forward(features, output_size)
        output = F.conv_transpose2d(
            features,
            self.weight,
            self.bias.detach(),
            stride=self.stride,
            padding=cast(tuple[int, ...], self.padding),
            output_padding=self.output_padding,
            groups=self.groups,
            dilation=self.dilation,
        )
        found: Tensor = BiasGradient.apply(output, self.bias)
        return found


class BiasGradient(torch.autograd.Function):
    """Returns a convolution's output, [N, C, H, W], to which its bias [C] was added without a gradient."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, bias: Tensor) -> Tensor:
        """Return the output unchanged."""
        ctx.dtype = bias.dtype
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the output and of the bias."""
        return grad, grad.sum((0, 2, 3), dtype=ctx.dtype)


class FullConvHead(nn.Conv2d):
    """A convolution that covers its whole [N, C, h, w] input, → [N, 1], computed as a dot product."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of features."""
        weight = self.weight
        if weight.is_contiguous(memory_format=torch.channels_last):
            features, weight = features.permute(0, 2, 3, 1), weight.permute(0, 2, 3, 1)
        return F.linear(features.flatten(1), weight.flatten(1), self.bias)


class SumPoolHead(nn.Linear):
    """Global sum pooling and a linear layer, [N, C, H, W] → [N, 1]."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of features."""
        return super().forward(features.sum(dim=(2, 3)))


class MinibatchStd(MixingLayer):
    """One more feature map, how much a group of images differs: [N, C, H, W] → [N, C + 1, H, W].

    The standard deviation of each feature at each place over the group, averaged over both (Karras et al. 2018, section
    3). A group is 4 images in sequence, or 2 or 1 where 4 do not divide the batch.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the features and the new map, constant in each image."""
        count, _, height, width = features.shape
        group = math.gcd(count, 4)
        variance = features.float().unflatten(0, (-1, group)).var(dim=1, correction=0)
        std = (variance + 1e-8).sqrt().mean(dim=(1, 2, 3))  # [groups]
        extra = std[:, None].expand(-1, group).reshape(count, 1, 1, 1).expand(-1, 1, height, width)
        return torch.cat([features, extra.to(features.dtype)], dim=1)


def d_head(model: Model, width: int, make_head: Callable[[int], nn.Module]) -> nn.Module:
    """Return the head of a D whose features have `width` channels, after MinibatchStd if the model has it."""
    return nn.Sequential(MinibatchStd(), make_head(width + 1)) if model.d_minibatch_std else make_head(width)


class SpectralNorm(nn.Module):
    """W → W / σ(W), σ the largest singular value of W as a matrix [out, in·k·k] (Miyato et al. 2018, algorithm 1).

    One power iteration each time a training network computes its weights, for all its weights together. Always in
    float32: under autocast the iteration would lose precision.
    """

    u: Tensor

    def __init__(self, weight: Tensor, iteration: PowerIteration, warm_up: int = 15) -> None:
        """Estimate the largest singular value of `weight` by `warm_up` iterations."""
        super().__init__()
        self.register_buffer("u", F.normalize(torch.randn(weight.shape[0]), dim=0))
        self.estimate(weight, warm_up)
        self.iteration = iteration
        self.frozen = False
        # u, v and σ that the next forward uses, and the version of the weight that they were computed from
        self.iterated: tuple[Tensor, Tensor, Tensor] | None = None
        self.version = -1

    @torch.no_grad()
    def estimate(self, weight: Tensor, iterations: int = 15) -> None:
        """Improve u, the singular vector of `weight`, in place, by power iterations."""
        matrix = as_matrix(weight.detach())
        u = self.u
        for _ in range(iterations):
            u = F.normalize(matrix @ F.normalize(u @ matrix, dim=0), dim=0)
        self.u.copy_(u)

    def freeze(self) -> None:
        """Keep u as it is from now on, so that an unchanged weight has an unchanged norm."""
        self.frozen = True
        self.iteration.layers = [(norm, layer) for norm, layer in self.iteration.layers if norm is not self]

    def forward(self, weight: Tensor) -> Tensor:
        """Return the normalized weight."""
        with torch.autocast(weight.device.type, enabled=False):
            if self.training and not self.frozen:
                if self.iterated is None or self.version != weight._version:
                    self.iteration.run()
                assert self.iterated is not None
                (u, v, sigma), self.iterated = self.iterated, None
            else:
                with torch.no_grad():
                    # Backward may need it after the next iteration has overwritten the buffer.
                    u = self.u.clone()
                    v = F.normalize(u @ as_matrix(weight), dim=0)
                    sigma = torch.dot(u, as_matrix(weight) @ v)
            normalized: Tensor = SpectralNormFn.apply(weight, u, v, sigma)
            return normalized


class PowerIteration:
    """One power iteration of many weights: on a GPU their small vectors share a kernel, instead of one kernel each."""

    def __init__(self) -> None:
        """Start without weights."""
        self.layers: list[tuple[SpectralNorm, nn.Module]] = []  # each with the layer whose weight it normalizes

    @torch.no_grad()
    def run(self) -> None:
        """Update u, and store u, v and σ, in every SpectralNorm."""
        norms = [norm for norm, _ in self.layers]
        weights: list[Tensor] = [layer.parametrizations.weight.original for _, layer in self.layers]  # type: ignore[misc,union-attr]
        matrices = [as_matrix(weight) for weight in weights]
        v = normalize_all([norm.u @ matrix for norm, matrix in zip(norms, matrices, strict=True)])[0]
        u, sigma = normalize_all(
            [matrix @ each for matrix, each in zip(matrices, v, strict=True)]
        )  # |W v| is σ: u · W v
        torch._foreach_copy_([norm.u for norm in norms], list(u))
        for norm, weight, found in zip(norms, weights, zip(u, v, sigma, strict=True), strict=True):
            norm.iterated, norm.version = found, weight._version


class SpectralNormFn(torch.autograd.Function):
    """W / σ with the gradient dσ/dW = u vᵀ in closed form: autograd would need twice the kernels."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        """Return the weight divided by σ."""
        normalized = weight / sigma
        ctx.save_for_backward(normalized, u, v, sigma)
        return normalized

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the weight."""
        normalized, u, v, sigma = ctx.saved_tensors
        permuted = is_channels_last(normalized)
        if permuted:
            gradient, normalized = gradient.permute(0, 2, 3, 1), normalized.permute(0, 2, 3, 1)
        share = torch.dot(gradient.flatten(), normalized.flatten())
        tilted = torch.addr(gradient.flatten(1), u * share, v, alpha=-1).view(normalized.shape)
        return (tilted.permute(0, 3, 1, 2) if permuted else tilted) / sigma, None, None, None


def as_matrix(weight: Tensor) -> Tensor:
    """Return a weight [out, in, …] as [out, in·…] without a copy: columns in their memory order.

    σ and u do not depend on the order of the columns; v has the same order.
    """
    return (weight.permute(0, 2, 3, 1) if is_channels_last(weight) else weight).flatten(1)


def is_channels_last(weight: Tensor) -> bool:
    """Return whether a convolution's weight is in channels-last memory order."""
    return weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)


def normalize_all(vectors: list[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return vectors scaled to length 1, and their lengths."""
    lengths = torch._foreach_norm(vectors)
    return torch._foreach_div(vectors, torch._foreach_clamp_min(lengths, 1e-12)), lengths


def add_spectral_norm(network: N) -> N:
    """Put SpectralNorm on every weight of the network's linear, convolution and embedding layers; return it."""
    iteration = PowerIteration()
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            norm = SpectralNorm(module.weight, iteration)
            # A safe registration would compute the weight, to check it.
            parametrize.register_parametrization(module, "weight", norm, unsafe=True)
            iteration.layers.append((norm, module))
    return network


def initialize(network: nn.Module, model: Model) -> None:
    """Initialize every layer as `model.init` says; other layers keep PyTorch's own initialization.

    normal: weights N(0, init_std), BatchNorm's scale N(1, init_std) (Radford et al. 2015, section 4).
    xavier: Glorot and Bengio's uniform, with gain √2 in 3x3 and wider convolutions, 1 elsewhere (Miyato et al. 2018's
    code). orthogonal: Saxe et al. 2013 (Brock et al. 2019). Biases are 0 in all three. default: PyTorch's own.
    The same holds for the projection of a conditional D. PyTorch's own N(0, 1) there outweighs the head at first.
    """
    if model.init == "default":
        return
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) or name == "projection":
            if model.init == "normal":
                nn.init.normal_(module.weight, 0.0, model.init_std)
            elif model.init == "xavier":
                spatial = isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.kernel_size[0] > 1
                nn.init.xavier_uniform_(module.weight, math.sqrt(2) if spatial else 1.0)
            else:
                nn.init.orthogonal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d) and module.affine and model.init == "normal":
            nn.init.normal_(module.weight, 1.0, model.init_std)
        else:
            continue
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
