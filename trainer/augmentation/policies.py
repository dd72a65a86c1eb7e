"""The policies that `data.augment` names, and their application with a probability.

Without them D memorizes a small image set. Every policy is differentiable, so that G learns through it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from trainer.augmentation.colors import Policy, brightness, color, contrast
from trainer.augmentation.geometry import cutout, flip, rotate90, scale, translation
from trainer.distributed.sharded_rng import ShardedRNG

# In the order of application; trainer.config.schema.AUGMENTATIONS lists the names.
POLICIES: dict[str, Policy] = {
    "flip": flip,
    "rotate90": rotate90,
    "scale": scale,
    "color": color,
    "brightness": brightness,
    "contrast": contrast,
    "translation": translation,
    "cutout": cutout,
}


def augment(images: Tensor, policies: Iterable[str], rng: ShardedRNG, p: float | Tensor = 1.0) -> Tensor:
    """Apply the named policies in the order of POLICIES, each to each image with probability p.

    Args:
        images: float [N, C, H, W].
        policies: Names of the policies.
        rng: Random numbers on the device of the images.
        p: The probability, which a CUDA graph reads from a scalar tensor; 1.0 draws nothing.
    """
    for name, policy in POLICIES.items():
        if name not in policies:
            continue
        if isinstance(p, float) and p >= 1.0:
            images = policy(images, rng)
        else:
            chosen = rng.rand(len(images), 1, 1, 1) < p
            images = torch.where(chosen, policy(images, rng), images)
    return images
