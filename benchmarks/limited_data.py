"""Training on few images, with and without adaptive augmentation: distances after equally many images.

    python -m benchmarks.limited_data --work runs/limited [--shares 10 1] [--kimg 300] [--jobs 2] [--data-root data]

Each share of the training images (`data.max_images`, balanced over the classes) is trained twice, with the same
settings but for `data.augment` and `data.ada_target`, and scored against the test images. The defaults are short runs
for a CPU: cifar10-small at 16 px with a narrower G, learning rates that fall to 0 in the second half, and without
mirrored images, which hold back a D that memorizes. `--set` changes any field of all runs; give other settings another
`--work`.

A stopped command resumes where it was; runs that are finished and scored are not repeated, and shares may have
different lengths. Every result is written as soon as it is known. Exit 1: a run or a score failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks import harness, report
from imagesets import ImageSetError, load_image_set
from trainer.config.loading import load_config
from trainer.errors import TrainerError
from trainer.reports.plots import read_metrics
from trainer.training import checkpoint

PRESET = "cifar10-small"
SETTINGS = (
    *("data.resolution=16", "data.flip=false", "model.g_widths=[64,32]", "run.threads=1"),
    *("run.tick_kimg=10", "run.checkpoint_ticks=1", "run.quality_ticks=0", "run.track=none"),
)
ADAPTIVE = (
    "data.augment=[flip,rotate90,scale,color,brightness,contrast,translation,cutout]",
    "data.ada_target=0.6",
)
ARMS = {"without": (), "adaptive": ADAPTIVE}  # and their settings
LAST = ("augment/p", "augment/r_t", "D/real", "D/fake", "cpu_seconds")  # kept of a run's last tick


@dataclass(frozen=True)
class Trial:
    """One training: a share of the images in percent, and an arm."""

    percent: float
    arm: str
    kimg: float

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return f"{self.percent:g}-{self.arm}-{self.kimg:g}kimg"

    @property
    def share(self) -> str:
        """The key of its share in the document."""
        return f"{self.percent:g}"


def train(trial: Trial, run_dir: Path, count: int, settings: Sequence[str], data_root: Path) -> None:
    """Train a run of `count` images, or resume it; raise SystemExit with the command's last line if it fails."""
    root = ("--data-root", str(data_root))
    if run_dir.is_dir() and checkpoint.paths(run_dir):
        words = ["resume", str(run_dir), *root]
    else:
        fields = (*with_length(settings, trial.kimg), *ARMS[trial.arm], f"data.max_images={count}")
        words = ["train", "--preset", PRESET, "--run-dir", str(run_dir), *root]
        words += [word for field in fields for word in ("--set", field)]
    run("-m", "trainer", *words)


def with_length(settings: Sequence[str], kimg: float) -> list[str]:
    """Return the settings of a run of a length; its rates fall in the second half unless the settings say otherwise."""
    return [f"optim.decay_kimg=[{kimg / 2:g},{kimg:g}]", *settings, f"run.total_kimg={kimg:g}"]


def score(run_dir: Path, reference: Path, extractor: Path, num_images: int) -> float:
    """Return the distance of a run's last checkpoint from the reference file."""
    words = (checkpoint.paths(run_dir)[-1], reference, "--extractor", extractor, "--num-images", num_images)
    return float(json.loads(run("-m", "evaluation", "fid", *words, "--json"))["value"])


