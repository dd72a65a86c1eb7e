"""What people and programs see of a run: the terminal, metrics.jsonl, TensorBoard, sample grids, warnings."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from artifacts.files import atomic_path
from trainer.config import schema as configuration
from trainer.errors import TrainerError
from trainer.reports import image_grids
from trainer.training.diagnostics import troubles
from trainer.training.loop import State

GRID_SEEDS = range(64)
REAL_SEED = 2**63  # Philox's key for the choice of real images in a picture


class NoBoard:
    """In the place of a SummaryWriter where none can be: every call does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return a function that takes anything."""
        return lambda *_, **__: None


class Monitor:
    """A Watcher (loop.py) that writes a run folder and talks to a terminal (plain lines where there is none)."""

    def __init__(self, state: State, run_dir: Path, console: Console, reals: np.ndarray) -> None:
        """reals: the image set, uint8 [N, H, W, C], to show some of beside the fakes."""
        from torch.utils.tensorboard import SummaryWriter

        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        self.run_dir = run_dir
        self.console = console
        self.total = state.config.run.total_kimg * 1000
        chosen = np.random.Philox(key=REAL_SEED).random_raw(len(GRID_SEEDS)) % np.uint64(len(reals))
        self._reals = np.stack([reals[int(index)] for index in chosen])
        self._metrics = run_dir / "metrics.jsonl"
        forget_steps_after(self._metrics, state.steps)
        self._ticks: list[dict[str, float]] = read_lines(self._metrics)
        self._board: Any = NoBoard()
        try:
            self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=state.images_seen + 1)
        except UnicodeEncodeError:
            console.print(f"warning: no TensorBoard events: the name of {run_dir} is not UTF-8")
        if state.steps == 0:
            self._board.add_text("config", f"```json\n{configuration.to_json(state.config)}```", 0)
        self._speed = Speed(state)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[kimg]}"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task(
            state.config.name, total=self.total, completed=state.images_seen, kimg=self._kimg(state), speed=""
        )
        self._live = Live(self._progress, console=console, transient=True, refresh_per_second=4)
        self._shown = 0.0
        self._last_speed = (time.monotonic(), state.images_seen)

    def __enter__(self) -> Monitor:
        self._hook = threading.excepthook
        threading.excepthook = self._quiet_about_files
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()
        with contextlib.suppress(OSError):  # a full disk: what it means was said already
            self._board.close()
        threading.excepthook = self._hook

    def _quiet_about_files(self, failure: Any) -> None:
        """TensorBoard's writing thread prints a traceback of a full disk; its next call tells us of it properly."""
        if not issubclass(failure.exc_type, OSError):
            self._hook(failure)

    def stepped(self, state: State) -> None:
        now = time.monotonic()
        if now - self._shown > 0.25:
            self._shown = now
            self._progress.update(self._task, completed=state.images_seen, kimg=self._kimg(state))
            before, images = self._last_speed
            if now - before > 2:  # of the last seconds: a tick can be long in coming
                self._progress.update(self._task, speed=f"{(state.images_seen - images) / (now - before):.0f} img/s")
                self._last_speed = now, state.images_seen

    def ticked(self, state: State, means: dict[str, float]) -> None:
        try:
            self._tick(state, means)
        except OSError as error:
            raise TrainerError(
                f"could not write into {self.run_dir}: {error.strerror or error}; its checkpoints are kept"
            ) from error

    def _tick(self, state: State, means: dict[str, float]) -> None:
        fixed = self._draw(state)
        means = means | {
            "saturated/fake": image_grids.saturated(fixed),
            "saturated/real": image_grids.saturated(self._reals),
        }
        line = {
            "step": state.steps,
            "images_seen": state.images_seen,
            **{name: round(value, 6) for name, value in means.items()},
            "images_per_second": round(self._speed.since_last(state), 1),
            "memory_mb": round(memory_mb(state.device)),
            "seconds": round(state.seconds, 3),
        }
        with self._metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._ticks.append(line)
        for name in line.keys() - {"step", "images_seen", "seconds"}:
            self._board.add_scalar(name, line[name], state.images_seen)
        if state.finished:
            self._board.add_hparams(
                hyperparameters(state.config),
                {f"final/{name}": value for name, value in means.items()},
                run_name=".",
                global_step=state.images_seen,
            )
        self._tell(state, line)

    def _draw(self, state: State) -> np.ndarray:
        """The tick's pictures; returns the images of the fixed seeds, uint8 [64, H, W, C]."""
        z_distribution, seen = state.config.model.z_distribution, state.images_seen
        fixed = image_grids.sample(state.G_ema, GRID_SEEDS, z_distribution)
        # seeds that no other tick shows, and yet the same ones in a run that is repeated
        fresh = image_grids.sample(state.G_ema, range(10**9 + seen, 10**9 + seen + len(GRID_SEEDS)), z_distribution)
        sheets = {
            "fixed": image_grids.grid(fixed),
            "random": image_grids.grid(fresh),
            "real-beside-fake": image_grids.side_by_side(image_grids.grid(self._reals), image_grids.grid(fresh)),
        }
        for name, sheet in sheets.items():
            image_grids.write_png(sheet, self.run_dir / "samples" / f"{name}-{seen:09d}.png")
            self._board.add_image(f"samples/{name}", sheet, seen, dataformats="HWC")
        return fixed

    def _tell(self, state: State, line: dict[str, float]) -> None:
        rate = f"{line['images_per_second']:.0f} img/s"
        self._progress.update(self._task, completed=state.images_seen, kimg=self._kimg(state), speed=rate)
        self._live.update(Group(latest(line), self._progress))
        shown = [f"{name} {line[name]:.3f}" for name in line if name.startswith(("loss/", "D/"))]
        shown += [
            f"{name} {line[f'quality/{name}']:.3f}" for name in ("frechet", "recall") if f"quality/{name}" in line
        ]
        self.console.print(f"{self._kimg(state):>18}  {'  '.join(shown)}  {rate}", highlight=False)
        for trouble in troubles(self._ticks, state.config.objective.name):
            self.console.print(f"warning: {trouble}", style="yellow", highlight=False)

    def _kimg(self, state: State) -> str:
        return f"{state.kimg:.1f}/{self.total / 1000:g} kimg"


