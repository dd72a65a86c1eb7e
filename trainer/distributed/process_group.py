"""The processes that train together: the interface, and its form for one process. fabric.py has that for several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class ProcessGroup:
    """The group of one process: rank 0 of 1, whose share of a batch is the batch; collectives do nothing.

    Every process of a run calls a collective method at the same place.
    """

    rank = 0
    size = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder and prints."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """Return the device of this process; `kind` is cpu, cuda or mps."""
        return torch.device(kind)

    def share(self, batch_size: int) -> slice:
        """Return which rows of the whole batch are this process's."""
        each = batch_size // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def prepare(self, network: nn.Module, *, double_backward: bool = False) -> nn.Module:  # noqa: ARG002 (interface)
        """Return the network as a training step calls it, so that gradients are means over processes. Collective.

        Args:
            network: The network.
            double_backward: Whether its gradient is differentiated again (a gradient penalty).
        """
        return network

    def average_statistics(self, *networks: nn.Module) -> None:
        """Make each BatchNorm's running statistics the mean over the processes. Collective."""

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the means of scalars over the processes. Collective."""
        return values

    def gather(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the scalars of every process, each [size]; those of a single process as they are. Collective."""
        return values

    def std(self, values: Tensor) -> Tensor:
        """Return the standard deviation over the values of all processes, a scalar. Collective."""
        return values.std()

    def any(self, flag: bool) -> bool:
        """Return whether any process passed True, at this call or the one before it, alike in all. Collective."""
        return flag

    def broadcast(self, value: T) -> T:
        """Return the value of rank 0. Collective."""
        return value

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Raise WorkerLost within the block if another process is lost."""
        yield

    def wait(self) -> None:
        """Wait for all processes. Collective."""

    def describe(self) -> dict[str, Any]:
        """Return the numbers of processes and machines, for the run's record."""
        return {"processes": self.size}
