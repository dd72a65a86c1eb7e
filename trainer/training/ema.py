"""The exponential moving average of a generator."""

from __future__ import annotations

import torch
from torch import nn

from trainer.config.schema import Ema


def decay(ema: Ema, batch_size: int, images_seen: int) -> float:
    """Share of the old average to keep after a batch: 0.5 ** (batch / half-life), both in images.

    Early on the half-life is at most `warmup` of the images seen, so that the initial weights are forgotten
    (Karras et al. 2021, appendix B).
    """
    halflife = ema.halflife_kimg * 1000
    if ema.warmup > 0:
        halflife = min(halflife, images_seen * ema.warmup)
    return 0.5 ** (batch_size / halflife) if halflife > 0 else 0.0


@torch.no_grad()
def update(average: nn.Module, network: nn.Module, keep: float) -> None:
    """average ← keep · average + (1 - keep) · network, over parameters and floating-point buffers.

    BatchNorm's running statistics are averaged with the weights they belong to; counters are copied.
    """
    ours, theirs = average.state_dict(), network.state_dict()
    floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], 1.0 - keep)
    for name in ours.keys() - set(floating):
        ours[name].copy_(theirs[name])
