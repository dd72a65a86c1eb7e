"""The trainer on a GPU: beside the PyTorch example's own loop, and how long `cifar10-best` takes.

    python -m benchmarks.train_gpu --peer pytorch-examples/dcgan/main.py

Two parts, under ten minutes together:

1. 64 px, batch 128: the peer (with --peer), our plain loop in its manner, and the trainer, in turns (train_step.py).
2. `cifar10-best`: images a second plainly (float32, no graph, memory as it comes) and as `trainer train` does it, and
   the minutes that 12.8 M images would take at each. With --whole it trains all of them as well, in ten minutes at
   most, and tells what that took.

Without data on the machine noise takes the images' place: a step costs the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import train_step
from benchmarks.machine import describe
from benchmarks.train_quality import PATHS
from imagesets import ImageSetError, load_image_set
from trainer import config as configuration
from trainer import hardware
from trainer import loop as trainers
from trainer.batches import Batches
from trainer.config import Config

RESULTS = train_step.ROOT / "benchmarks" / "results" / "train_gpu.json"
IMAGES = 12_800_000


def stepper(config: Config, path: str, data_root: Path) -> tuple[trainers.State, Callable[[], None]]:
    """A state to train along `path` (train_quality.py), and what does a step of it."""
    data = config.data
    try:
        found = load_image_set(data.source, resolution=data.resolution, channels=data.channels, data_root=data_root)
        images, names = np.asarray(found.images), found.class_names
    except ImageSetError:
        shape = (50_000, data.resolution, data.resolution, data.channels)
        images, names = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), tuple("0123456789")
    labels = None
    if config.model.conditional:
        config = config.model_copy(update={"data": data.model_copy(update={"class_names": names})})
        labels = np.arange(len(images)) % len(names)
    if path == "plain":
        config = configuration.override(config, ["run.cuda_graphs=off"])
    hardware.settle(config)
    state = PATHS[path](config)
    batches = Batches(images, config.optim.batch_size, seed=0, device=state.device, labels=labels, flip=data.flip)
    return state, lambda: trainers.step(state, batches)


def images_per_second(config: Config, path: str, data_root: Path, seconds: float) -> float:
    state, step = stepper(config, path, data_root)
    for _ in range(20):
        step()
    synchronize(state)
    started, before = time.perf_counter(), state.images_seen
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            step()
        synchronize(state)
    return (state.images_seen - before) / (time.perf_counter() - started)


def synchronize(state: trainers.State) -> None:
    if state.device.type == "cuda":
        torch.cuda.synchronize()


def whole(config: Config, data_root: Path, limit_s: float) -> dict[str, object]:
    """Trains 12.8 M images, or as many as the time allows, reading the losses now and then as a run does."""
    state, step = stepper(config, "fast", data_root)
    started = time.perf_counter()
    while state.images_seen < IMAGES and time.perf_counter() - started < limit_s:
        for _ in range(100):
            step()
        trainers.check_finite(state)
        means = trainers.take_means(state)
    seconds = time.perf_counter() - started
    return {"images": state.images_seen, "minutes": round(seconds / 60, 2), "losses": means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="PyTorch's examples/dcgan/main.py")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn and each measurement")
    parser.add_argument("--whole", action="store_true", help="train 12.8 M images too")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.peer and not arguments.peer.is_file():
        parser.error(f"no script at {arguments.peer}")

    peer = arguments.peer.resolve() if arguments.peer else None
    result: dict[str, object] = {"machine": describe()}
    result["beside_the_example"] = train_step.compare(
        "examples-dcgan-128", peer, arguments.data_root, arguments.rounds, arguments.seconds
    )
    config = hardware.choose(configuration.resolve("cifar10-best"))
    rates = {path: images_per_second(config, path, arguments.data_root, arguments.seconds) for path in PATHS}
    result["cifar10"] = {
        "preset": "cifar10-best",
        "batch_size": config.optim.batch_size,
        "n_critic": config.optim.n_critic,
        "precision": config.run.precision,
        "cuda_graphs": config.run.cuda_graphs,
        "images_per_second": {path: round(rate, 1) for path, rate in rates.items()},
        "minutes_for_12.8M": {path: round(IMAGES / rate / 60, 2) for path, rate in rates.items()},
    }
    print("cifar10-best: " + ", ".join(f"{path} {rate:.0f} img/s" for path, rate in rates.items()), flush=True)
    if arguments.whole:
        result["whole"] = whole(config, arguments.data_root, limit_s=600)
        print(f"whole: {result['whole']}", flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"→ {arguments.output}")


if __name__ == "__main__":
    main()
