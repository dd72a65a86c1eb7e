"""A run folder: creating and locking it, writing into it, and stopping its run gracefully."""

from __future__ import annotations

import json
import math
import re
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artifacts.files import LockTakenError, atomic_path, lock_handle
from trainer.config.loading import to_json
from trainer.config.schema import Config
from trainer.data import ImageRecord
from trainer.errors import TrainerError
from trainer.training import checkpoint


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
    """Write `made_by.json`, the record of a run's images and machine."""
    write_text(run_dir / ImageRecord.FILE, json.dumps(record, indent=2, default=str) + "\n")


@contextmanager
def exclusive(run_dir: Path, doing: str = "training") -> Iterator[None]:
    """Hold the lock of a run folder, so that only one process at a time writes into it.

    Args:
        run_dir: The folder. Partial files of a process that was killed while it wrote are removed.
        doing: What the process does, for the error message.

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


def never() -> bool:
    """Return False: the time budget of a run without one."""
    return False


def time_budget(minutes: float | None) -> Callable[[], bool]:
    """Return a function that returns whether so many minutes have passed since this call; never for None.

    Raises:
        TrainerError: If it is not a number above 0.
    """
    if minutes is None:
        return never
    if not 0 < minutes < math.inf:
        raise TrainerError(f"minutes is a number above 0, not {minutes:g}")
    end = time.monotonic() + 60 * minutes
    return lambda: time.monotonic() >= end


@contextmanager
def graceful_stop(impatient: bool = True) -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into a request to stop after the step; a second one interrupts.

    A SIGHUP that is ignored (`nohup`) stays ignored. SIGHUP never interrupts: a shell and the kernel both send it, and
    systemd sends it right after SIGTERM. Outside the main thread signals are left alone.

    Args:
        impatient: Whether a second signal interrupts the step at once. False under torchrun, where Ctrl-C reaches a
            process twice: from the terminal and from torchrun.

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
