"""A run folder: made, trained in, gone back to."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from artifacts.files import LockTakenError, atomic_path, lock_handle
from imagesets import ImageSet, ImageSetError, load_image_set, native_channels
from trainer.config.schema import Config, differences, to_json
from trainer.data import Batches
from trainer.distributed import launch
from trainer.distributed.process_group import World
from trainer.errors import TrainerError
from trainer.names import FOLDER
from trainer.reports import pages
from trainer.training import checkpoint, devices, image_record
from trainer.training.logger import Monitor
from trainer.training.loop import State, Watcher, train
from trainer.training.proxy_metrics import MIN_FOR_RECALL, Quality


def create(runs: Path, config: Config) -> Path:
    """A new folder `<runs>/<number>-<name>` with `config.json`; the number is one above the highest there."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        for _ in range(100):
            numbers = [int(match[1]) for path in runs.iterdir() if (match := re.match(r"(\d{4,})-", path.name))]
            run_dir = runs / f"{max(numbers, default=0) + 1:04d}-{config.name}"
            try:
                run_dir.mkdir()
            except FileExistsError:  # another run was started at the same moment
                continue
            write_text(run_dir / "config.json", to_json(config))
            return run_dir
    except OSError as error:
        raise TrainerError(f"could not make a run folder in {runs}: {error.strerror or error}") from error
    raise TrainerError(f"could not make a run folder in {runs}")


def create_at(run_dir: Path, config: Config) -> Path:
    """The folder `run_dir` with `config.json`: a new or empty one, or that of a run which stopped before it saved.

    Raises TrainerError when there is anything else of that name, or a process trains in it.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if checkpoint.paths(run_dir):
            raise TrainerError(f"{run_dir} is there already; go on with: trainer resume {shlex.quote(str(run_dir))}")
        if any(run_dir.iterdir()) and not (run_dir / "config.json").is_file():
            raise TrainerError(f"{run_dir} is there already and is no run folder; choose another --run-dir")
        with exclusive(run_dir):
            for stale in (run_dir / "samples").glob("*.png"):  # metrics and events are forgotten as training begins
                stale.unlink()
            write_text(run_dir / "config.json", to_json(config))
    except OSError as error:
        raise TrainerError(f"could not make the run folder {run_dir}: {error.strerror or error}") from error
    return run_dir


def with_channels(config: Config, data_root: Path) -> Config:
    """Return the config with the images' channels where neither a preset nor a setting gives `data.channels`."""
    data = config.data
    if "channels" in data.model_fields_set:
        return config
    channels = native_channels(data.source, resolution=data.resolution, data_root=data_root)
    return config.model_copy(update={"data": data.model_copy(update={"channels": channels})})


def load_images(config: Config, data_root: Path) -> tuple[ImageSet, Config]:
    """The config's image set, and the config with its class names and channels.

    Raises TrainerError when it is smaller than a batch, or a conditional model finds no labels.
    """
    config = with_channels(config, data_root)
    data = config.data
    images = load_image_set(
        data.source,
        resolution=data.resolution,
        channels=data.channels,
        data_root=data_root,
        progress=launch.rank() == 0,
    )
    if len(images.images) < config.optim.batch_size:
        raise TrainerError(
            f"{data.source} has {len(images.images)} images, fewer than optim.batch_size={config.optim.batch_size}"
        )
    if config.model.conditional:
        if images.labels is None or len(images.class_names) < 2:
            raise TrainerError(f"{data.source} has no labels to condition on; add --set model.conditional=false")
        config = config.model_copy(update={"data": data.model_copy(update={"class_names": images.class_names})})
    return images, config


@dataclass(frozen=True)
class Found:
    """The images that a run resumes on.

    Attributes:
        images: The images.
        record: The new content of `made_by.json`, where something in it has changed.
        note: A line for the user.
        changed: Whether they are other images than the run began with.
    """

    images: ImageSet
    record: dict[str, Any] | None
    note: str | None
    changed: bool


