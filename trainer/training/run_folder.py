"""A run folder: creating it, locking it, and the rules of resuming the run in it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.files import LockTakenError, atomic_path, lock_handle
from imagesets import ImageSet, ImageSetError
from trainer.config.loading import differences, override, to_json
from trainer.config.schema import Config
from trainer.data import ImageRecord, load_images, record_images
from trainer.distributed import environment
from trainer.errors import TrainerError
from trainer.names import FOLDER
from trainer.training import checkpoint, devices


def create(runs: Path, config: Config) -> Path:
    """Create `<runs>/<number>-<name>` with `config.json`; the number is one above the highest in the folder."""
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
    """Create the folder `run_dir` with `config.json`; it may be that of a run which stopped before it saved.

    Raises:
        TrainerError: If the folder contains anything else, or a process trains in it.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if checkpoint.paths(run_dir):
            raise TrainerError(f"{run_dir} exists already; continue with: trainer resume {shlex.quote(str(run_dir))}")
        if any(run_dir.iterdir()) and not (run_dir / "config.json").is_file():
            raise TrainerError(f"{run_dir} exists already and is not a run folder; choose another --run-dir")
        with exclusive(run_dir):
            for stale in (run_dir / "samples").glob("*.png"):  # the logger truncates metrics and events
                stale.unlink()
            write_text(run_dir / "config.json", to_json(config))
    except OSError as error:
        raise TrainerError(f"could not make the run folder {run_dir}: {error.strerror or error}") from error
    return run_dir


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; raise TrainerError if it cannot be written."""
    try:
        with atomic_path(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TrainerError(f"could not write {path}: {error.strerror or error}") from error


def write_record(run_dir: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a run's images and machine."""
    write_text(run_dir / ImageRecord.FILE, json.dumps(record, indent=2, default=str) + "\n")


@contextmanager
def exclusive(run_dir: Path, doing: str = "training") -> Iterator[None]:
    """Hold the lock of a run folder.

    Raises:
        TrainerError: If another process holds it.
    """
    with (run_dir / ".lock").open("a") as lock:
        try:
            lock_handle(lock.fileno(), run_dir, blocking=False)
        except LockTakenError:
            raise TrainerError(f"another process is {doing} in {run_dir}; wait for it or stop it") from None
        for stale in run_dir.glob(".*.partial"):  # of a process that was killed while it wrote
            stale.unlink(missing_ok=True)
        yield


@dataclass(frozen=True)
class ResumePlan:
    """How a run resumes."""

    path: Path  # of the checkpoint it resumes from
    content: dict[str, Any]  # of the checkpoint
    config: Config  # with what the user changes
    changes_source: bool  # whether the user gives a new path of the same images
    notes: list[str]  # lines for the user

    @property
    def kimg(self) -> float:
        """Thousands of images that the checkpoint has seen."""
        return float(self.content["counters"]["images_seen"]) / 1000

    @property
    def finished(self) -> bool:
        """Whether the run has reached its length."""
        return self.kimg >= self.config.run.total_kimg


def plan_resume(run_dir: Path, overrides: Iterable[str] = (), kimg: float | None = None) -> ResumePlan:
    """Return how a run resumes from its latest checkpoint.

    Args:
        run_dir: The run folder.
        overrides: `section.field=value` each: `run` fields, and `data.source`.
        kimg: A new length, in thousands of images.

    Raises:
        TrainerError: If no checkpoint is readable, or an override changes more than length, device and the path of the
            images.
    """
    path, content, skipped = checkpoint.load_latest(run_dir)
    notes = [f"warning: {line}; using the one before" for line in skipped]
    checkpoint.check_same_config(run_dir, content)
    recorded = checkpoint.config_of(content)
    decay = recorded.optim.decay_kimg
    if kimg and decay and kimg > decay[1]:
        raise TrainerError(
            f"{run_dir} ends at {decay[1]:g} kimg, where its learning rates have fallen to 0 (optim.decay_kimg); train "
            f"a new, longer run with --set run.total_kimg={kimg:g} and a later optim.decay_kimg"
        )
    overrides = [*overrides, *([f"run.total_kimg={kimg}"] if kimg else ())]
    config = override(recorded, overrides)
    fixed = [
        line
        for line in differences(recorded, config)
        if not line.startswith(("run.", "data.source: ")) or line.startswith("run.seed")
    ]
    if fixed:
        raise TrainerError(f"these fields cannot change when resuming: {'; '.join(fixed)}")
    given = {line.partition("=")[0] for line in overrides}
    if "run.device" not in given and not devices.is_available(config.run.device):
        notes.append(f"note: {run_dir} was trained on {config.run.device}, which is not available: not bit-exact")
        config = override(config, [f"{field}=auto" for field in ("run.device", "run.precision") if field not in given])
    if config.run.device != recorded.run.device and "run.cuda_graphs" not in given:
        config = override(config, ["run.cuda_graphs=auto"])  # it was resolved for the other device
    return ResumePlan(path, content, devices.resolve_auto(config), "data.source" in given, notes)