def run(*words: Any) -> str:
    """Return what a Python module prints; raise SystemExit with its last line if it fails."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"})
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise SystemExit(lines[-1] if lines else f"exit code {done.returncode}")
    return done.stdout


def main() -> None:
    """Train and score every share with and without adaptive augmentation."""
    parser = harness.make_parser(__doc__, "limited_data")
    parser.add_argument("--work", type=harness.folder_to_write, required=True, help="the folder of the runs")
    parser.add_argument("--source", default="cifar10", help="training images; default: cifar10")
    parser.add_argument(
        "--reference", default="cifar10@test", help="images to score against, or their .npz of `evaluation reference`"
    )
    parser.add_argument("--extractor", type=harness.existing_file, help="default: EfficientNet-Lite0 at 160 px")
    parser.add_argument("--shares", type=float, nargs="+", default=[10, 1, 20, 100], help="percent of the images")
    parser.add_argument("--kimg", type=float, default=300, help="length of each run")
    parser.add_argument("--num-images", type=harness.at_least_one, default=5000, help="of each side of a score")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--jobs", type=harness.at_least_one, default=1, help="runs at a time")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of the downloaded datasets")
    args = parser.parse_args()
    settings = (*SETTINGS, *args.settings, f"data.source={args.source}")
    try:
        config = load_config(PRESET, [*with_length(settings, args.kimg), *ADAPTIVE])
        total = len(load_image_set(args.source, resolution=config.data.resolution, data_root=args.data_root))
    except (TrainerError, ImageSetError) as error:
        parser.error(str(error))
    counts = {percent: round(total * percent / 100) for percent in args.shares}
    if small := [f"{percent:g}" for percent, count in counts.items() if not config.optim.batch_size <= count <= total]:
        parser.error(f"--shares {' '.join(small)}: a share has at least a batch of images, and at most all")
    try:
        extractor = args.extractor or build_extractor(args.work)
        reference = build_reference(args, extractor, config.data.resolution)
    except SystemExit as error:
        parser.error(str(error).removeprefix("error: "))

    protocol = {
        "preset": PRESET,
        "settings": [each for each in settings if not each.startswith("data.source=")],
        "adaptive": list(ADAPTIVE),
        "extractor": extractor.stem,
        "num_images": args.num_images,
        "resolution": config.data.resolution,
    }
    document = harness.read(args.output)
    if {key: document.get(key) for key in protocol} != json.loads(json.dumps(protocol)):
        document = {"machine": harness.describe_machine(), **protocol, "runs": {}}  # earlier results do not compare
    document["failed"] = failed = {}
    runs = document["runs"]
    lock = Lock()

    def measure(trial: Trial) -> None:
        run_dir, count = args.work / trial.name, counts[trial.percent]
        with harness.attempt(trial.name, failed):
            train(trial, run_dir, count, settings, args.data_root)
            last = read_metrics(run_dir / "metrics.jsonl")[-1]
            kept = {name: last[name] for name in LAST if name in last}
            distance = score(run_dir, reference, extractor, args.num_images)
            found = {"images": count, "kimg": trial.kimg, "distance": distance, **kept}
            with lock:
                arms = runs.get(trial.share, {}).items()  # a share's arms have one length
                runs[trial.share] = {arm: run for arm, run in arms if run["kimg"] == trial.kimg} | {trial.arm: found}
            print(f"{trial.name}: {count:,} images, distance {distance:.1f}", flush=True)
        with lock:
            harness.write(args.output, document)

    trials = [Trial(percent, arm, args.kimg) for percent in args.shares for arm in ARMS]
    trials = [each for each in trials if runs.get(each.share, {}).get(each.arm, {}).get("kimg") != each.kimg]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(measure, trials))
    print(report.limited_data_table(document))
    print(f"→ {args.output}")
    raise SystemExit(1 if failed else 0)


def build_extractor(folder: Path) -> Path:
    """Return the extractor file in a folder, built first if it is missing."""
    path = folder / "efficientnet_lite0_160.onnx"
    if not path.is_file():
        run("-m", "evaluation", "extractor", "efficientnet-lite0", "--resolution", "160", "-o", path)
    return path


def build_reference(arguments: argparse.Namespace, extractor: Path, resolution: int) -> Path:
    """Return the statistics of the images to score against, computed once per extractor, size and number."""
    if arguments.reference.endswith(".npz"):
        return Path(arguments.reference)
    count = arguments.num_images
    path: Path = arguments.work / f"reference-{resolution}px-{count}-{extractor.stem}.npz"
    if not path.is_file():
        words = (arguments.reference, "--extractor", extractor, "--resolution", resolution, "--num-images", count)
        run("-m", "evaluation", "reference", *words, "--data-root", arguments.data_root, "--output", path)
    return path


if __name__ == "__main__":
    main()
