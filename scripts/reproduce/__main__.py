"""The command line: both halves one after the other, or one of them."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

import scripts.reproduce as package
from artifacts.files import make_writable_folder
from artifacts.processes import interruptible
from artifacts.terminal import prepare_streams
from evaluation.errors import EvaluationError
from imagesets import ImageSetError
from scripts.reproduce.runs import (
    DATASETS,
    FEATURES,
    RESULTS,
    SOURCES,
    ReproductionContext,
    Trial,
    collected,
    fail,
    say,
    select,
    trials_in,
)
from scripts.reproduce.tables import TABLE
from trainer.errors import TrainerError

HALVES = ("train", "collect", "score")


def main() -> None:
    """Run the requested half, or both; exit with 2 for a user's mistake, 1 where a training failed, 130 if stopped."""
    prepare_streams()
    half, arguments = parse_arguments(sys.argv[1:])
    context = context_of(half, arguments)
    try:
        with interruptible():  # also by SIGTERM and SIGHUP: the present trainings save and stop
            if half == "collect":
                collect(context, arguments.only)
            elif half == "train" or not (half or arguments.pages):
                train(context, arguments)
            if half in ("", "score"):
                score(context, arguments)
    except KeyboardInterrupt:
        say("\nstopped; give the same command again to resume")
        raise SystemExit(130) from None
    except (TrainerError, EvaluationError, ImageSetError, OSError, ValueError) as error:
        raise fail(f"{type(error).__name__}: {error}" if type(error) is ValueError else str(error)) from None


def parse_arguments(words: list[str]) -> tuple[str, argparse.Namespace]:
    """Return the half ("" for both) and the options of a command line."""
    half = words[0] if words and words[0] in HALVES else ""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.reproduce",
        usage="%(prog)s [train | collect] [ONLY ...] [options], or %(prog)s score [FOLDER] [options]",
        description=package.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join((*SOURCES, "ours", *DATASETS))
    parser.add_argument("only", nargs="*", metavar="ONLY", help=f"{names}, or a preset, in this order; default: all")
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("DATA_ROOT", "data")))
    for dataset in DATASETS:
        replaces = f"replaces {dataset}, for example folder:PATH"
        parser.add_argument(f"--{dataset}", default=dataset, metavar="SOURCE", help=replaces)
    parser.add_argument("--work", type=Path, default=Path("reproduce"), help="folder for runs and scores")
    parser.add_argument("--minutes", type=float, help="of training per run, at most; default: the full length")
    parser.add_argument("--jobs", type=int, help="runs to train at a time; default: one per CPU, one on a GPU")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each run, with seeds from 0; default: 1")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="for every run")
    parser.add_argument("--no-points", action="store_true", help="keep the generators at the ends, none on the way")
    parser.add_argument("--features", help=f"extractors to score with, of {','.join(FEATURES)}; default: all")
    parser.add_argument("--inception", type=Path, help="an Inception extractor file, for FID as well")
    parser.add_argument("--num-images", type=int, help="per score; default: 10,000, for CIFAR-10 5,000")
    parser.add_argument("--output", type=Path, help="folder for the pages; default: docs/results")
    parser.add_argument("--pages", action="store_true", help="only write the pages")
    arguments = parser.parse_args(words[1:] if half else words)
    for option, least in (("minutes", 0), ("jobs", 0), ("seeds", 0), ("num_images", 1)):
        value = getattr(arguments, option)
        if value is not None and not least < value < math.inf:
            parser.error(f"--{option.replace('_', '-')} must be above {least}")
    for dataset in DATASETS:
        source, at, split = getattr(arguments, dataset).rpartition("@")
        if at:
            parser.error(f"--{dataset} {source}@{split}: both splits are used, train and test; leave out @{split}")
    arguments.features = tuple(arguments.features.split(",")) if arguments.features else ()
    if unknown := set(arguments.features) - set(FEATURES):
        parser.error(f"--features: there is no {', '.join(sorted(unknown))}; choose from {', '.join(FEATURES)}")
    if half == "score" and len(arguments.only) > 1:
        parser.error("score takes one folder, that which the training half filled")
    if arguments.inception is not None:
        from evaluation.extractors import load_extractor

        try:
            load_extractor(arguments.inception)
        except EvaluationError as error:
            parser.error(f"--inception: {error}; `evaluation extractor inception` makes such a file")
    return half, arguments


def context_of(half: str, arguments: argparse.Namespace) -> ReproductionContext:
    """Return the context of a command, whose folders exist."""
    folder = Path(arguments.only[0]) if half == "score" and arguments.only else None
    if folder is not None and not folder.is_dir():
        raise fail(f"there is no folder {folder}; the training half fills WORK/collected")
    if half in ("", "train"):
        select(arguments.only)
    if half in ("", "score"):
        output = arguments.output or RESULTS
        index = output / "index.md"
        if index.is_file() and not TABLE.search(index.read_text(encoding="utf-8", errors="replace")):
            raise fail(f"{index} has no place for the tables; give another --output")
        make_folder(output)
    make_folder(arguments.work)
    return ReproductionContext(
        arguments.work,
        arguments.data_root,
        {dataset: getattr(arguments, dataset) for dataset in DATASETS},
        minutes=arguments.minutes,
        inception=arguments.inception,
        sets=tuple(arguments.set),
        num_images=arguments.num_images,
        collection=folder,
        features=arguments.features,
        points=not arguments.no_points,
    )


def make_folder(folder: Path) -> None:
    try:
        make_writable_folder(folder)
    except OSError as error:
        raise fail(f"cannot write to {folder}: {error.strerror or error}") from None


def train(context: ReproductionContext, arguments: argparse.Namespace) -> None:
    """Train, export and collect the requested runs."""
    from scripts.reproduce.training import train_all

    trials = [Trial(run, seed) for seed in range(arguments.seeds) for run in select(arguments.only)]
    train_all(context, trials, arguments.jobs)
    if not collected(context):
        say(f"\nnothing was trained long enough to collect: {context.collected} has no generators")
        raise SystemExit(1)
    say(f"\nthe folder for the scoring half: {context.collected}")


def collect(context: ReproductionContext, only: list[str]) -> None:
    """Export and collect the requested runs as they are; a name may also be that of a run's folder."""
    from scripts.reproduce.training import collect

    trials = list(trials_in(context.folder / "runs"))
    names = [name for name in only if name not in {trial.name for trial in trials}]
    runs = select(names) if names or not only else ()
    for trial in trials:
        if trial.name in only or trial.run in runs:
            collect(context, trial)


def score(context: ReproductionContext, arguments: argparse.Namespace) -> None:
    """Score what was collected, and write the pages."""
    from scripts.reproduce.pages import write

    failed = list[str]()
    if not arguments.pages:
        from scripts.reproduce.scoring import score_all

        failed = score_all(context)
    folder = write(context, arguments.output)
    say(f"\nwritten: {folder / 'index.md'}")
    if failed:
        say(f"not scored, for the reasons above: {', '.join(failed)}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