def latest(line: dict[str, float]) -> Table:
    """The last tick, for the live view."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    values: list[str] = []
    for name, value in line.items():
        if name.startswith(("loss/", "D/", "gradient/", "quality/")) and name != "quality/seconds":
            table.add_column(name, justify="right")
            values.append(f"{value:.3f}")
    table.add_column("memory", justify="right")
    table.add_row(*values, f"{line['memory_mb']:,} MB")
    return table


def hyperparameters(config: configuration.Config) -> dict[str, str | float | int | bool]:
    """`section.field` → a value that TensorBoard's hparams take."""
    sections = config.model_dump(mode="json")
    found: dict[str, Any] = {}
    for field in configuration.known_fields():
        section, _, name = field.partition(".")
        value = sections[section][name] if name else sections[section]
        found[field] = value if isinstance(value, (str, float, int, bool)) else json.dumps(value)
    return found


def memory_mb(device: torch.device) -> float:
    """The device's memory in use at its highest (CUDA), else the process's resident memory now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError, ValueError, AttributeError):  # no /proc
        try:
            import resource
        except ImportError:  # Windows
            return 0.0
        # the highest so far; in bytes on macOS, else kB
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


class Speed:
    """Images a second between two ticks, from the state's own counters."""

    def __init__(self, state: State) -> None:
        self._images, self._seconds = state.images_seen, state.seconds

    def since_last(self, state: State) -> float:
        images, seconds = state.images_seen - self._images, state.seconds - self._seconds
        self._images, self._seconds = state.images_seen, state.seconds
        return images / seconds if seconds > 0 else 0.0


def read_lines(metrics: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()] if metrics.is_file() else []


def forget_steps_after(metrics: Path, step: int) -> None:
    """Drop the lines that a run wrote after the checkpoint it resumes from, so that no step stands twice."""
    if not metrics.is_file():
        return
    kept = [line for line in metrics.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    with atomic_path(metrics) as partial:
        partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    """The step of a line; a torn one (the run died while writing it) counts as after everything."""
    try:
        record: Any = json.loads(line)
        return int(record["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
