"""Generators for tests: untrained ones, and one that shows given images."""

from __future__ import annotations

import numpy as np
import torch

from trainer import networks
from trainer.config.schema import Config

CLASSES = ["one", "two", "three"]


def random_generator(config: Config) -> networks.Generator:
    """A generator whose every parameter and running statistic matters, and whose images use the whole range."""
    torch.manual_seed(0)
    G, _ = networks.build(config)
    for module in G.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, 0, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
        for name, parameter in module.named_parameters(recurse=False):
            dense = isinstance(module, networks.DenseToFeatureMap)
            transposed = isinstance(module, torch.nn.ConvTranspose2d) and not dense
            fan_in = parameter.shape[0] * (4 if transposed else 1)  # taps that reach a pixel, of k4 s2
            if parameter.ndim == 1 or isinstance(module, torch.nn.Embedding):
                torch.nn.init.normal_(parameter, float(name == "weight"), 0.2)
            else:
                width = parameter.shape[1] if isinstance(module, torch.nn.Linear) else fan_in
                torch.nn.init.normal_(parameter, 0, width**-0.5)
    return G.eval()


class Replays(networks.Generator):
    """A generator that shows given images, one a call's row, whatever its latents are."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__(torch.nn.Sequential(), z_dim=4, resolution=images.shape[1], channels=images.shape[3])
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        self.at = 0
        self.register_parameter("nothing", torch.nn.Parameter(torch.zeros(())))

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        self.at += len(z)
        return self.images[self.at - len(z) : self.at]
