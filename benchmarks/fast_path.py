"""Compare the trainer's fast path with the same algorithm without what is there for speed, in images/s.

    python -m benchmarks.fast_path [--preset cifar10-best] [--set optim.batch_size=128] [--data-root data]

The plain path is float32, default memory format, Adam parameter by parameter, separate forwards for real and generated
images, and no CUDA graph. Both train on the same images in memory, alternately, without what happens per tick. Noise
replaces images that are missing.

    python -m benchmarks.fast_path --preset mnist-best --set model.d_norm=none --set objective.r1_gamma=0.2 \
        --against objective.r1_gamma=0 --against run.cuda_graphs=false

compares the fast path with itself under other settings instead: what a penalty costs, or what a CUDA graph gains.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import harness
from imagesets import ImageSetError, load_image_set
from trainer import devices
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.errors import TrainerError
from trainer.training import cuda_graph
from trainer.training.cuda_graph import CudaGraphStep
from trainer.training.loop import train_iteration, train_step
from trainer.training.state import TrainState

WARM_UP = 20  # steps, at least; the CUDA graphs are captured within them


def fast_state(config: Config) -> TrainState:
    """Return the state that `trainer train` would train."""
    return TrainState.create(config)


def plain_state(config: Config) -> TrainState:
    """Return the same networks and algorithm, without anything that is there for speed."""
    state = TrainState.create(loading.override(config, ["run.precision=fp32", "run.cuda_graphs=off"]))
    for network in (state.G, state.D, state.G_ema):
        network.to(memory_format=torch.contiguous_format)
    state.D.mixes_images = True  # a forward for reals, a forward for fakes
    optim = config.optim
    for name, network, lr in (("g_optimizer", state.G, optim.g_lr), ("d_optimizer", state.D, optim.d_lr)):
        adam = torch.optim.Adam(network.parameters(), lr=lr, betas=optim.betas, foreach=False, fused=False)
        setattr(state, name, adam)
    return state


PATHS = {"fast": fast_state, "plain": plain_state}


def load_images(config: Config, data_root: Path) -> tuple[np.ndarray, tuple[str, ...], str]:
    """Return images, uint8 [N, H, W, C], their class names, and what they are."""
    data = config.data
    try:
        found = load_image_set(data.source, resolution=data.resolution, channels=data.channels, data_root=data_root)
        return np.asarray(found.images), found.class_names, found.name
    except ImageSetError:
        shape = (50_000, data.height, data.width, data.channels)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return noise, tuple("0123456789"), "noise"


def stepper(config: Config, path: str, images: np.ndarray) -> Callable[[float], float]:
    """Return a function that trains along a path for some seconds, and returns images/s."""
    state = PATHS[path](config)
    labels = np.arange(len(images)) % len(config.data.class_names) if config.model.conditional else None
    batches = Batches(
        images, config.optim.batch_size, seed=0, device=state.device, labels=labels, flip=config.data.flip
    )
    step = CudaGraphStep(train_step) if state.config.run.cuda_graphs is True else train_step
    penalties = (cuda_graph.WARM_UP + 2) * config.objective.r1_interval

    def run(seconds: float, steps: int = 10) -> float:
        started, before = time.perf_counter(), state.images_seen
        while True:
            for _ in range(steps):
                train_iteration(state, batches, step)
            if state.device.type == "cuda":
                torch.cuda.synchronize()
            if (elapsed := time.perf_counter() - started) >= seconds:
                return (state.images_seen - before) / elapsed

    run(0, steps=max(WARM_UP, penalties))
    return run


def measure(
    config: Config, data_root: Path, rounds: int, seconds: float, against: Sequence[str] = ()
) -> dict[str, Any]:
    """Return images/s, and the spread of the fast path's ratio to the others, from alternating rounds.

    Args:
        config: A preset's config.
        data_root: The folder of the datasets.
        rounds: The number of rounds.
        seconds: The length of each turn.
        against: Settings, `section.field=value` separated by spaces, to compare with instead of the plain path.
    """
    images, names, source = load_images(config, data_root)
    if config.model.conditional:
        config = config.model_copy(update={"data": config.data.model_copy(update={"class_names": names})})
    config = devices.resolve_auto(config)
    devices.configure_process(config)
    run = {"fast": stepper(config, "fast", images)}
    if against:
        run |= {sets: stepper(loading.override(config, sets.split()), "fast", images) for sets in against}
    else:
        run["plain"] = stepper(config, "plain", images)
    turns = [{path: run[path](seconds) for path in run} for _ in range(rounds)]
    return {
        "preset": config.name,
        "images": source,
        "batch_size": config.optim.batch_size,
        "device": config.run.device,
        "precision": config.run.precision,
        "cuda_graphs": config.run.cuda_graphs,
        "threads": config.run.threads,
        "images_per_second": {path: statistics.median(turn[path] for turn in turns) for path in run},
        "ratio": {
            path: harness.spread([turn["fast"] / turn[path] for turn in turns]) for path in run if path != "fast"
        },
        "rounds": turns,
    }


def main() -> None:
    """Measure one preset."""
    parser = harness.make_parser(__doc__, "fast_path")
    parser.add_argument("--preset", default="cifar10-best")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="for both paths")
    against = "compare with the fast path under these settings, not with the plain path; may be repeated"
    parser.add_argument("--against", action="append", default=[], metavar="'SECTION.FIELD=VALUE …'", help=against)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=harness.at_least_one, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    args = parser.parse_args()
    try:
        config = loading.resolve(args.preset, args.set)
        for sets in args.against:
            loading.override(config, sets.split())
    except TrainerError as error:
        parser.error(str(error))
    machine = harness.describe_machine()
    found = measure(config, args.data_root, args.rounds, args.seconds, args.against)
    harness.write(args.output, {"machine": machine, **found})
    rates = ", ".join(f"{path} {rate:,.0f} images/s" for path, rate in found["images_per_second"].items())
    print(f"{args.preset}, batch {found['batch_size']}, {found['device']}: {rates}")
    for path, ratio in found["ratio"].items():
        print(f"images/s, fast / {path}: {harness.format_spread(ratio)}")
    print(f"→ {args.output}")


if __name__ == "__main__":
    main()
