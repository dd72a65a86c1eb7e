"""Generators and discriminators, built from the config.

A generator carries its own contract (`z_dim`, `resolution`, `channels`) and maps latents float [N, z_dim]
to images float [N, C, H, W] in (-1, 1). A discriminator maps such images to logits float [N] (scores, for a
critic); there is no sigmoid in any network, it belongs to the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config import Config, Model, dcgan_base


class Generator(nn.Module):
    """What every generator is: a `net` behind the latent's shape, a tanh in front of the image's.

    Raises nothing of its own; latents of another width fail in the first layer.
    """

    def __init__(self, net: nn.Module, *, z_dim: int, resolution: int, channels: int) -> None:
        super().__init__()
        self.net = net
        self.z_dim = z_dim
        self.resolution = resolution
        self.channels = channels

    def forward(self, z: Tensor) -> Tensor:
        images = torch.tanh(self.net(z))
        return images.reshape(-1, self.channels, self.resolution, self.resolution)


class Discriminator(nn.Module):
    """Images float [N, C, H, W] → logits float [N]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images).flatten()


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


def mlp_generator(model: Model, resolution: int, channels: int) -> Generator:
    layers: list[nn.Module] = []
    width = model.z_dim
    for hidden in model.g_widths:
        layers += [nn.Linear(width, hidden, bias=model.bias != "none"), nn.ReLU(inplace=True)]
        width = hidden
    layers.append(nn.Linear(width, channels * resolution**2, bias=model.bias != "none"))
    return Generator(nn.Sequential(*layers), z_dim=model.z_dim, resolution=resolution, channels=channels)


def mlp_discriminator(model: Model, resolution: int, channels: int) -> Discriminator:
    layers: list[nn.Module] = [nn.Flatten()]
    width = channels * resolution**2
    for hidden in model.d_widths:
        layers += [nn.Linear(width, hidden, bias=model.bias != "none"), nn.LeakyReLU(0.2, inplace=True)]
        width = hidden
    layers.append(nn.Linear(width, 1, bias=model.bias != "none"))
    return Discriminator(nn.Sequential(*layers))


def dcgan_generator(model: Model, resolution: int, channels: int) -> Generator:
    """Radford et al. 2015: a projection to 4x4 (7x7), then transposed convolutions that double.

    With as many widths as doublings the last layer doubles too (the 64 px form of the paper); with one more,
    a 3x3 layer ends it (source 000's 28 px form).
    """
    normalized_bias, end_bias = model.bias == "all", model.bias != "none"
    base = dcgan_base(resolution)
    first, *rest = model.g_widths
    layers: list[nn.Module] = [
        Project(model.z_dim, first, base, bias=normalized_bias),  # [N, first, base, base]
        nn.BatchNorm2d(first),
        nn.ReLU(inplace=True),
    ]
    width, side = first, base
    for hidden in rest:
        layers += [
            nn.ConvTranspose2d(width, hidden, 4, stride=2, padding=1, bias=normalized_bias),  # side doubles
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
        ]
        width, side = hidden, side * 2
    kernel, stride = (3, 1) if side == resolution else (4, 2)
    layers.append(nn.ConvTranspose2d(width, channels, kernel, stride=stride, padding=1, bias=end_bias))
    return Generator(nn.Sequential(*layers), z_dim=model.z_dim, resolution=resolution, channels=channels)


def dcgan_discriminator(model: Model, resolution: int, channels: int) -> Discriminator:
    """Strided convolutions that halve, BatchNorm behind all but the first, one score over what is left."""
    normalized_bias, end_bias = model.bias == "all", model.bias != "none"
    first, *rest = model.d_widths
    layers: list[nn.Module] = [
        nn.Conv2d(channels, first, 4, stride=2, padding=1, bias=end_bias),  # no BatchNorm on the pixels
        nn.LeakyReLU(0.2, inplace=True),
    ]
    width, side = first, resolution // 2
    for hidden in rest:
        layers += [
            nn.Conv2d(width, hidden, 4, stride=2, padding=1, bias=normalized_bias),  # side halves
            nn.BatchNorm2d(hidden),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        width, side = hidden, side // 2
    layers.append(Score(width, 1, side, bias=end_bias))
    return Discriminator(nn.Sequential(*layers))


ARCHITECTURES = {
    "mlp": (mlp_generator, mlp_discriminator),
    "dcgan": (dcgan_generator, dcgan_discriminator),
}


def build(config: Config) -> tuple[Generator, Discriminator]:
    """G and D as the config says, initialised from torch's global random state, on the CPU in float32."""
    make_generator, make_discriminator = ARCHITECTURES[config.model.architecture]
    networks = (
        make_generator(config.model, config.data.resolution, config.data.channels),
        make_discriminator(config.model, config.data.resolution, config.data.channels),
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
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def parameter_count(network: nn.Module) -> int:
    """Trainable parameters (BatchNorm's running statistics are not)."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
