"""Train the presets that reproduce published GANs, score what the service returns, write docs/results.

    python -m scripts.reproduce --data-root data                           # every run at its full length
    python -m scripts.reproduce mnist-gan --data-root data --minutes 10    # one run, ten minutes of training
    python -m scripts.reproduce --pages                                    # only write the pages again

Each step is a command of this repository and is printed before it runs. Give the same command again to resume.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

import imagesets
from artifacts.processes import child_environment, interruptible, python_module
from artifacts.terminal import prepare_streams
from evaluation.errors import EvaluationError
from evaluation.extractors import load_extractor
from examples.serving import run as call
from examples.serving import service
from scripts import fid_mistakes
from trainer import networks
from trainer.config import loading
from trainer.reports import image_grids

RESULTS = Path("docs/results")
TEMPLATE = Path(__file__).with_name("results.md.j2")
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- /table -->)", re.DOTALL)
METRICS = "fid,precision,recall"
NUM_IMAGES = {"mnist": 10_000, "cifar10": 5_000, "celeba": 10_000}
SIDES = {"mnist": 28, "cifar10": 32, "celeba": 64}  # images are compared at this size
COLLAPSED = 0.01  # a recall below it: next to nothing of the real images is covered


@dataclass(frozen=True)
class Run:
    """One training run; `kimg` is its full length, the source's where the source has one."""

    preset: str
    sources: tuple[str, ...]  # the write-ups that describe it, by page name; none: one of our own presets
    dataset: str
    kimg: float
    tick_kimg: float  # between two checkpoints of a shortened run


RUNS = (
    Run("mnist-gan", ("kunal627", "comparison"), "mnist", 1500, 10),
    Run("mnist-gan-2", ("kunal627",), "mnist", 1020, 10),
    Run("mnist-dcgan", ("kunal627", "comparison"), "mnist", 1020, 5),
    Run("mnist-dcgan-2g", ("kunal627",), "mnist", 1020, 5),
    Run("mnist-dcgan-64", ("divyam25",), "mnist", 900, 2),
    Run("cifar10-dcgan", ("aiden-ross-dsouza",), "cifar10", 250, 2),
    # The notebook takes the critic's five steps on one batch, the trainer on five: five times the images per epoch.
    Run("cifar10-wgan", ("aiden-ross-dsouza",), "cifar10", 1250, 4),
    Run("celeba-dcgan", ("thirty-questions",), "celeba", 1000, 50),
    Run("mnist-best", (), "mnist", 600, 5),
    Run("cifar10-small", (), "cifar10", 200, 5),
    Run("cifar10-best", (), "cifar10", 12_800, 4),
)
say = partial(print, flush=True)
SOURCES = tuple(dict.fromkeys(source for run in RUNS for source in run.sources))


@dataclass(frozen=True)
class ReproductionContext:
    """Where the work is kept, where its images come from, and how long a training may take."""

    folder: Path
    data_root: Path
    images: dict[str, str]  # dataset → the name that imagesets knows it by
    minutes: float | None = None  # of training per run; None: the full length
    inception: Path | None = None  # an extractor file, for FID in addition to the classifier's distance
    sets: tuple[str, ...] = ()  # for every run
    num_images: int | None = None  # per score; None: NUM_IMAGES

    def training_images(self, dataset: str) -> str:
        """The images to train on: never those held out for the score, which a whole folder would include."""
        images = self.images[dataset]
        return f"{images}@train" if images.startswith("folder:") else images

    def run_dir(self, run: Run) -> Path:
        return self.folder / "runs" / run.preset

    def model(self, run: Run, step: float, averaged: bool) -> Path:
        return self.folder / "models" / f"{run.preset}-{step:08.0f}{'' if averaged else '-last'}.onnx"

    def extractor(self, dataset: str) -> Path:
        return self.folder / "extractors" / f"{dataset}.onnx"

    def count(self, dataset: str) -> int:
        return self.num_images or NUM_IMAGES[dataset]

    def scores_dir(self, dataset: str, model: str) -> Path:
        return self.folder / "scores" / f"{model}-{self.count(dataset)}"


