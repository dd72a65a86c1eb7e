"""The trainer on a GPU: beside the PyTorch example's own loop, and how long `cifar10-best` takes.

    python -m benchmarks.train_gpu --peer pytorch-examples/dcgan/main.py
    python -m benchmarks.train_gpu --part whole --run-dir runs/cifar10-best --data-root data

Four parts, of which the first two take three minutes together and are what is run by default:

beside  64 px, batch 128: the peer (with --peer), our plain loop in its manner, and the trainer, in turns
        (train_step.py).
rates   `cifar10-best`: images a second plainly (float32, no graph, memory as it comes) and as `trainer train` does it,
        without what happens once a tick.
whole   `trainer train --preset cifar10-best`: all of its 12.8 M images, with everything a run does (sample grids,
        quality, checkpoints), and the minutes that took. Needs CIFAR-10.
lengths What runs that were trained before took, and the quality they measured at their end: `make reproduce` with
        `--train` trains the documents' presets to their whole lengths, and --runs names the folder of its runs.

For the first two noise takes the images' place where there are none: a step costs the same. Results are added to the
output file, a part in place of the same part of an earlier run, each with the machine it ran on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import train_step
from benchmarks.arguments import at_least_one, file_to_write
from benchmarks.machine import describe
from benchmarks.train_quality import PATHS
from imagesets import ImageSetError, load_image_set
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.training import devices
from trainer.training import loop as trainers
from trainer.training.state import TrainState

RESULTS = train_step.ROOT / "benchmarks" / "results" / "train_gpu.json"
PRESET = "cifar10-best"


def stepper(config: Config, path: str, data_root: Path) -> tuple[TrainState, Callable[[], None]]:
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
        config = loading.override(config, ["run.cuda_graphs=off"])
    devices.configure_process(config)
    state = PATHS[path](config)
    batches = Batches(images, config.optim.batch_size, seed=0, device=state.device, labels=labels, flip=data.flip)
    step = trainers.make_step(state)
    return state, lambda: trainers.train_iteration(state, batches, step)


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


def synchronize(state: TrainState) -> None:
    if state.device.type == "cuda":
        torch.cuda.synchronize()


def beside(arguments: argparse.Namespace) -> dict[str, object]:
    peer = arguments.peer.resolve() if arguments.peer else None
    return train_step.compare("examples-dcgan-128", peer, arguments.data_root, arguments.rounds, arguments.seconds)


def rates(arguments: argparse.Namespace) -> dict[str, object]:
    config = devices.resolve_auto(loading.resolve(PRESET))
    found = {path: images_per_second(config, path, arguments.data_root, arguments.seconds) for path in PATHS}
    print(f"{PRESET}: " + ", ".join(f"{path} {rate:.0f} img/s" for path, rate in found.items()), flush=True)
    return {
        "preset": PRESET,
        "batch_size": config.optim.batch_size,
        "n_critic": config.optim.n_critic,
        "precision": config.run.precision,
        "cuda_graphs": config.run.cuda_graphs,
        "images_per_second": {path: round(rate, 1) for path, rate in found.items()},
    }


def whole(arguments: argparse.Namespace) -> dict[str, object]:
    """`trainer train` from its start to its end, in a process of its own. Raises SystemExit when it fails."""
    sets = [f"data.source={arguments.source}", *arguments.set]
    command = [sys.executable, "-m", "trainer", "train", "--preset", PRESET]
    command += ["--run-dir", str(arguments.run_dir.resolve()), "--data-root", str(arguments.data_root.resolve())]
    for setting in sets:
        command += ["--set", setting]
    started = time.perf_counter()
    code = subprocess.run(command, cwd=train_step.ROOT, check=False).returncode
    if code:
        raise SystemExit(code)
    last = json.loads((arguments.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    result = {
        "preset": PRESET,
        "set": sets,
        "images": last["images_seen"],
        "minutes_of_training": round(last["seconds"] / 60, 2),
        "minutes_of_the_command": round((time.perf_counter() - started) / 60, 2),
        "images_per_second": round(last["images_seen"] / last["seconds"], 1),
    }
    print(f"whole: {result}", flush=True)
    return result


def lengths(arguments: argparse.Namespace) -> dict[str, object]:
    """The ends of finished runs, from their own metrics.jsonl and made_by.json."""
    found = []
    for run in sorted(arguments.runs.glob("*/metrics.jsonl")):
        ticks = [json.loads(line) for line in run.read_text(encoding="utf-8").splitlines()]
        made_by = json.loads((run.parent / "made_by.json").read_text(encoding="utf-8"))
        if "quality/frechet" in ticks[-1]:
            found.append(
                {
                    "preset": run.parent.name,
                    "gpu": made_by["machine"]["gpu"],
                    "kimg": ticks[-1]["images_seen"] / 1000,
                    "seconds": round(ticks[-1]["seconds"], 1),
                    "quality": [
                        {key: tick[f"quality/{key}"] for key in ("frechet", "recall")}
                        | {"kimg": tick["images_seen"] / 1000}
                        for tick in ticks
                        if "quality/frechet" in tick
                    ],
                }
            )
    return {"runs": found}


PARTS = {"beside": beside, "rates": rates, "whole": whole, "lengths": lengths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=["beside", "rates"])
    parser.add_argument("--peer", type=Path, help="PyTorch's examples/dcgan/main.py")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn and each measurement")
    parser.add_argument("--run-dir", type=Path, help="where `whole` trains; a new folder")
    parser.add_argument("--source", default="cifar10", help="the images of `whole`: such as folder:PATH@train")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="for `whole`")
    parser.add_argument("--runs", type=Path, help="the run folders of `lengths`")
    parser.add_argument("--output", type=file_to_write, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.peer and not arguments.peer.is_file():
        parser.error(f"no script at {arguments.peer}")
    if "whole" in arguments.part and (arguments.run_dir is None or arguments.run_dir.exists()):
        parser.error("`whole` trains into a new folder: --run-dir")
    if "lengths" in arguments.part and (arguments.runs is None or not arguments.runs.is_dir()):
        parser.error("`lengths` reads runs: --runs FOLDER")

    document = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.is_file() else {}
    for name in arguments.part:
        machine = describe()
        document[name] = {"machine": machine, **PARTS[name](arguments)}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"→ {arguments.output}")


if __name__ == "__main__":
    main()
