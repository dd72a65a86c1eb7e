"""Freezes the blocks of a discriminator that are nearest to the image (Mo et al. 2020, "Freeze the Discriminator")."""

from __future__ import annotations

from torch import nn

from trainer.errors import TrainerError
from trainer.networks.base import Discriminator
from trainer.networks.layers import SpectralNorm


def d_blocks(D: Discriminator) -> list[dict[str, nn.Module]]:
    """Return the blocks of D's layers before its head, by the names of their modules, the nearest to the image first.

    A block is a convolution (in an mlp a linear layer) with the norm and activation after it, or a residual block.
    """
    blocks: list[dict[str, nn.Module]] = []
    children = {f"net.{name}": child for name, child in D.net.named_children()} or {"net": D.net}
    for name, child in children.items():
        if any(isinstance(layer, nn.Conv2d | nn.Linear) for layer in child.modules()):
            blocks.append({name: child})
        elif blocks:
            blocks[-1][name] = child
    return blocks


def freeze_blocks(D: Discriminator, count: int) -> list[str]:
    """Freeze the first `count` blocks of D: their weights, biases, norms' scales and shifts, and spectral norms.

    Returns:
        The names of the frozen parameters.

    Raises:
        TrainerError: If D has fewer blocks.
    """
    blocks = d_blocks(D)
    if count > len(blocks):
        raise TrainerError(
            f"optim.d_freeze={count} (--freeze-d) is too high: the maximum is {len(blocks)}, D's blocks before its head"
        )
    frozen: list[str] = []
    for block in blocks[:count]:
        for name, module in block.items():
            module.requires_grad_(False)
            frozen += [f"{name}.{parameter}" for parameter, _ in module.named_parameters()]
            for layer in module.modules():
                if isinstance(layer, SpectralNorm):
                    layer.freeze()
    return frozen