@dataclass(frozen=True)
class FoundImages:
    """The images that a run resumes on."""

    images: ImageSet
    record: dict[str, Any] | None  # the new content of the image record, if it changes
    note: str | None  # a line for the user
    changed: bool  # whether they differ from those that the run was started on


def find_images(
    run_dir: Path, config: Config, data_root: Path | None, *, moved: bool = False, accept_changes: bool = False
) -> FoundImages:
    """Load the images that a run was started on.

    Args:
        run_dir: The run folder. Its record says where the images were, whatever the working directory is now.
        config: The config of the run.
        data_root: The folder of the named image sets; None for the recorded one.
        moved: Whether `config.data.source` is a new path, which replaces the recorded one.
        accept_changes: Whether images that have changed are accepted.

    Raises:
        TrainerError: If the images are not found, or have changed and that is not accepted.
    """
    record = ImageRecord.read(run_dir)
    source = (None if moved else record.source) or config.data.source
    config = config.model_copy(update={"data": config.data.model_copy(update={"source": source})})
    root = data_root or record.data_root or Path("data")
    try:
        with environment.first_on_this_machine():
            images, found = load_images(config, root)
    except ImageSetError as error:
        if not source.startswith(FOLDER):
            raise
        hint = f"trainer resume {shlex.quote(str(run_dir))} --set data.source=folder:PATH"
        raise TrainerError(f"{error}; if the same images are elsewhere now: {hint}") from error
    changed = record.describe_change(images)
    if classes := [line for line in differences(config, found) if line.startswith("data.class_names: ")]:
        raise TrainerError(f"the images of {images.name} are not those that {run_dir} began with: {classes[0]}")
    if changed and not accept_changes:
        raise TrainerError(
            f"the images of {images.name} are not those that {run_dir} began with: {changed}. Give the path of the "
            "same images with --set data.source=folder:PATH, train a new run, or continue on these with --other-images"
        )
    note = None
    if changed:
        note = f"warning: the images have changed since {run_dir} began: {changed}"
    elif not record.has_fingerprint:
        note = f"note: {run_dir / ImageRecord.FILE} has no fingerprint: the images may have changed since"
    keep = record.has_fingerprint and not changed and not moved
    return FoundImages(images, None if keep else {**record.content, **record_images(images, root)}, note, bool(changed))


@contextmanager
def graceful_stop(impatient: bool = True) -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into a request to stop after the step; a second one interrupts.

    A SIGHUP that is ignored (`nohup`) stays ignored. SIGHUP never interrupts: a shell and the kernel both send it, and
    systemd sends it right after SIGTERM. Outside the main thread signals are left alone.

    Args:
        impatient: Whether a second signal interrupts. False under torchrun, where Ctrl-C reaches a process twice: from
            the terminal and from torchrun.

    Yields:
        A function that returns whether a stop was requested.
    """
    received: list[int] = []
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none

    def request_stop(number: int, _: object) -> None:
        if impatient and number != hangup and any(earlier != hangup for earlier in received):
            raise KeyboardInterrupt
        received.append(number)

    handled = [signal.SIGINT, signal.SIGTERM]
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        handled.append(hangup)
    if threading.current_thread() is not threading.main_thread():
        handled = []
    before = {number: signal.signal(number, request_stop) for number in handled}
    exiting = not impatient
    try:
        yield lambda: bool(received)
        exiting = exiting and bool(received)
    finally:  # torchrun signals the others when one process has exited, but they exit themselves after a last line
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if exiting else handler)
