"""Run the systems of the five source documents by their presets, score what is served, and write docs/results.

    python -m examples.reproduce --data-root data
    python -m examples.reproduce 000 --data-root data --minutes 10
    python -m examples.reproduce --pages           # write the pages again from what was run before

Every step is a command of this repository, shown before it runs. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
from pathlib import Path

from artifacts.processes import TERMINATION
from artifacts.terminal import prepare_streams
from evaluation.errors import EvaluationError
from evaluation.extractors import load_extractor
from examples.reproduce import pages, tables, work
from examples.reproduce.plan import IMAGES, SYSTEMS, TITLES, System, chosen
from examples.reproduce.work import Workshop, say
from examples.serving import service

RESULTS = Path("docs/results")


def main() -> None:
    prepare_streams()
    arguments = parsed()
    try:
        systems = chosen(tuple(arguments.only))
    except ValueError as error:
        raise refused(str(error)) from None
    sources = {name: getattr(arguments, name) or images.source for name, images in IMAGES.items()}
    for number in TERMINATION:  # as Ctrl-C: the training that runs saves and stops
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    output = arguments.output or RESULTS
    if pages.strange(output):
        raise refused(f"{output}/index.md is no page of this command and would be written over; give another --output")
    for folder in (arguments.work, output):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused(f"could not make {folder}: {error.strerror or error}") from None
    shop = Workshop(
        arguments.work,
        arguments.data_root,
        sources,
        arguments.minutes,
        arguments.inception,
        tuple(arguments.set),
        arguments.num_images,
    )
    try:
        if not arguments.pages:
            train(shop, systems)
        if arguments.train:
            return
        if not arguments.pages:
            score(shop)
        output = arguments.output or place(shop)
        pages.write(shop, output)
    except KeyboardInterrupt:
        raise SystemExit("\nstopped; the same command goes on") from None
    say(f"\nwritten: {output / 'index.md'}")


def refused(why: str) -> SystemExit:
    """What ends the command over a user's mistake: one line, exit code 2."""
    print(f"error: {why}", file=sys.stderr)
    return SystemExit(2)


def place(shop: Workshop) -> Path:
    """docs/results; but beside the work where those pages tell of runs that are not in it, and would be lost."""
    told = RESULTS / "results.json"
    ran = {system.preset for system in tables.trained(shop, SYSTEMS)}
    lost = (
        {run["preset"] for run in json.loads(told.read_text(encoding="utf-8"))["runs"]} - ran
        if told.is_file()
        else set()
    )
    if not lost:
        return RESULTS
    elsewhere = shop.folder / "results"
    say(f"\n{RESULTS} tells of {', '.join(sorted(lost))}, which were not run in {shop.folder}, and stays as it is;")
    say(f"the pages go to {elsewhere} (--output {RESULTS} replaces them)")
    return elsewhere


def train(shop: Workshop, systems: tuple[System, ...]) -> None:
    """Train those whose images are at hand, one after another."""
    for system in systems:
        if at_hand(shop, system):
            work.train(shop, system)


def score(shop: Workshop) -> None:
    """Export, serve and score every run there is: at its end, and where it is compared with others."""
    ran = tables.trained(shop, SYSTEMS)
    wanted = []
    for system in ran:
        if not work.judges(shop, system.images) and shop.inception is None:
            continue
        for step in tables.to_score(shop, ran, system):
            forms = (True,) if system.averages else (True, False)
            wanted += [(system.images, work.export(shop, system, step, ema)) for ema in forms]
    missing = [(images, name) for images, name in wanted if work.unscored(shop, images, name)]
    if missing:
        with service(shop.models, shop.folder / "service.log") as url:
            for images, name in missing:
                work.score(shop, url, images, name)


def at_hand(shop: Workshop, system: System) -> bool:
    """Whether the system's images can be had; says so when they cannot."""
    from imagesets import ImageSetError, load_image_set

    try:
        load_image_set(shop.sources[system.images], data_root=shop.data_root)
    except ImageSetError as error:
        say(f"not run: {system.preset}: {error}")
        return False
    return True


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="documents: " + "; ".join(f"{name} {title}" for name, title in TITLES.items()),
    )
    parser.add_argument("only", nargs="*", metavar="ONLY", help=f"{', '.join(TITLES)}, best, or a preset; default: all")
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("DATA_ROOT", "data")))
    for name, images in IMAGES.items():
        parser.add_argument(f"--{name}", metavar="SOURCE", help=f"in place of {images.source}: such as folder:PATH")
    parser.add_argument("--minutes", type=float, help="of training, at most, each; default: the document's length")
    parser.add_argument("--inception", type=Path, help="an Inception extractor file, for FID beside the classifier's")
    parser.add_argument("--num-images", type=int, help="of a score; default: 10,000, of CIFAR-10 5,000")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="for every run")
    parser.add_argument("--work", type=Path, default=Path("reproduce"), help="where runs and scores lie")
    parser.add_argument("--output", type=Path, help=f"where the pages are written; default: {RESULTS}")
    parser.add_argument("--train", action="store_true", help="train alone; the same command without it goes on")
    parser.add_argument("--pages", action="store_true", help="write the pages alone")
    arguments = parser.parse_args()
    if arguments.minutes is not None and not 0 < arguments.minutes < math.inf:
        parser.error("--minutes is of training, above 0")
    if arguments.num_images is not None and arguments.num_images < 2:
        parser.error("--num-images is of a distance, 2 or more")
    for name in IMAGES:
        source = getattr(arguments, name) or ""
        if "@" in source:
            parser.error(
                f"--{name} {source}: both splits are used, train and test; leave out @{source.rpartition('@')[2]}"
            )
    if arguments.inception is not None:
        try:
            load_extractor(arguments.inception)
        except EvaluationError as error:
            parser.error(f"--inception: {error}; `evaluation extractor inception` makes such a file")
    return arguments


if __name__ == "__main__":
    main()
