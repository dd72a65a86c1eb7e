"""What a config may name, and where it is found: a line each. Nothing heavy is imported until one is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from trainer.config.schema import Model
    from trainer.networks.base import Discriminator, Generator
    from trainer.training.losses import Pair

# `model.architecture`: the module of a generator and a discriminator
ARCHITECTURES = {
    "mlp": "trainer.networks.mlp",
    "dcgan": "trainer.networks.dcgan",
    "sndcgan": "trainer.networks.sndcgan",
    "resnet": "trainer.networks.resnet",
}

# `objective.name`: the module of a pair of losses, and the pair's name in it
OBJECTIVES = {
    "non-saturating": "trainer.training.losses:NON_SATURATING",
    "minimax": "trainer.training.losses:MINIMAX",
    "lsgan": "trainer.training.losses:LSGAN",
    "hinge": "trainer.training.losses:HINGE",
    "wasserstein": "trainer.training.losses:WASSERSTEIN",
}


class Architecture(Protocol):
    """A module of two networks. `classes` is 0 for a pair that takes no labels.

    It may have `check(model, resolution)` as well, which raises ValueError, in one line that says what to set
    instead, for a config that its networks cannot be built from.
    """

    @staticmethod
    def generator(model: Model, resolution: int, channels: int, classes: int) -> Generator: ...

    @staticmethod
    def discriminator(model: Model, resolution: int, channels: int, classes: int) -> Discriminator: ...


def architecture(name: str) -> Architecture:
    return cast("Architecture", import_module(ARCHITECTURES[name]))


def objective(name: str) -> Pair:
    module, _, pair = OBJECTIVES[name].partition(":")
    return cast("Pair", getattr(import_module(module), pair))