def main() -> None:
    prepare_streams()
    arguments = parse_arguments()
    runs, output = select(arguments.only), arguments.output or RESULTS
    index = output / "index.md"
    if index.is_file() and not TABLE.search(index.read_text(encoding="utf-8", errors="replace")):
        raise fail(f"{index} has no place for the tables; give another --output")
    for folder in (arguments.work, output):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise fail(f"could not make {folder}: {error.strerror or error}") from None
    images = {dataset: getattr(arguments, dataset) for dataset in NUM_IMAGES}
    options = (arguments.minutes, arguments.inception, tuple(arguments.set), arguments.num_images)
    context = ReproductionContext(arguments.work, arguments.data_root, images, *options)
    try:
        with interruptible():  # also by SIGTERM and SIGHUP: the current training saves and stops
            if not arguments.pages:
                for run in runs:
                    if is_available(context, run):
                        train(context, run)
                score_all(context)
            output = arguments.output or results_folder(context)
            write(context, output)
    except KeyboardInterrupt:
        raise SystemExit("\nstopped; give the same command again to resume") from None
    say(f"\nwritten: {output / 'index.md'}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join((*SOURCES, "ours"))
    parser.add_argument("only", nargs="*", metavar="ONLY", help=f"{names}, or a preset; default: all")
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("DATA_ROOT", "data")))
    for dataset in NUM_IMAGES:
        replaces = f"replaces {dataset}, for example folder:PATH"
        parser.add_argument(f"--{dataset}", default=dataset, metavar="SOURCE", help=replaces)
    parser.add_argument("--minutes", type=float, help="of training per run, at most; default: the full length")
    parser.add_argument("--inception", type=Path, help="an Inception extractor file, for FID as well")
    parser.add_argument("--num-images", type=int, help="per score; default: 10,000, for CIFAR-10 5,000")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="for every run")
    parser.add_argument("--work", type=Path, default=Path("reproduce"), help="folder for runs and scores")
    parser.add_argument("--output", type=Path, help=f"folder for the pages; default: {RESULTS}")
    parser.add_argument("--pages", action="store_true", help="only write the pages")
    arguments = parser.parse_args()
    if arguments.minutes is not None and not 0 < arguments.minutes < math.inf:
        parser.error("--minutes must be above 0")
    if arguments.num_images is not None and arguments.num_images < 2:
        parser.error("--num-images must be at least 2")
    for dataset in NUM_IMAGES:
        source, at, split = getattr(arguments, dataset).rpartition("@")
        if at:
            parser.error(f"--{dataset} {source}@{split}: both splits are used, train and test; leave out @{split}")
    if arguments.inception is not None:
        try:
            load_extractor(arguments.inception)
        except EvaluationError as error:
            parser.error(f"--inception: {error}; `evaluation extractor inception` makes such a file")
    return arguments


def select(only: list[str]) -> tuple[Run, ...]:
    """Return the runs of these sources or presets (`ours`: our own presets); all without a name."""
    names = [*SOURCES, "ours", *(run.preset for run in RUNS)]
    if unknown := [name for name in only if name not in names]:
        raise fail(f"there is no {', '.join(unknown)}; choose from {', '.join(names)}")
    return tuple(run for run in RUNS if not only or {run.preset, *(run.sources or ("ours",))} & set(only))


def fail(reason: str) -> SystemExit:
    """Print a user's mistake as one line; return the exit with code 2."""
    print(f"error: {reason}", file=sys.stderr)
    return SystemExit(2)


def is_available(context: ReproductionContext, run: Run) -> bool:
    """Whether the run's images can be loaded; prints why where they cannot."""
    try:
        imagesets.load(context.images[run.dataset], data_root=context.data_root)
    except imagesets.ImageSetError as error:
        say(f"not run: {run.preset}: {error}")
        return False
    return True


def read_ticks(run_dir: Path) -> list[dict[str, float]]:
    """Return the lines of a run's metrics.jsonl, oldest first; none yet: an empty list."""
    path = run_dir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def last_tick(run_dir: Path, images_seen: float = math.inf) -> dict[str, float] | None:
    """Return the last tick within so many images that has a checkpoint."""
    ticks = [tick for tick in read_ticks(run_dir) if tick["images_seen"] <= images_seen]
    return next((tick for tick in reversed(ticks) if checkpoint_of(run_dir, tick).is_file()), None)


