"""Several processes that train together, through Lightning Fabric: `torchrun … -m trainer train …`.

Data-parallel: every process has the networks, and its share of each batch. DistributedDataParallel, which Fabric wraps
around them, averages the gradients of D's loss and of G's over the processes, so that all take the same step. Imported
only where torchrun started more than one process, because Fabric takes a second to import.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from trainer.config import loading
from trainer.config.schema import Config
from trainer.distributed import environment
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import TrainerError, WorkerLost

T = TypeVar("T")


def timeout() -> timedelta:
    """Return how long a process waits for the others: $TRAINER_TIMEOUT_S, or 600 seconds."""
    try:
        return max(timedelta(seconds=float(os.environ.get("TRAINER_TIMEOUT_S", "600"))), timedelta(0))
    except (ValueError, OverflowError):
        return timedelta(0)


def check_division(config: Config, processes: int, per_machine: int) -> None:
    """Raise TrainerError if so many processes cannot share a batch, or a machine's devices."""
    batch, device = config.optim.batch_size, config.run.device
    if processes % per_machine:
        raise TrainerError(
            f"{processes} processes, {per_machine} of them on this machine: use the same --nproc-per-node on each"
        )
    if batch % processes:
        below = batch - batch % processes
        fits = f"{below} or {below + processes}" if below else f"{processes}"
        raise TrainerError(
            f"optim.batch_size={batch} counts all processes, and {processes} cannot share it evenly; use {fits}"
        )
    if config.model.d_minibatch_std and batch // processes % 4:
        raise TrainerError(
            f"model.d_minibatch_std compares four images, and {processes} processes have {batch // processes} each of "
            f"optim.batch_size={batch}; use {4 * processes * -(-batch // (4 * processes))}"
        )
    if device == "mps":
        raise TrainerError("run.device=mps is one device; use run.device=cpu, or one process")
    if device == "cuda" and per_machine > torch.cuda.device_count():
        raise TrainerError(
            f"{per_machine} processes on this machine, but PyTorch sees {torch.cuda.device_count()} CUDA device(s): "
            f"use --nproc-per-node {torch.cuda.device_count()}, or run.device=cpu"
        )
    if not timeout():
        raise TrainerError("TRAINER_TIMEOUT_S is a number of seconds above 0")


