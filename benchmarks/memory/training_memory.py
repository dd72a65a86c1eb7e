"""What a training keeps in memory: networks and optimizers by arithmetic, activations by a count, and the peak."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainer import devices, networks
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.networks import parameter_count
from trainer.training.logger import memory_mb
from trainer.training.loop import train_iteration
from trainer.training.state import TrainState

BYTES = 4  # of a float32
OPTIMIZER_STATES = {"adam": 2, "rmsprop": 1}  # numbers per weight


def estimate(config: Config) -> dict[str, int]:
    """Return the bytes of a step in float32: `networks`, with gradients, optimizers and EMA, and `activations`.

    The activations are what autograd keeps for the backward of D's step, whose batch has the reals and the fakes, with
    the graph of the fakes, which G's step uses again. They are counted at batches of 2 and 4: the rest is linear.
    """
    G, D = networks.build(config)
    trained = 2 + OPTIMIZER_STATES[config.optim.algorithm]  # each weight, its gradient, and the optimizer's
    counts = {"G": parameter_count(G), "D": parameter_count(D)}
    kept = BYTES * (trained * (counts["G"] + counts["D"]) + counts["G"])
    two, four = (_activations(G, D, config, batch) for batch in (2, 4))
    return {"networks": kept, "activations": two + (four - two) * (config.optim.batch_size - 2) // 2}


def _activations(G: networks.Generator, D: networks.Discriminator, config: Config, batch: int) -> int:
    z = torch.zeros(batch, config.model.z_dim)
    labels = torch.zeros(batch, dtype=torch.int64) if config.num_classes else None
    with saved_bytes(G, D) as storages:
        fakes = G(z, labels)
        both = torch.cat([torch.zeros_like(fakes), fakes.detach()])
        D(both, None if labels is None else torch.cat([labels, labels]))
        return sum(storages.values())


@contextmanager
def saved_bytes(*models: nn.Module) -> Iterator[dict[int, int]]:
    """Yield the bytes of each storage that autograd saves meanwhile, without the networks' own."""
    own = {tensor.untyped_storage()._cdata for model in models for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    alive: list[Tensor] = []  # a storage that is freed could give its address to another one

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def measure(config: Config, steps: int) -> dict[str, float]:
    """Train some steps on noise, and return the peak of the memory in bytes and the images per second.

    On a CUDA device `peak` is what torch has allocated. Else it is how much the process has grown, sampled every few
    milliseconds, without Python, torch and the images.
    """
    config = devices.resolve_auto(config)
    devices.configure_process(config)
    data, batch = config.data, config.optim.batch_size
    shape = (2 * batch, data.height, data.width, data.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = np.arange(len(images)) % max(1, config.num_classes) if config.model.conditional else None
    device = torch.device(config.run.device)
    with peak_memory(device) as peak:
        state = TrainState.create(config)
        batches = Batches(images, batch, seed=0, device=state.device, labels=labels)
        started = time.perf_counter()
        for _ in range(steps):
            train_iteration(state, batches)
        if device.type == "cuda":
            torch.cuda.synchronize()
        rate = state.images_seen / (time.perf_counter() - started)
    return {"peak": peak[0], "images_per_second": rate}


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """Yield a list whose element is the peak in bytes, once the block has ended."""
    found, done = [0.0], threading.Event()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found[0] = float(torch.cuda.max_memory_allocated(device))
        return
    if not Path("/proc/self/statm").exists():
        raise OSError("the resident memory is read from /proc; measure on Linux, or on a CUDA device")
    before = memory_mb(device)

    def watch() -> None:
        while not done.wait(0.005):
            found[0] = max(found[0], (memory_mb(device) - before) * 2**20)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