def checkpoint_of(run_dir: Path, tick: dict[str, float]) -> Path:
    return run_dir / f"checkpoint-{tick['step']:08.0f}.pt"


def trained(context: ReproductionContext) -> tuple[Run, ...]:
    """Return the runs that have a checkpoint."""
    return tuple(run for run in RUNS if last_tick(context.run_dir(run)))


def train(context: ReproductionContext, run: Run) -> None:
    """Train a run to its full length or for the allowed minutes; resume one that was interrupted."""
    run_dir = context.run_dir(run)
    ticks = read_ticks(run_dir)
    left = None if context.minutes is None else context.minutes * 60 - (float(ticks[-1]["seconds"]) if ticks else 0.0)
    if left is not None and left <= 0:
        return
    if any(run_dir.glob("checkpoint-*.pt")):
        check_settings(context, run)
        words = ["resume", str(run_dir)]
    else:
        tick_kimg = run.tick_kimg if context.minutes else max(run.tick_kimg, run.kimg / 100)
        settings = (
            f"data.source={context.training_images(run.dataset)}",
            f"run.total_kimg={run.kimg:g}",
            f"run.tick_kimg={tick_kimg:g}",
            "run.checkpoint_ticks=1",
            "run.keep_checkpoints=1000",
            *context.sets,
        )
        words = ["train", "--preset", run.preset, "--run-dir", str(run_dir)]
        words += [word for setting in settings for word in ("--set", setting)]
    words += ["--data-root", str(context.data_root)]
    limit = "" if left is None else f"    # stopped after {left / 60:.1f} min"
    say(f"\n$ {shlex.join(['trainer', *words])}{limit}")
    process = subprocess.Popen([*python_module("trainer"), *words], env=child_environment(), process_group=0)
    code = wait(process, left, run_dir)
    if code not in (0, 130):
        raise SystemExit(code)
    call("trainer", "report", run_dir)  # a run that was stopped has no curves yet


def check_settings(context: ReproductionContext, run: Run) -> None:
    """Exit when a run to resume was started with other images or another --set."""
    run_dir = context.run_dir(run)
    started = loading.parse(json.loads((run_dir / "config.json").read_text(encoding="utf-8")))
    resolved = tuple(setting for setting in context.sets if not setting.endswith("=auto"))
    requested = (f"data.source={context.training_images(run.dataset)}", *resolved)
    if changed := loading.differences(started, loading.override(started, requested)):
        raise fail(f"{run_dir} was started with other settings ({'; '.join(changed)}); give another --work")


def wait(process: subprocess.Popen[bytes], seconds: float | None, run_dir: Path) -> int:
    """Wait for a training; after so many seconds of it, or on Ctrl-C, make it save and stop. Returns its exit code."""
    try:
        if seconds is not None:
            while process.poll() is None and not any((run_dir / "tensorboard").glob("*")):
                time.sleep(0.2)  # starting up does not count as training
            process.wait(seconds)
        return process.wait()
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


def ticks_to_score(context: ReproductionContext, run: Run) -> list[dict[str, float]]:
    """Return a run's last tick and, for the two compared runs, the last one within the images that both saw."""
    ends = {other: tick for other in RUNS if (tick := last_tick(context.run_dir(other)))}
    compared = [tick["images_seen"] for other, tick in ends.items() if "comparison" in other.sources]
    ticks = [ends.get(run)]
    if "comparison" in run.sources and len(compared) == 2:
        ticks.append(last_tick(context.run_dir(run), min(compared)))
    return [tick for tick in ticks if tick]


