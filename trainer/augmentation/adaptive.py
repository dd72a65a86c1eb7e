"""Adaptive augmentation: p follows how much D overfits (ADA; Karras et al. 2020, section 3).

A D that memorizes its images is sure of them: r_t = E[sign(D(x))], over the augmented real images of its steps, goes
from 0 (D cannot tell real from fake) to 1. Every WINDOW steps p rises by a constant if r_t is above its target, and
falls if it is below.

p is at most MAX_P. With p below 1 a part of the reals is shown as it is, so that only G's images without the
augmentation's statistics can match the reals after augmentation. As p approaches 1 that part becomes too small to be
learned from: the paper's G rotates its images from about p = 0.85 on, and its authors see no leaks below 0.8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.config.schema import MAX_P
from trainer.distributed.process_group import ProcessGroup

WINDOW = 4  # steps between two adjustments


class AdaptiveProbability:
    """The probability of each policy, a tensor that a CUDA graph can read, and the signs since its last adjustment.

    Attributes:
        p: The present probability, a float32 scalar on the device, changed in place.
        signs: Sum of the signs of this process's real images since the last adjustment, a float32 scalar.
        count: Number of those images, a float32 scalar.
    """

    def __init__(self, start: float, target: float, kimg: float, device: torch.device) -> None:
        """Start at a probability.

        Args:
            start: The first probability.
            target: The r_t at which p stays.
            kimg: Thousands of real images in which p can rise from 0 to 1.
            device: Where D's logits are.
        """
        self.target, self.kimg = target, kimg
        self.p = torch.tensor(start, dtype=torch.float32, device=device)
        self.signs = torch.zeros((), device=device)
        self.count = torch.zeros((), device=device)

    @torch.no_grad()
    def observe(self, scores: Tensor) -> Tensor:
        """Add a batch of D's scores of real images, less the score of an undecided D; return their mean sign."""
        signs = scores.sign()
        self.signs += signs.sum()
        self.count += signs.numel()
        return signs.mean()

    @torch.no_grad()
    def adjust(self, images: int, group: ProcessGroup) -> None:
        """Move p toward the target by the images seen since the last adjustment, without waiting for the device.

        Args:
            images: Real images shown to D since then, over all processes.
            group: The processes that train together. Collective.
        """
        r_t = group.mean({"r_t": self.signs / self.count})["r_t"]
        self.p += (r_t - self.target).sign() * (images / (self.kimg * 1000))
        self.p.clamp_(0.0, MAX_P)
        self.signs.zero_()
        self.count.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint holds."""
        return {"p": self.p, "signs": self.signs, "count": self.count}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Set the tensors in place, from what `state_dict` returned."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(saved[name])
