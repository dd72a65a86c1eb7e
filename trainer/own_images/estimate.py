"""How long a training will take and how much memory it needs, measured on a few steps of it.

The steps train a state that is thrown away. A training draws from generators that it seeds itself, so it is the same
with and without an estimate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from imagesets import ImageSet
from trainer import devices
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.training.cuda_graph import CudaGraphStep
from trainer.training.loop import train_iteration, train_step
from trainer.training.state import TrainState

SECONDS = 5.0  # of measured steps
MOST_STEPS = 200
WARM_UP = {"cpu": 1, "mps": 4, "cuda": 16}  # steps: kernels are chosen, memory is allocated, graphs are captured


@dataclass(frozen=True)
class Estimate:
    """The speed of a training and its memory.

    Attributes:
        images_per_second: Real images shown to D per second.
        steps: Number of steps that were measured.
        memory_bytes: Memory of the process on a CPU, or what torch allocated on a GPU at most.
        is_gpu_memory: Whether it is a GPU's memory.
        threads: CPU threads.
    """

    images_per_second: float
    steps: int
    memory_bytes: int
    is_gpu_memory: bool
    threads: int

    def seconds(self, kimg: float) -> float:
        """Return the time for a length, without samples and measurements of quality."""
        return 1000 * kimg / self.images_per_second


def measure(config: Config, images: ImageSet, seconds: float = SECONDS) -> Estimate:
    """Train a throw-away state for a few steps and measure them.

    Args:
        config: A config without `auto` (devices.resolve_auto), with the class names of the images.
        images: The images.
        seconds: How long to measure; at least one round of the steps with and without R1 is measured.
    """
    device = config.run.device
    on_gpu = device == "cuda"
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_gpu else []):
        devices.configure_process(config)
        state = TrainState.create(config)
        batches = Batches.of_run(config, images, state.device)
        step = CudaGraphStep(train_step) if config.run.cuda_graphs is True else train_step
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(WARM_UP[device]):
            train_iteration(state, batches, step)
        _wait(device)
        began, shown, steps = time.perf_counter(), state.images_seen, 0
        while steps < config.objective.r1_interval or (time.perf_counter() - began < seconds and steps < MOST_STEPS):
            for _ in range(config.objective.r1_interval):  # whole rounds: a step with R1 takes longer
                train_iteration(state, batches, step)
                steps += 1
            _wait(device)
        speed = (state.images_seen - shown) / (time.perf_counter() - began)
        memory = torch.cuda.max_memory_allocated() if on_gpu else devices.resident_memory()
        del state, batches, step
    if on_gpu:
        torch.cuda.empty_cache()
    return Estimate(speed, steps, memory, on_gpu, torch.get_num_threads())


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