def score_all(context: ReproductionContext) -> None:
    """Export, serve and score every run: the average, and for a source's run the last step as well."""
    missing = []
    for run in trained(context):
        if not make_extractor(context, run.dataset) and context.inception is None:
            continue
        for tick in ticks_to_score(context, run):
            for averaged in (True, False) if run.sources else (True,):
                model = context.model(run, tick["step"], averaged)
                if not model.is_file():
                    words = ["export", checkpoint_of(context.run_dir(run), tick), "--name", model.stem]
                    call("trainer", *words, "--output", model.parent, "--ema" if averaged else "--no-ema")
                missing += [(run.dataset, model.stem, *job) for job in unscored(context, run.dataset, model.stem)]
    if not missing:
        return
    with service(context.folder / "models", context.folder / "service.log") as url:
        for dataset, name, extractor, report in dict.fromkeys(missing):
            words = ["score", url, "--model", name, "--reference", f"{context.images[dataset]}@test"]
            words += ["--metrics", METRICS, "--extractor", extractor, "--num-images", context.count(dataset)]
            words += ["--resolution", "reference", "--data-root", context.data_root, "--output", report]
            call("evaluation", *words)


def make_extractor(context: ReproductionContext, dataset: str) -> bool:
    """Train the classifier whose features score a dataset; returns False where the images have no labels."""
    path, source = context.extractor(dataset), context.images[dataset]
    if not path.is_file():
        if imagesets.load(source, data_root=context.data_root).labels is None:
            say(f"not scored: {dataset}: its images have no labels for a classifier; --inception scores them")
            return False
        words = ["--images", source, "--data-root", context.data_root, "--output", path, "--name", dataset]
        call("evaluation", "extractor", "classifier", *words)
    return True


def unscored(context: ReproductionContext, dataset: str, model: str) -> list[tuple[Path, Path]]:
    """Return the extractors that have not scored a model yet, each with the folder for its report."""
    folder = context.scores_dir(dataset, model)
    pairs = ((context.extractor(dataset), folder), (context.inception, folder / "inception"))
    return [(file, at) for file, at in pairs if file and file.is_file() and not (at / "report.json").is_file()]