def images_of(
    run_dir: Path, config: Config, data_root: Path | None, *, moved: bool = False, other: bool = False
) -> Found:
    """Load the images that a run resumes on: those it began with.

    Args:
        run_dir: The run folder. Its record says where the images were, whatever the working directory is now.
        config: The config of the run.
        data_root: The folder of the named image sets; None for the one that the run began with.
        moved: Whether `config.data.source` is a new place, to be preferred to the recorded one.
        other: Whether images that have changed are accepted.

    Returns:
        What was found.

    Raises:
        TrainerError: If the images are not found, or differ from those of the record and `other` is False.
    """
    record = image_record.read(run_dir)
    place = None if moved else image_record.place_of(record)
    there = config.data.model_copy(update={"source": place or config.data.source})
    config = config.model_copy(update={"data": there})
    root = data_root or image_record.data_root_of(record) or Path("data")
    resuming = f"trainer resume {shlex.quote(str(run_dir))}"
    try:
        with launch.first_on_this_machine():
            images, found = load_images(config, root)
    except ImageSetError as error:
        if not there.source.startswith(FOLDER):
            raise
        place = f"{resuming} --set data.source=folder:PATH"
        raise TrainerError(f"{error}; if the same images are elsewhere now: {place}") from error
    changed = image_record.change(record, images)
    if classes := [line for line in differences(config, found) if line.startswith("data.class_names: ")]:
        raise TrainerError(f"the images of {images.name} are not those that {run_dir} began with: {classes[0]}")
    if changed and not other:
        raise TrainerError(
            f"the images of {images.name} are not those that {run_dir} began with: {changed}. Name the place of the "
            "same images with --set data.source=folder:PATH, train a new run, or continue on these with --other-images"
        )
    known, note = image_record.has_fingerprint(record), None
    if changed:
        note = f"warning: the images have changed since {run_dir} began: {changed}"
    elif not known:
        note = f"note: {run_dir / image_record.FILE} has no fingerprint: the images may have changed since"
    unchanged = known and not changed and not moved
    return Found(images, None if unchanged else record | image_record.of(images, root), note, bool(changed))


def start(
    config: Config,
    images: ImageSet,
    run_dir: Path,
    console: Console,
    world: World | None = None,
    data_root: Path = Path("data"),
) -> bool:
    """Train a new run to its end or to an interruption; True when it reached the end."""
    devices.settle(config)
    world = world or World()
    record = image_record.of(images, data_root) | {"machine": devices.describe() | world.describe()}
    with exclusive(run_dir) if world.leads else nullcontext():
        if world.leads:
            write_text(run_dir / image_record.FILE, json.dumps(record, indent=2, default=str) + "\n")
        return _train(State.create(config, world), images, run_dir, console)


def resume(
    run_dir: Path,
    payload: dict[str, Any],
    config: Config,
    images: ImageSet,
    console: Console,
    world: World | None = None,
    record: Mapping[str, Any] | None = None,
) -> bool:
    """Continue from a checkpoint's payload; True when the run reached its end.

    Args:
        run_dir: The run folder.
        payload: The content of the checkpoint.
        config: The config of the run, with what may change (length, device, place of the images).
        images: The images to train on.
        console: Where progress is printed.
        world: The processes that train together.
        record: A new content of `made_by.json`, where the place of the images has changed.

    Returns:
        Whether the run reached its end.
    """
    world = world or World()
    for what, before, now in (
        ("threads", payload["threads"], config.run.threads),
        ("processes", payload.get("processes", 1), world.size),
    ):
        if before != now:
            console.print(f"note: {before} {what} before, {now} now: not bit-exact")
    if world.size > 2:  # DistributedDataParallel regroups gradients after its first step: they add up in another order
        console.print(
            f"note: {world.size} processes go on, not bit-exact: with more than two, sums are of another order"
        )
    devices.settle(config)
    with exclusive(run_dir) if world.leads else nullcontext():
        state = checkpoint.restore(payload, config, world)
        if world.leads:
            write_text(run_dir / "config.json", to_json(config))
            if record is not None:
                write_text(run_dir / image_record.FILE, json.dumps(record, indent=2, default=str) + "\n")
            checkpoint.write_best(state, run_dir)
        return _train(state, images, run_dir, console)


