"""Layers without weights of other projects' generators, which no state dict contains: activations, epsilons."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.errors import TrainerError
from trainer.networks.base import Generator

LEAKY_RELU = "leaky-relu"
LEAKY_SLOPE = 0.2  # Radford et al. 2015; torch's own default is 0.01
MAX_EPS = 10.0
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    LEAKY_RELU: nn.LeakyReLU,  # takes a slope, see `activation`
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": lambda features: torch.sigmoid(features) * 2 - 1,  # images in (0, 1), ours are in (-1, 1)
    "none": lambda features: features,
}


@dataclass(frozen=True)
class Layers:
    """The layers without weights of a generator.

    Attributes:
        activation: Between the layers: a key of ACTIVATIONS, `leaky-relu` also with a slope, as `leaky-relu:0.1`.
        output_activation: After the last layer: a key of OUTPUTS.
        batchnorm_eps: What BatchNorm adds to a variance.
    """

    activation: str = "relu"
    output_activation: str = "tanh"
    batchnorm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Raise TrainerError for a value that is not allowed."""
        activation(self.activation)
        if self.output_activation not in OUTPUTS:
            raise TrainerError(f"--output-activation is {_one_of(OUTPUTS)}, not {self.output_activation}")
        if not 0 < self.batchnorm_eps <= MAX_EPS:
            raise TrainerError(f"--batchnorm-eps is above 0 and at most {MAX_EPS:g}, not {self.batchnorm_eps:g}")

    def apply(self, G: Generator) -> None:
        """Replace the layers of a generator that was built with ours."""
        for index, layer in enumerate(G.net):
            if isinstance(layer, nn.ReLU):
                G.net[index] = activation(self.activation)
        for module in G.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = self.batchnorm_eps
        G.output = OUTPUTS[self.output_activation]


def activation(text: str) -> nn.Module:
    """Return the layer of a name such as `relu`, `leaky-relu` or `leaky-relu:0.1`.

    Raises:
        TrainerError: If no layer has that name, or the slope is not a number from 0 to 1.
    """
    name, colon, slope = text.partition(":")
    if name not in ACTIVATIONS or (colon and name != LEAKY_RELU):
        raise TrainerError(f"--activation is {_one_of(ACTIVATIONS)}, or {LEAKY_RELU}:SLOPE, not {text}")
    if name != LEAKY_RELU:
        return ACTIVATIONS[name]()
    try:
        value = float(slope) if colon else LEAKY_SLOPE
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise TrainerError(f"--activation {LEAKY_RELU}:SLOPE takes a slope from 0 to 1, not {slope}")
    return nn.LeakyReLU(value)


def _one_of(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