def read_scores(context: ReproductionContext, dataset: str, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return metric → value of a model's reports, and the same of real images with the extractor's accuracy."""
    scores: dict[str, Any] = {}
    real: dict[str, Any] = {}
    for folder in (context.scores_dir(dataset, model), context.scores_dir(dataset, model) / "inception"):
        if (folder / "report.json").is_file():
            report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            scores |= report["scores"]
            real |= {row["name"]: row["value"] for row in (report["baseline"] or {"results": []})["results"]}
            real.setdefault("extractor_accuracy", report["extractor"].get("accuracy"))
    return scores, real


def row_of(context: ReproductionContext, run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's row of results.json, and the scores of real images."""
    run_dir, preset = context.run_dir(run), loading.resolve(run.preset)
    started = loading.parse(json.loads((run_dir / "config.json").read_text(encoding="utf-8")))
    made_by = json.loads((run_dir / "made_by.json").read_text(encoding="utf-8"))
    G, D = networks.build(preset)
    row: dict[str, Any] = {
        "preset": run.preset,
        "sources": list(run.sources),
        "dataset": run.dataset,
        "conditional": started.model.conditional,
        "full_kimg": run.kimg,
        "parameters": {"G": networks.parameter_count(G), "D": networks.parameter_count(D)},
        "machine": made_by.get("machine", {}),
        **{field: getattr(started.run, field) for field in ("precision", "threads", "seed")},
    }
    real: dict[str, Any] = {}
    for name, tick in zip(("end", "at_equal_images"), ticks_to_score(context, run), strict=False):
        averaged, found = read_scores(context, run.dataset, context.model(run, tick["step"], averaged=True).stem)
        last, _ = read_scores(context, run.dataset, context.model(run, tick["step"], averaged=False).stem)
        real |= found
        row[name] = {"step": tick["step"], "kimg": tick["images_seen"] / 1000, "seconds": round(tick["seconds"], 1)}
        row[name] |= {"averaged": averaged, "last_step": last}
    return row, real


def write(context: ReproductionContext, output: Path) -> None:
    """Write results.json, the pictures, and the tables into the pages of a folder."""
    runs = trained(context)
    if not runs:
        raise SystemExit("nothing has been trained yet; there is nothing to write")
    results: dict[str, Any] = {"runs": [], "real": {}, "mistakes": {}}
    (output / "images").mkdir(parents=True, exist_ok=True)
    for run in runs:
        row, real = row_of(context, run)
        results["runs"].append(row)
        results["real"].setdefault(run.dataset, {}).update(real)
        save_images(context.run_dir(run), output / "images", run.preset)
    for dataset in dict.fromkeys(run.dataset for run in runs):
        save_real_images(context, dataset, output / "images" / f"{dataset}-real.png")
        results["mistakes"][dataset] = mistakes(context, dataset, runs)
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    render(output, results)


def mistakes(context: ReproductionContext, dataset: str, runs: tuple[Run, ...]) -> list[dict[str, Any]]:
    """Return the rows of fid_mistakes for the first run of a dataset that a source describes."""
    run = next((run for run in runs if run.dataset == dataset and run.sources), None)
    tick = last_tick(context.run_dir(run)) if run else None
    if run is None or tick is None or not context.extractor(dataset).is_file():
        return []
    model = context.model(run, tick["step"], averaged=False)
    places = (context.images[dataset], context.data_root)
    found = fid_mistakes.measure(context.extractor(dataset), model, *places, SIDES[dataset], context.count(dataset))
    return list(found)


def save_images(run_dir: Path, folder: Path, name: str) -> None:
    """Copy a run's last grid and its curves, and the upper left quarter of the grid as the table's thumbnail."""
    grid = Image.open(max((run_dir / "samples").glob("fixed-*.png")))
    grid.save(folder / f"{name}-grid.png", optimize=True)
    save_thumbnail(grid.crop((0, 0, grid.width // 2, grid.height // 2)), folder / f"{name}.png")
    curves = Image.open(run_dir / "curves.png").convert("P", palette=Image.Palette.ADAPTIVE)
    curves.save(folder / f"{name}-curves.png", optimize=True)


def save_real_images(context: ReproductionContext, dataset: str, path: Path) -> None:
    images = imagesets.load(context.images[dataset], data_root=context.data_root).images
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:16])
    save_thumbnail(image_grids.to_pil(image_grids.grid(images[chosen]), min_side=256), path)


def save_thumbnail(image: Image.Image, path: Path) -> None:
    image.thumbnail((96, 96), Image.Resampling.LANCZOS)
    image.save(path, optimize=True)


def render(folder: Path, results: dict[str, Any]) -> None:
    """Write the tables of the results between the markers of a folder's pages; make a page where there is none."""
    index = folder / "index.md"
    if not index.is_file():
        markers = (f"<!-- table: {dataset} -->\n<!-- /table -->\n" for dataset in results["real"])
        index.write_text("# Results\n\n" + "\n".join(markers), encoding="utf-8")
    for page in sorted(folder.glob("*.md")):
        page.write_text(rendered(page.read_text(encoding="utf-8"), results), encoding="utf-8")


def rendered(text: str, results: dict[str, Any]) -> str:
    """Return a page with its tables as the results have them."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))

    def fill(match: re.Match[str]) -> str:
        table = template.render(table=match[2], collapsed=COLLAPSED, names=full_names, **results)
        return f"{match[1]}\n{table.strip()}\n\n{match[3]}"

    return TABLE.sub(fill, text)


def full_names(scores: dict[str, Any]) -> dict[str, float]:
    """Return distance, precision and recall of a report, whatever their protocol: `fd_…`, `precision_…`, `recall_…`."""
    kinds = {"fd": "distance", "precision": "precision", "recall": "recall"}
    return {kinds[kind]: value for name, value in scores.items() if (kind := name.partition("_")[0]) in kinds}


def results_folder(context: ReproductionContext) -> Path:
    """Return docs/results, or a folder in the work where docs/results has runs that this work has not."""
    path = RESULTS / "results.json"
    kept = {row["preset"] for row in json.loads(path.read_text(encoding="utf-8"))["runs"]} if path.is_file() else set()
    lost = kept - {run.preset for run in trained(context)}
    if not lost:
        return RESULTS
    elsewhere = context.folder / "results"
    say(f"\n{RESULTS} has {', '.join(sorted(lost))}, which {context.folder} has not, and is left as it is;")
    say(f"the pages are in {elsewhere} (--output {RESULTS} replaces them)")
    return elsewhere


if __name__ == "__main__":
    main()
