"""Generators and discriminators, built from the config. A file an architecture, which registry.py names."""

from __future__ import annotations

from torch import nn

from trainer.config import registry
from trainer.config.schema import Config
from trainer.networks.base import Discriminator, Generator
from trainer.networks.initialization import initialize
from trainer.networks.layers import ConditionalBatchNorm, Project, Score, SpectralNorm, spectrally_normalized

__all__ = [
    "ConditionalBatchNorm",
    "Discriminator",
    "Generator",
    "Project",
    "Score",
    "SpectralNorm",
    "build",
    "parameter_count",
]


def build(config: Config) -> tuple[Generator, Discriminator]:
    """G and D as the config says, initialised from torch's global random state, on the CPU in float32."""
    model, data = config.model, config.data
    architecture = registry.architecture(model.architecture)
    classes = len(data.class_names) if model.conditional else 0
    G = architecture.generator(model, data.resolution, data.channels, classes)
    D = architecture.discriminator(model, data.resolution, data.channels, classes)
    initialize(G, model)
    initialize(D, model)
    if model.d_spectral_norm:
        spectrally_normalized(D)
    return G, D


def parameter_count(network: nn.Module) -> int:
    """Trainable parameters (BatchNorm's running statistics are not)."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
