"""Untrained generators for tests of exported graphs."""

from __future__ import annotations

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
