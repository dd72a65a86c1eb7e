"""Random numbers, a row an image: drawn for the whole batch by every process, which keeps the rows of its own images.

So several processes see the numbers that one alone would, and a generator's state is the same in all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.distributed.process_group import World


class Draws:
    """torch's draws from one generator, on its device. A shape [n, …] is of this process's rows."""

    def __init__(self, generator: torch.Generator, world: World | None = None) -> None:
        self.generator = generator
        self.world = world or World()

    def rand(self, n: int, *shape: int) -> Tensor:
        """U(0, 1), float32 [n, …]."""
        whole = torch.rand(n * self.world.size, *shape, generator=self.generator, device=self.generator.device)
        return self._own(whole)

    def randn(self, n: int, *shape: int) -> Tensor:
        """N(0, 1), float32 [n, …]."""
        whole = torch.randn(n * self.world.size, *shape, generator=self.generator, device=self.generator.device)
        return self._own(whole)

    def randint(self, low: int, high: int, n: int, *shape: int) -> Tensor:
        """Integers from low to high - 1, each as likely, int64 [n, …]."""
        whole = (n * self.world.size, *shape)
        return self._own(torch.randint(low, high, whole, generator=self.generator, device=self.generator.device))

    def get_state(self) -> Tensor:
        return self.generator.get_state()

    def set_state(self, state: Tensor) -> None:
        self.generator.set_state(state)

    def _own(self, whole: Tensor) -> Tensor:
        return whole if self.world.size == 1 else whole[self.world.share(len(whole))]
