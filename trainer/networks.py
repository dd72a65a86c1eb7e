"""Generators and discriminators, built from the config.

A generator carries its own contract (`z_dim`, `classes`, `resolution`, `channels`) and maps latents float
[N, z_dim] to images float [N, C, H, W] in (-1, 1). A discriminator maps such images to logits float [N]
(scores, for a critic); there is no sigmoid in any network, it belongs to the loss. Class-conditional ones
(`classes` > 0) take labels int64 [N] as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config import Config, Model, dcgan_base


class Generator(nn.Module):
    """What every generator is: layers, the last one's tanh, and the image's shape."""

    def __init__(self, net: nn.Sequential, *, z_dim: int, resolution: int, channels: int, classes: int = 0) -> None:
        super().__init__()
        self.net = net
        self.z_dim = z_dim
        self.resolution = resolution
        self.channels = channels
        self.classes = classes

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        features = z
        for layer in self.net:
            features = layer(features, labels) if isinstance(layer, ConditionalBatchNorm) else layer(features)
        return torch.tanh(features).reshape(-1, self.channels, self.resolution, self.resolution)


class Discriminator(nn.Module):
    """A score over the features of an image, plus, with classes, their projection on the label's embedding.

    logit = score(h) + <embedding(y), sum of h over space> (Miyato and Koyama 2018, equation 6).
    """

    def __init__(self, net: nn.Module, score: nn.Module, *, width: int, classes: int = 0) -> None:
        super().__init__()
        self.net = net
        self.score = score
        self.projection = nn.Embedding(classes, width) if classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        features = self.net(images)
        logits = self.score(features).flatten()
        if self.projection is not None:
            logits = logits + (self.projection(labels) * features.sum(dim=(2, 3))).sum(dim=1)
        return logits


class ConditionalBatchNorm(nn.Module):
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
        return nn.functional.linear(features.flatten(1), weight.flatten(1), self.bias)


def mlp_generator(model: Model, resolution: int, channels: int, classes: int) -> Generator:
    layers: list[nn.Module] = []
    width = model.z_dim
    for hidden in model.g_widths:
        layers += [nn.Linear(width, hidden, bias=model.bias != "none"), nn.ReLU(inplace=True)]
        width = hidden
    layers.append(nn.Linear(width, channels * resolution**2, bias=model.bias != "none"))
    return Generator(nn.Sequential(*layers), z_dim=model.z_dim, resolution=resolution, channels=channels)


def mlp_discriminator(model: Model, resolution: int, channels: int, classes: int) -> Discriminator:
    layers: list[nn.Module] = [nn.Flatten()]
    width = channels * resolution**2
    for hidden in model.d_widths:
        layers += [nn.Linear(width, hidden, bias=model.bias != "none"), nn.LeakyReLU(0.2, inplace=True)]
        width = hidden
    return Discriminator(nn.Sequential(*layers), nn.Linear(width, 1, bias=model.bias != "none"), width=width)


def dcgan_generator(model: Model, resolution: int, channels: int, classes: int) -> Generator:
    """Radford et al. 2015: a projection to 4x4 (7x7), then transposed convolutions that double.

    With as many widths as doublings the last layer doubles too (the 64 px form of the paper); with one more,
    a 3x3 layer ends it (source 000's 28 px form).
    """
    normalized_bias, end_bias = model.bias == "all", model.bias != "none"
    base = dcgan_base(resolution)
    first, *rest = model.g_widths
    layers: list[nn.Module] = [
        Project(model.z_dim, first, base, bias=normalized_bias),  # [N, first, base, base]
        batch_norm(first, classes),
        nn.ReLU(inplace=True),
    ]
    width, side = first, base
    for hidden in rest:
        layers += [
            nn.ConvTranspose2d(width, hidden, 4, stride=2, padding=1, bias=normalized_bias),  # side doubles
            batch_norm(hidden, classes),
            nn.ReLU(inplace=True),
        ]
        width, side = hidden, side * 2
    kernel, stride = (3, 1) if side == resolution else (4, 2)
    layers.append(nn.ConvTranspose2d(width, channels, kernel, stride=stride, padding=1, bias=end_bias))
    return Generator(
        nn.Sequential(*layers), z_dim=model.z_dim, resolution=resolution, channels=channels, classes=classes
    )


def dcgan_discriminator(model: Model, resolution: int, channels: int, classes: int) -> Discriminator:
    """Strided convolutions that halve, BatchNorm behind all but the first, one score over what is left."""
    normalized = model.d_norm == "batch"
    hidden_bias, end_bias = (
        model.bias == "all" or (model.bias == "unnormalized" and not normalized),
        model.bias != "none",
    )
    first, *rest = model.d_widths
    layers: list[nn.Module] = [
        nn.Conv2d(channels, first, 4, stride=2, padding=1, bias=end_bias),  # no BatchNorm on the pixels
        nn.LeakyReLU(0.2, inplace=True),
    ]
    width, side = first, resolution // 2
    for hidden in rest:
        layers += [
            nn.Conv2d(width, hidden, 4, stride=2, padding=1, bias=hidden_bias),  # side halves
            *([nn.BatchNorm2d(hidden)] if normalized else []),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        width, side = hidden, side // 2
    return Discriminator(nn.Sequential(*layers), Score(width, 1, side, bias=end_bias), width=width, classes=classes)


ARCHITECTURES = {
    "mlp": (mlp_generator, mlp_discriminator),
    "dcgan": (dcgan_generator, dcgan_discriminator),
}


def build(config: Config) -> tuple[Generator, Discriminator]:
    """G and D as the config says, initialised from torch's global random state, on the CPU in float32."""
    make_generator, make_discriminator = ARCHITECTURES[config.model.architecture]
    data, classes = config.data, len(config.data.class_names) if config.model.conditional else 0
    networks = (
        make_generator(config.model, data.resolution, data.channels, classes),
        make_discriminator(config.model, data.resolution, data.channels, classes),
    )
    if config.model.init == "normal":
        for network in networks:
            initialize(network, config.model.init_std)
    return networks


def initialize(network: nn.Module, std: float) -> None:
    """DCGAN's: weights N(0, std), BatchNorm's scale N(1, std), biases 0 (Radford et al. 2015, section 4)."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def parameter_count(network: nn.Module) -> int:
    """Trainable parameters (BatchNorm's running statistics are not)."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
