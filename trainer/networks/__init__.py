"""Generators and discriminators, built from a config. Each architecture is one module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from artifacts.plugins import describe_error, is_plugin, was_imported
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.networks import dcgan, fastgan, mlp, resnet, sndcgan
from trainer.networks.base import Architecture, ConditionalLayer, Discriminator, Generator
from trainer.networks.layers import (
    ConditionalBatchNorm,
    DenseToFeatureMap,
    FullConvHead,
    SpectralNorm,
    TransposedConv,
    add_spectral_norm,
    initialize,
)
from trainer.plugins import load_plugin

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "ConditionalBatchNorm",
    "ConditionalLayer",
    "DenseToFeatureMap",
    "Discriminator",
    "FullConvHead",
    "Generator",
    "SpectralNorm",
    "TransposedConv",
    "build",
    "is_loaded",
    "parameter_count",
]

# `model.architecture`, as trainer.config.schema.ARCHITECTURES lists them
ARCHITECTURES = {
    "mlp": Architecture(mlp.generator, mlp.discriminator, rectangles=True),
    "dcgan": Architecture(dcgan.generator, dcgan.discriminator, rectangles=True),
    "sndcgan": Architecture(dcgan.generator, sndcgan.discriminator, rectangles=True),
    "resnet": Architecture(resnet.generator, resnet.discriminator, rectangles=True),
    "fastgan": Architecture(fastgan.generator, fastgan.discriminator, rectangles=True),
}


def build(config: Config) -> tuple[Generator, Discriminator]:
    """Return G and D, initialized from torch's global random state, on the CPU in float32.

    Raises:
        TrainerError: If the config has rectangles and the architecture makes none, or if a user's cannot be imported,
            rejects the config, or fails.
    """
    model, data = config.model, config.data
    if is_plugin(model.architecture):
        architecture = _guard(model.architecture, load_plugin("model.architecture", model.architecture, Architecture))
    else:
        architecture = ARCHITECTURES[model.architecture]
    if data.height != data.width and not architecture.rectangles:
        raise TrainerError(
            f"{model.architecture} makes square images only: set data.resolution to one side, such as "
            f"{min(data.height, data.width)}"
        )
    if architecture.check is not None:
        try:
            architecture.check(model, data.resolution)
        except ValueError as error:
            raise TrainerError(str(error)) from error
    G = architecture.generator(model, data.resolution, data.channels, config.num_classes)
    D = architecture.discriminator(model, data.resolution, data.channels, config.num_classes)
    if not config.objective.reconstruction_weight:
        D.decoders = None
    initialize(G, model)
    initialize(D, model)
    if model.d_spectral_norm:
        add_spectral_norm(D)
    return G, D


def is_loaded(config: Config) -> bool:
    """Return whether `build` imports no module: the architecture is built in, or its module is already imported."""
    name = config.model.architecture
    return not is_plugin(name) or was_imported(name)


def _guard(name: str, architecture: Architecture) -> Architecture:
    """Return a user's architecture whose functions raise TrainerError, in one line, for whatever goes wrong in them."""

    def guard(
        part: str, kind: type | None = None, passed: tuple[type[Exception], ...] = (TrainerError,)
    ) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                made = getattr(architecture, part)(*arguments)
            except passed:
                raise
            except (Exception, SystemExit) as error:  # whatever the user's function raises
                raise TrainerError(f"{name} failed: {describe_error(error)}") from error
            if kind is not None and not isinstance(made, kind):
                raise TrainerError(f"{name} failed: its {part} is of type {type(made).__name__}, not {kind.__name__}")
            return made

        return call

    check = guard("check", passed=(TrainerError, ValueError)) if architecture.check is not None else None
    return Architecture(
        guard("generator", Generator), guard("discriminator", Discriminator), check, architecture.rectangles
    )


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable parameters (BatchNorm's running statistics are not)."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
