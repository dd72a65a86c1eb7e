"""The work behind the pages: train, export, serve, score, each by the command that a user would type.

Everything lies in one folder and is gone on with when the command is given again: runs, generator files, scores.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.processes import child_environment, python_module
from examples.reproduce.plan import IMAGES, System
from imagesets import load_image_set

METRICS = "fid,precision,recall"


@dataclass(frozen=True)
class Workshop:
    """Where the work lies, where its images come from, and how long a training may take."""

    folder: Path
    data_root: Path
    sources: dict[str, str]  # images → what imagesets calls them
    minutes: float | None = None  # of training, each system; none: the document's length
    inception: Path | None = None  # an extractor file, for FID beside the classifier's distance
    sets: tuple[str, ...] = ()  # for every run
    num_images: int | None = None  # of a score; none: the plan's

    def training_source(self, images: str) -> str:
        """What is trained on: never what is held out for the score, which a folder as a whole would hold too."""
        source = self.sources[images]
        return f"{source}@train" if source.startswith("folder:") else source

    def run_of(self, system: System) -> Path:
        return self.folder / "runs" / system.preset

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def extractor(self, images: str) -> Path:
        return self.folder / "extractors" / f"{images}.onnx"

    def count(self, images: str) -> int:
        """How many images a score takes."""
        return self.num_images or IMAGES[images].num_images

    def call(self, *words: str | Path, module: str) -> None:
        """Show a command and run it. Raises SystemExit with its exit code when it fails."""
        say(f"\n$ {shlex.join([module, *map(str, words)])}")
        if module == "trainer":  # here: a process for each would import torch as often
            from trainer.cli import app

            code = app(list(map(str, words)), standalone_mode=False) or 0
        else:
            code = subprocess.run(
                [*python_module(module), *map(str, words)], env=child_environment(), check=False
            ).returncode
        if code:
            raise SystemExit(code)


def say(text: str) -> None:
    print(text, flush=True)


def ticks_of(run: Path) -> list[dict[str, Any]]:
    """The run's lines of metrics.jsonl, oldest first; none yet: empty."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def train(shop: Workshop, system: System) -> None:
    """Train the system to its document's length, or as many minutes as there are; an interrupted one goes on."""
    run = shop.run_of(system)
    seconds = float(ticks_of(run)[-1]["seconds"]) if ticks_of(run) else 0.0
    left = None if shop.minutes is None else shop.minutes * 60 - seconds
    if left is not None and left <= 0:
        return
    roots = ["--data-root", str(shop.data_root)]
    if any(run.glob("checkpoint-*.pt")):
        begun_otherwise(shop, system)
        words = ["resume", str(run), *roots]
    else:
        tick = system.tick_kimg if shop.minutes else max(system.tick_kimg, system.kimg / 100)
        settings = (
            f"data.source={shop.training_source(system.images)}",
            f"run.total_kimg={system.kimg:g}",
            f"run.tick_kimg={tick:g}",
            "run.checkpoint_ticks=1",
            "run.keep_checkpoints=1000",
            *shop.sets,
        )
        words = ["train", "--preset", system.preset, "--run-dir", str(run), *roots]
        for setting in settings:
            words += ["--set", setting]
    say(f"\n$ {shlex.join(['trainer', *words])}" + ("" if left is None else f"    # {left / 60:.1f} minutes of it"))
    process = subprocess.Popen([*python_module("trainer"), *words], env=child_environment(), process_group=0)
    code = until(process, left, started=run)
    if code not in (0, 130):
        raise SystemExit(code)


def begun_otherwise(shop: Workshop, system: System) -> None:
    """SystemExit, when a run that would go on was begun with other images or another --set."""
    from trainer.config import loading

    run = shop.run_of(system)
    ran = loading.parse(json.loads((run / "config.json").read_text(encoding="utf-8")))
    decided = tuple(setting for setting in shop.sets if not setting.endswith("=auto"))  # the machine has, since
    asked = (f"data.source={shop.training_source(system.images)}", *decided)
    told = loading.differences(ran, loading.override(ran, asked))
    if told:
        print(f"error: {run} was begun otherwise ({'; '.join(told)}); give another --work", file=sys.stderr)
        raise SystemExit(2)


