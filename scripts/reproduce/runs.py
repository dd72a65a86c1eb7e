"""Which presets are trained, for how long, and where their files are."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

RESULTS = Path("docs/results")
CLASSIFIERS = RESULTS / "extractors"  # those that scored the tables, so that later rows compare
DATASETS = {"mnist": 10_000, "cifar10": 5_000, "celeba": 10_000}  # → images per score
SIDES = {"mnist": 28, "cifar10": 32, "celeba": 64}  # images are compared at this size
# Thousands of images after which the average is kept, in addition to the end, so that runs can be compared on the way
POINTS = (10, 30, 60, 90, 120, 180, 240, 300, 360, 480, 600, 840, 1020, 1500, 3000, 6000, 9000)
POINT_IMAGES = 5_000  # per score of such a point, at most
TOLERANCE = 1.1  # a tick up to this factor after a point is taken for it
# Extractor → the heading of its distance. The first that scored leads a table: its precision and recall are shown.
FEATURES = {
    "inception": "FID",
    "classifier": "classifier",
    "efficientnet": "EfficientNet",
    "random": "random convolutions",
}
# A classifier of MNIST's own ten classes is the finest on digits. On photographs ImageNet's features are.
ORDER = {
    "mnist": ("inception", "classifier", "efficientnet", "random"),
    "cifar10": ("inception", "efficientnet", "classifier", "random"),
    "celeba": ("inception", "efficientnet", "random"),
}

say = partial(print, flush=True)


@dataclass(frozen=True)
class Run:
    """One preset to train; `kimg` is its full length, the source's where the source has one."""

    preset: str
    sources: tuple[str, ...]  # the write-ups that describe it, by page name; none: one of our own presets
    dataset: str
    kimg: float
    tick_kimg: float  # between two checkpoints
    short_tick_kimg: float  # the same of a run that is stopped after some minutes


RUNS = (
    Run("mnist-gan", ("kunal627", "comparison"), "mnist", 1500, 30, 10),
    Run("mnist-gan-2", ("kunal627",), "mnist", 1020, 30, 10),
    Run("mnist-dcgan", ("kunal627", "comparison"), "mnist", 1020, 30, 5),
    Run("mnist-dcgan-2g", ("kunal627",), "mnist", 1020, 30, 5),
    Run("mnist-dcgan-64", ("divyam25",), "mnist", 900, 30, 2),
    Run("cifar10-dcgan", ("aiden-ross-dsouza",), "cifar10", 250, 10, 2),
    # The notebook takes the critic's five steps on one batch, the trainer on five: five times the images per epoch.
    Run("cifar10-wgan", ("aiden-ross-dsouza",), "cifar10", 1250, 60, 4),
    Run("celeba-dcgan", ("thirty-questions",), "celeba", 1000, 60, 50),
    Run("mnist-best", (), "mnist", 480, 30, 5),
    Run("mnist-best-unconditional", (), "mnist", 300, 30, 5),
    Run("cifar10-small", (), "cifar10", 200, 10, 5),
    Run("cifar10-best", (), "cifar10", 12_800, 240, 4),
)
SOURCES = tuple(dict.fromkeys(source for run in RUNS for source in run.sources))


@dataclass(frozen=True)
class Trial:
    """A run with one seed."""

    run: Run
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.run.preset}-seed{self.seed}" if self.seed else self.run.preset


@dataclass(frozen=True)
class Point:
    """A generator that was kept on the way or at the end: its file, and the metrics of its tick."""

    path: Path
    tick: dict[str, float]


@dataclass(frozen=True)
class Job:
    """One score: a generator file in an extractor's features."""

    dataset: str
    model: Path
    features: str
    count: int
    at_end: bool  # served, with precision, recall and the score of real images; else the file's images, a distance


