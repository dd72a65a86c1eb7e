"""The processes that train together. Here: one, alone; distributed.py has several, with the same methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class World:
    """A process that trains by itself: it is the first, its share of a batch is the batch, and it agrees with itself.

    A method that says so is collective: every process of the run calls it at the same place.
    """

    rank = 0
    size = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes the run folder and talks."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """The device that this process computes on: cpu, cuda or mps, by its kind."""
        return torch.device(kind)

    def share(self, batch_size: int) -> slice:
        """Which rows of the whole batch are this process's."""
        each = batch_size // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def prepare(self, network: nn.Module, *, twice: bool = False) -> nn.Module:
        """The network as a training step calls it: its gradients become the mean over the processes. Collective.

        `twice`: its gradient is differentiated once more (a gradient penalty).
        """
        return network

    def average_statistics(self, *networks: nn.Module) -> None:
        """Make each BatchNorm's running statistics the mean over the processes. Collective."""

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars → their means over the processes. Collective."""
        return values

    def gather(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars → those of every process, each [size]; of one alone, as they are. Collective."""
        return values

    def std(self, values: Tensor) -> Tensor:
        """Standard deviation over the values of all processes, a scalar. Collective."""
        return values.std()

    def any(self, flag: bool) -> bool:
        """Whether a process says yes, heard by all at the same call: perhaps the one after it was said. Collective."""
        return flag

    def broadcast(self, value: T) -> T:
        """The first process's value. Collective."""
        return value

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around training: raises PeersLost when another process is gone."""
        yield

    def wait(self) -> None:
        """Until every process is here. Collective."""

    def describe(self) -> dict[str, Any]:
        """For the run's record."""
        return {"processes": self.size}
