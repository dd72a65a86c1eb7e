"""Presets on few images: 1,000 of one CIFAR-10 class, after equal CPU time of each.

    python -m benchmarks.few_images --work runs/few [--seconds 900] [--resolution 32] [--data-root data]
    python -m benchmarks.few_images --cost [--resolution 64]        # only the CPU time per image, on random images

Each arm trains on one thread: one kimg first, to measure its speed, then as many as fit into `--seconds` of CPU time,
which does not depend on other work on the machine. Its generator is scored in EfficientNet-Lite0's features, once
against the class's test images and once against the training images. A stopped command resumes where it was, and a
larger `--seconds` continues the runs. Exit 1: a run or a score failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import imagesets
from benchmarks import harness
from trainer.config.loading import load_preset, resolve
from trainer.data import Batches
from trainer.reports.plots import read_metrics
from trainer.training import checkpoint, loop
from trainer.training.state import TrainState

UNCONDITIONAL = ("model.conditional=false", "optim.decay_kimg=null")
DIFFAUGMENT = "data.augment=[color,translation,cutout]"
ADAPTIVE = "data.ada_target=0.6"


@dataclass(frozen=True)
class Arm:
    """A preset and its settings."""

    preset: str
    settings: tuple[str, ...] = ()


ARMS = {
    "folder-small": Arm("folder-small"),
    "cifar10-small": Arm("cifar10-small", UNCONDITIONAL),
    "cifar10-small with DiffAugment": Arm("cifar10-small", (*UNCONDITIONAL, DIFFAUGMENT)),
    "cifar10-small with adaptive augmentation": Arm("cifar10-small", (*UNCONDITIONAL, DIFFAUGMENT, ADAPTIVE)),
    "folder-small without reconstruction": Arm("folder-small", ("objective.reconstruction_weight=0",)),
}


def widths(preset: str, resolution: int) -> list[str]:
    """Return the settings that fit a preset's networks to a resolution: it has or lacks the last layers."""
    sections = load_preset(preset)
    doublings = (resolution // sections["data"]["resolution"]).bit_length() - 1
    if resolution < sections["data"]["resolution"]:
        doublings = 1 - (sections["data"]["resolution"] // resolution).bit_length()
    found = [f"data.resolution={resolution}"]
    for name in ("g_widths", "d_widths") if preset == "folder-small" else ("g_widths",):
        values = sections["model"][name]
        halves = [max(8, values[-1] >> number) for number in range(1, doublings + 1)]
        found.append(f"model.{name}={values[:doublings] if doublings < 0 else values + halves}")
    return found


def run(*words: Any) -> str:
    """Return what a Python module prints; raise SystemExit with its last line if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise SystemExit(lines[-1] if lines else f"exit code {done.returncode}")
    return done.stdout


def cost(arm: Arm, resolution: int, steps: int) -> float:
    """Return the CPU milliseconds per real image of an arm's training steps, on one thread in float32."""
    machine = ("run.device=cpu", "run.precision=fp32", "run.cuda_graphs=false", "run.threads=1")
    config = resolve(arm.preset, [*widths(arm.preset, resolution), *arm.settings, *machine])
    torch.set_num_threads(1)
    state, size = TrainState.create(config), config.optim.batch_size
    images = np.random.default_rng(0).integers(0, 256, (200, resolution, resolution, 3), dtype=np.uint8)
    batches = Batches(images, size, seed=0, device=torch.device("cpu"))
    for step in range(3 + steps):
        if step == 3:
            started = time.process_time()
        loop.train_iteration(state, batches)
    return 1000 * (time.process_time() - started) / (steps * size)


def train(arm: Arm, run_dir: Path, images: Path, resolution: int, seconds: float) -> dict[str, float]:
    """Train an arm until it has used `seconds` of CPU time; return its images and CPU seconds."""
    if not (run_dir.is_dir() and checkpoint.paths(run_dir)):
        fields = [*widths(arm.preset, resolution), *arm.settings, f"data.source=folder:{images}"]
        fields += ["run.threads=1", "run.total_kimg=1", "run.tick_kimg=1", "run.checkpoint_ticks=10"]
        sets = [word for field in [*fields, "run.quality_ticks=0", "run.track=none"] for word in ("--set", field)]
        run("-m", "trainer", "train", "--preset", arm.preset, "--run-dir", run_dir, *sets)
    last = read_metrics(run_dir / "metrics.jsonl")[-1]
    kimg = last["images_seen"] / 1000 * seconds / last["cpu_seconds"]
    if kimg > last["images_seen"] / 1000 + 0.5:
        run("-m", "trainer", "resume", run_dir, "--kimg", f"{kimg:.1f}")
        last = read_metrics(run_dir / "metrics.jsonl")[-1]
    return {"kimg": last["images_seen"] / 1000, "cpu_seconds": last["cpu_seconds"]}


def score(run_dir: Path, reference: Path, extractor: Path, num_images: int) -> float:
    """Return the distance of a run's last checkpoint from the reference."""
    words = [checkpoint.paths(run_dir)[-1], reference, "--extractor", extractor, "--json", "--num-images", num_images]
    return float(json.loads(run("-m", "evaluation", "fid", *words))["value"])


def write_class(name: str, source: str, most: int, data_root: Path, path: Path) -> int:
    """Write the first images of a class into an .npz that `folder:` reads; return how many."""
    whole = imagesets.load(source, data_root=data_root)
    if whole.labels is None or name not in whole.class_names:
        raise SystemExit(f"{source} has no class {name}")
    chosen = whole.images[np.flatnonzero(whole.labels == whole.class_names.index(name))[:most]]
    np.savez(path, images=chosen)
    return len(chosen)


def main() -> None:
    """Train and score every arm."""
    parser = harness.make_parser(__doc__, "few_images")
    parser.add_argument("--work", type=harness.folder_to_write, help="the folder of images and runs")
    parser.add_argument("--cost", action="store_true", help="only measure the CPU time per image")
    parser.add_argument("--class-name", default="horse", help="of CIFAR-10; default: horse")
    parser.add_argument("--images", type=harness.at_least_one, default=1000, help="training images; default: 1000")
    parser.add_argument("--resolution", type=harness.at_least_one, default=32, help="side in pixels; default: 32")
    parser.add_argument("--seconds", type=harness.at_least_one, default=900, help="CPU time of each arm; default: 900")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="default: all")
    parser.add_argument("--train", default="cifar10@train", help="the labeled images; default: cifar10@train")
    parser.add_argument("--test", default="cifar10@test", help="those to score against; default: cifar10@test")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of the downloaded datasets")
    args = parser.parse_args()
    if args.cost:
        for name in args.arms:
            print(f"{name}: {cost(ARMS[name], args.resolution, 20):.1f} ms of CPU time per image", flush=True)
        return
    if args.work is None:
        parser.error("--work FOLDER or --cost is required")
    extractor = args.work / "efficientnet_lite0_160.onnx"
    if not extractor.is_file():
        run("-m", "evaluation", "extractor", "efficientnet-lite0", "--resolution", "160", "-o", extractor)
    images, references, counts = {}, {}, {}
    for split, source in (("train", args.train), ("test", args.test)):
        images[split] = args.work / f"{args.class_name}-{split}-{args.images}.npz"
        counts[split] = write_class(args.class_name, source, args.images, args.data_root, images[split])
        references[split] = images[split].with_name(f"{images[split].stem}-reference-{args.resolution}.npz")
        if not references[split].is_file():
            words = (f"folder:{images[split]}", "--extractor", extractor, "--resolution", args.resolution)
            run("-m", "evaluation", "reference", *words, "-o", references[split])
    document: dict[str, Any] = {"machine": harness.describe_machine(), "class": args.class_name, "images": counts}
    document |= {"resolution": args.resolution, "seconds": args.seconds, "arms": {}, "failed": {}}
    count = min(counts.values())
    for name in args.arms:
        run_dir = args.work / name.replace(" ", "-")
        with harness.attempt(name, document["failed"]):
            found: dict[str, Any] = train(ARMS[name], run_dir, images["train"], args.resolution, args.seconds)
            for split, path in references.items():
                found[f"distance_{split}"] = score(run_dir, path, extractor, count)
            document["arms"][name] = found
            print(
                f"{name}: {found['kimg']:.1f} kimg in {found['cpu_seconds']:.0f} s of CPU time "
                f"({1000 * found['kimg'] / found['cpu_seconds']:.0f} images/s); distance "
                f"{found['distance_test']:.1f} from test images, {found['distance_train']:.1f} from training images",
                flush=True,
            )
        harness.write(args.output, document)
    print(f"→ {args.output}")
    raise SystemExit(1 if document["failed"] else 0)


if __name__ == "__main__":
    main()