def write_text(path: Path, text: str) -> None:
    try:
        with atomic_path(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TrainerError(f"could not write {path}: {error.strerror or error}") from error


@contextmanager
def exclusive(run_dir: Path, doing: str = "training") -> Iterator[None]:
    """Within it no other process trains in this run folder; raises TrainerError when one does already."""
    with (run_dir / ".lock").open("a") as lock:
        try:
            lock_handle(lock.fileno(), run_dir, blocking=False)
        except LockTakenError:
            raise TrainerError(f"another process is {doing} in {run_dir}; wait for it or stop it") from None
        for left in run_dir.glob(".*.partial"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        yield


def _train(state: State, images: ImageSet, run_dir: Path, console: Console) -> bool:
    config, world = state.config, state.world
    batches = Batches(
        images.images,
        config.optim.batch_size,
        seed=config.run.seed,
        device=state.device,
        labels=images.labels if config.model.conditional else None,
        flip=config.data.flip,
        share=world.share(config.optim.batch_size),
    )
    measure = measure_of(config, images, state) if config.run.quality_ticks else None
    if measure and len(images.images) < MIN_FOR_RECALL:
        console.print(
            f"note: recall needs {MIN_FOR_RECALL} images or more and there are {len(images.images)}: only the Fréchet "
            "distance is measured"
        )

    def save(state: State) -> None:
        checkpoint.save(state, run_dir, keep=config.run.keep_checkpoints)

    watching: AbstractContextManager[Watcher] = (
        Monitor(state, run_dir, console, images.images) if world.leads else nullcontext(Unwatched())
    )
    with graceful_stop(impatient=world.size == 1) as asked, watching as watcher:
        finished = train(state, batches, watcher, save, lambda: world.any(asked()), measure)
    if finished and world.leads:
        try:
            pages.write_report(run_dir)
        except (ImportError, OSError) as error:  # a missing library, a full disk: the run is trained all the same
            console.print(f"warning: no report ({error}); `trainer report {shlex.quote(str(run_dir))}` writes it later")
    return finished


class Unwatched:
    """A Watcher (loop.py) for the processes that another one tells of."""

    def stepped(self, state: State) -> None:
        pass

    def ticked(self, state: State, means: dict[str, float]) -> None:
        pass


def measure_of(config: Config, images: ImageSet, state: State) -> Callable[[State], dict[str, float]]:
    """What tells a state's quality against the images it trains on. The first process measures, for all."""
    if not state.world.leads:
        return lambda state: state.world.broadcast({})
    quality = Quality(
        images.images,
        config.run.quality_images,
        seed=config.run.seed,
        z_distribution=config.model.z_distribution,
        device=state.device,
    )
    return lambda state: state.world.broadcast(quality.measure(state.G_ema))


@contextmanager
def graceful_stop(impatient: bool = True) -> Iterator[Callable[[], bool]]:
    """Within it, the first SIGINT, SIGTERM or SIGHUP asks for a stop after the step; a second one interrupts at once.

    SIGHUP, of a terminal or connection that was lost, does so unless it is ignored (`nohup`). It never interrupts at
    once: a shell and the kernel both send it, and systemd sends it right after SIGTERM.

    Not where torchrun started us (`impatient` is false): on Ctrl-C the terminal sends a process the one, torchrun
    another, and the step is to be finished all the same.
    """
    asked: list[int] = []
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none

    def ask(number: int, _: object) -> None:
        if impatient and number != hangup and any(earlier != hangup for earlier in asked):
            raise KeyboardInterrupt
        asked.append(number)

    heeded = [signal.SIGINT, signal.SIGTERM]
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        heeded.append(hangup)
    before = {number: signal.signal(number, ask) for number in heeded}
    leaving = not impatient
    try:
        yield lambda: bool(asked)
        leaving = leaving and bool(asked)
    finally:  # torchrun ends the others as soon as one has left; they are leaving themselves, and have a line to say
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if leaving else handler)
