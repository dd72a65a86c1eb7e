"""Random numbers that do not depend on how many processes share a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.distributed.process_group import ProcessGroup


class ShardedRNG:
    """Random numbers that do not depend on the number of processes, on the generator's device.

    Every process draws for the whole batch and keeps its own rows. A generator's state is then the same in all
    processes, and they see the numbers that one process would. A shape [n, …] is of this process's rows.
    """

    def __init__(self, generator: torch.Generator, group: ProcessGroup | None = None) -> None:
        """Draw from `generator` for the processes of `group`."""
        self.generator = generator
        self.group = group or ProcessGroup()

    def rand(self, n: int, *shape: int) -> Tensor:
        """Draw from U(0, 1), float32 [n, …]."""
        whole = torch.rand(n * self.group.size, *shape, generator=self.generator, device=self.generator.device)
        return self._own_rows(whole)

    def randn(self, n: int, *shape: int) -> Tensor:
        """Draw from N(0, 1), float32 [n, …]."""
        whole = torch.randn(n * self.group.size, *shape, generator=self.generator, device=self.generator.device)
        return self._own_rows(whole)

    def randint(self, low: int, high: int, n: int, *shape: int) -> Tensor:
        """Draw integers from low to high - 1 uniformly, int64 [n, …]."""
        whole = (n * self.group.size, *shape)
        return self._own_rows(torch.randint(low, high, whole, generator=self.generator, device=self.generator.device))

    def get_state(self) -> Tensor:
        """Return the generator's state."""
        return self.generator.get_state()

    def set_state(self, state: Tensor) -> None:
        """Set the generator's state."""
        self.generator.set_state(state)

    def _own_rows(self, whole: Tensor) -> Tensor:
        return whole if self.group.size == 1 else whole[self.group.share(len(whole))]