@dataclass(frozen=True)
class ReproductionContext:
    """Where the work is kept, where its images come from, and how long a training may take."""

    folder: Path
    data_root: Path
    images: dict[str, str]  # dataset → the name that imagesets knows it by
    minutes: float | None = None  # of training per run; None: the full length
    inception: Path | None = None  # an extractor file, for FID in addition to the other distances
    sets: tuple[str, ...] = ()  # for every run
    num_images: int | None = None  # per score; None: DATASETS
    collection: Path | None = None  # the folder of exported generators; None: `collected` in `folder`
    features: tuple[str, ...] = ()  # which extractors score; none: all that are available
    points: bool = True  # whether generators are kept on the way

    @property
    def collected(self) -> Path:
        return self.collection or self.folder / "collected"

    def training_images(self, dataset: str) -> str:
        """The images to train on: never those held out for the score, which a whole folder would include."""
        images = self.images[dataset]
        return f"{images}@train" if images.startswith("folder:") else images

    def run_dir(self, trial: Trial) -> Path:
        return self.folder / "runs" / trial.name

    def record(self, trial: Trial) -> Path:
        """The folder of a run's collected metrics, config and pictures."""
        return self.collected / "runs" / trial.name

    def model(self, trial: Trial, step: float, averaged: bool = True) -> Path:
        """The generator at the end of a run."""
        return self.collected / "models" / f"{trial.name}-{step:08.0f}{'' if averaged else '-last'}.onnx"

    def point(self, trial: Trial, step: float) -> Path:
        """The averaged generator of a step on the way."""
        return self.collected / "points" / f"{trial.name}-{step:08.0f}.onnx"

    def extractor(self, name: str) -> Path:
        return self.folder / "extractors" / f"{name}.onnx"

    def classifier(self, dataset: str) -> Path:
        """The classifier of a dataset's classes: the one that scored the published tables, or one to train."""
        published = CLASSIFIERS / f"{dataset}.onnx"
        return published if self.images[dataset] == dataset and published.is_file() else self.extractor(dataset)

    def count(self, dataset: str) -> int:
        return self.num_images or DATASETS[dataset]

    @property
    def point_count(self) -> int:
        """How many images of a generator on the way are scored."""
        return min(self.count("mnist"), POINT_IMAGES)

    def report(self, job: Job) -> Path:
        """The folder of a score's report."""
        return self.folder / "scores" / f"{job.model.stem}-{job.count}{'' if job.at_end else '-point'}" / job.features


def select(only: list[str]) -> tuple[Run, ...]:
    """Return the runs of these sources, datasets or presets (`ours`: our own presets), in this order; all without."""
    names = [*SOURCES, "ours", *DATASETS, *(run.preset for run in RUNS)]
    if unknown := [name for name in only if name not in names]:
        raise fail(f"there is no {', '.join(unknown)}; choose from {', '.join(names)}")

    def position(run: Run) -> float:
        ours = {run.preset, run.dataset, *(run.sources or ("ours",))}
        return min((place for place, name in enumerate(only) if name in ours), default=math.inf)

    return tuple(sorted((run for run in RUNS if not only or position(run) < math.inf), key=position))


def fail(reason: str) -> SystemExit:
    """Print a user's mistake as one line; return the exit with code 2."""
    print(f"error: {reason}", file=sys.stderr)
    return SystemExit(2)


def trials_in(folder: Path) -> Iterator[Trial]:
    """Yield the trials that have a folder here, in the order of RUNS."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for run in RUNS:
        seeds = [0] if run.preset in names else []
        seeds += sorted(int(match[1]) for name in names if (match := re.fullmatch(rf"{run.preset}-seed(\d+)", name)))
        yield from (Trial(run, seed) for seed in seeds)


def read_ticks(run_dir: Path) -> list[dict[str, float]]:
    """Return the lines of a run's metrics.jsonl, oldest first; none yet: an empty list."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be being written


def points(context: ReproductionContext, trial: Trial) -> list[Point]:
    """Return the averaged generators of a trial in the collected folder, oldest first; the last is its end."""
    ticks = {f"{tick['step']:08.0f}": tick for tick in read_ticks(context.record(trial))}
    found: list[Point] = []
    for folder in ("points", "models"):
        for path in (context.collected / folder).glob(f"{trial.name}-*.onnx"):
            step = path.stem.removeprefix(f"{trial.name}-")
            found += [Point(path, ticks[step])] if step in ticks else []
    found.sort(key=lambda point: point.tick["step"])
    return found if found and found[-1].path.parent.name == "models" else []


def collected(context: ReproductionContext) -> tuple[Trial, ...]:
    """Return the trials whose last generator is in the collected folder."""
    return tuple(trial for trial in trials_in(context.collected / "runs") if points(context, trial))


def read_report(context: ReproductionContext, job: Job) -> dict[str, Any]:
    """Return a job's report; none yet: an empty dictionary."""
    path = context.report(job) / "report.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