class FabricProcessGroup(ProcessGroup):
    """A group of several processes, as seen by one of them."""

    def __init__(self, fabric: Fabric) -> None:
        """Use the processes that `fabric` has launched."""
        self.fabric = fabric
        self.rank, self.size = fabric.global_rank, fabric.world_size
        # Stop signals have a group of their own on the CPU: reading a flag from a GPU would wait for it each step.
        self._signals = cast(
            torch.distributed.ProcessGroup, torch.distributed.new_group(backend="gloo", timeout=timeout())
        )
        self._flag = torch.zeros(1)
        self._pending: torch.distributed.Work | None = None

    @classmethod
    def join(cls, config: Config, identity: dict[str, Any]) -> tuple[FabricProcessGroup, Config]:
        """Join the other processes; see trainer.distributed.join. The number of threads is that of rank 0."""
        per_machine = int(os.environ["LOCAL_WORLD_SIZE"])
        check_division(config, environment.world_size(), per_machine)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module="lightning_fabric")
        # A dimension of size 1 has more than one valid stride.
        warnings.filterwarnings("ignore", "Grad strides do not match")
        atexit.register(destroy_group)
        with _one_line():
            fabric = Fabric(
                accelerator=config.run.device,
                devices=per_machine,
                num_nodes=environment.world_size() // per_machine,
                # We average buffers ourselves: DDP's broadcast inside a step would change those that autograd holds.
                strategy=DDPStrategy(broadcast_buffers=False, timeout=timeout()),
            )
            fabric.launch()
            group = cls(fabric)
            gathered: list[Any] = [None] * group.size
            torch.distributed.all_gather_object(gathered, (config.model_dump(mode="json"), identity))
        (first, first_identity), *others = gathered
        for number, (other, other_identity) in enumerate(others, 1):
            other["run"]["threads"] = first["run"]["threads"]
            lines = loading.differences(loading.parse(first), loading.parse(other))
            if first_identity != other_identity:
                lines += [f"{what}: {first_identity[what]} → {other_identity[what]}" for what in identity]
            if lines:
                raise TrainerError(f"the processes differ, process 0 → process {number}: {'; '.join(lines)}")
        return group, loading.parse(first)

    def device(self, kind: str) -> torch.device:  # noqa: ARG002 (interface)
        """Return the device that Fabric chose for this process."""
        return self.fabric.device

    def prepare(self, network: nn.Module, *, double_backward: bool = False) -> nn.Module:
        """Wrap the network in DistributedDataParallel, with SyncBatchNorm on CUDA unless `double_backward`."""
        if self.fabric.device.type == "cuda" and not double_backward:  # SyncBatchNorm has no second derivative
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        wrapped: nn.Module = self.fabric.setup_module(network, move_to_device=False)
        return wrapped

    @torch.no_grad()
    def average_statistics(self, *networks: nn.Module) -> None:
        """Average the running statistics of every BatchNorm."""
        statistics = [
            statistic
            for network in networks
            for module in network.modules()
            if isinstance(module, nn.BatchNorm2d)  # those of a SyncBatchNorm are of the whole batch already
            for statistic in (module.running_mean, module.running_var)
            if statistic is not None
        ]
        if statistics:
            means = self._mean(torch.cat(statistics)).split([len(statistic) for statistic in statistics])
            torch._foreach_copy_(statistics, list(means))

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the means of scalars over the processes."""
        if not values:
            return {}
        return dict(zip(values, self._mean(torch.stack(list(values.values()))).unbind(), strict=True))

    def gather(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the scalars of every process, each [size]."""
        if not values:
            return {}
        gathered = self._gather(torch.stack(list(values.values())))  # [size, values]
        return dict(zip(values, gathered.unbind(dim=1), strict=True))

    def std(self, values: Tensor) -> Tensor:
        """Combine the mean and sum of squares of each process, of equally many values (Chan et al. 1979)."""
        values = values.detach().double()
        n, mean = values.numel(), values.mean()
        parts = self._gather(torch.stack([mean, (values - mean).square().sum()]))  # [size, 2]
        means, squares = parts[:, 0], parts[:, 1]
        total = squares.sum() + n * (means - means.mean()).square().sum()
        return (total / (n * self.size - 1)).sqrt().float()

    def any(self, flag: bool) -> bool:
        """Return the flags' maximum of the call before this one, without waiting for this one's."""
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
            if self._flag.item():
                return True
        self._flag = torch.tensor([float(flag)])
        self._pending = torch.distributed.all_reduce(
            self._flag, torch.distributed.ReduceOp.MAX, group=self._signals, async_op=True
        )
        return False

    def broadcast(self, value: T) -> T:
        """Return the value of rank 0."""
        return self.fabric.broadcast(value)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Raise WorkerLost within the block if another process is lost."""
        with _one_line():
            yield
            if self._pending is not None:
                self._pending.wait()

    def wait(self) -> None:
        """Wait for all processes."""
        torch.distributed.barrier(group=self._signals)

    def describe(self) -> dict[str, Any]:
        """Return the numbers of processes and machines."""
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return {"processes": self.size, "machines": self.size // local}

    def _mean(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))

    def _gather(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.fabric.all_gather(values))


def destroy_group() -> None:
    """Destroy the process group, if one exists; runs at every regular exit of a process that joined others.

    Gloo's threads otherwise live until the C++ runtime ends, which then may abort the process ("terminate called
    without an active exception") after its work is done.
    """
    gc.collect()  # networks that an exception's frames hold refer to the group
    with suppress(RuntimeError, ValueError):  # another process has exited already
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@contextmanager
def _one_line() -> Iterator[None]:
    """Raise WorkerLost for what the process group raises when another process ended or does not answer."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in text and "NCCL" not in text:
            raise
        raise WorkerLost(
            f"another process of this run ended, or did not answer for {timeout().total_seconds():g} s; "
            "the last checkpoint is kept, continue with `trainer resume`"
        ) from error