def until(process: subprocess.Popen[bytes], seconds: float | None, started: Path) -> int:
    """Wait for a training; after so many seconds of it, or on Ctrl-C, have it save and stop. Returns its exit code."""
    try:
        if seconds is not None:
            while process.poll() is None and not any((started / "tensorboard").glob("*")):
                time.sleep(0.2)  # starting up is no training
            process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


def tick_at(run: Path, *, images_seen: float = float("inf"), seconds: float = float("inf")) -> dict[str, Any] | None:
    """The last tick within so many images and seconds that has a checkpoint."""
    fit = [
        line
        for line in ticks_of(run)
        if line["images_seen"] <= images_seen
        and line["seconds"] <= seconds
        and checkpoint_of(run, int(line["step"])).is_file()
    ]
    return fit[-1] if fit else None


def checkpoint_of(run: Path, step: int) -> Path:
    return run / f"checkpoint-{step:08d}.pt"


def model_name(system: System, step: int, ema: bool) -> str:
    return f"{system.preset}-{step:08d}" + ("" if ema else "-last")


def export(shop: Workshop, system: System, step: int, ema: bool) -> str:
    """The generator file of a checkpoint, if it isn't there yet; returns the name that it is served by."""
    name = model_name(system, step, ema)
    if not (shop.models / f"{name}.onnx").is_file():
        words = ["export", checkpoint_of(shop.run_of(system), step), "--output", shop.models, "--name", name]
        shop.call(*words, "--ema" if ema else "--no-ema", module="trainer")
    return name


def judges(shop: Workshop, images: str) -> bool:
    """The classifier that scores these images, trained on their train split; False where they have no labels."""
    if not shop.extractor(images).is_file():
        if load_image_set(shop.sources[images], data_root=shop.data_root).labels is None:
            say(f"not scored: {images}: there are no labels to train a classifier on; --inception scores them")
            return False
        words = ["extractor", "classifier", "--images", shop.sources[images], "--data-root", shop.data_root]
        shop.call(*words, "--output", shop.extractor(images), "--name", images, module="evaluation")
    return True


def unscored(shop: Workshop, images: str, model: str) -> list[tuple[Path, Path]]:
    """The extractors that have not scored a model yet, each with the folder of its report."""
    folder = folder_of(shop, images, model)
    judges = ((shop.extractor(images), folder), (shop.inception, folder / "inception"))
    return [(file, at) for file, at in judges if file and file.is_file() and not (at / "report.json").is_file()]


def score(shop: Workshop, url: str, images: str, model: str) -> None:
    """Score a served model by every extractor that has not done so."""
    for extractor, at in unscored(shop, images, model):
        words = ["score", url, "--model", model, "--reference", f"{shop.sources[images]}@test", "--metrics", METRICS]
        words += ["--extractor", str(extractor), "--num-images", str(shop.count(images))]
        words += ["--resolution", "reference", "--data-root", str(shop.data_root), "--output", str(at)]
        shop.call(*words, module="evaluation")


def folder_of(shop: Workshop, images: str, model: str) -> Path:
    """Where the reports of a model lie, by how many images they are of."""
    return shop.folder / "scores" / f"{model}-{shop.count(images)}"


def scores_of(shop: Workshop, images: str, model: str) -> dict[str, Any]:
    """name → value of every metric of a model's reports, and `reals`: the same of real images. Empty: not scored."""
    found: dict[str, Any] = {}
    folder = folder_of(shop, images, model)
    for path in (folder / "report.json", folder / "inception" / "report.json"):
        if path.is_file():
            document = json.loads(path.read_text(encoding="utf-8"))
            found |= document["scores"]
            if document["baseline"]:
                found.setdefault("reals", {}).update({r["name"]: r["value"] for r in document["baseline"]["results"]})
            found["extractor_accuracy"] = found.get("extractor_accuracy") or document["extractor"].get("accuracy")
    return found


def compare(shop: Workshop, runs: Sequence[Path], output: Path) -> None:
    """`trainer compare` of runs."""
    shop.call("compare", *runs, "--output", output, module="trainer")
