"""What people and programs see of a run: the terminal, metrics.jsonl, TensorBoard, sample grids."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from trainer import config as configuration
from trainer import pictures
from trainer.atomic import replacing
from trainer.errors import TrainerError
from trainer.loop import State

GRID_SEEDS = range(64)


class Monitor:
    """A Watcher (loop.py) that writes a run folder and talks to a terminal (plain lines where there is none)."""

    def __init__(self, state: State, run_dir: Path, console: Console) -> None:
        from torch.utils.tensorboard import SummaryWriter

        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        self.run_dir = run_dir
        self.console = console
        self.total = state.config.run.total_kimg * 1000
        self._metrics = run_dir / "metrics.jsonl"
        forget_steps_after(self._metrics, state.steps)
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=state.images_seen + 1)
        if state.steps == 0:
            self._board.add_text("config", f"```json\n{configuration.to_json(state.config)}```", 0)
        self._speed = Speed(state)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[kimg]}"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task(
            state.config.name, total=self.total, completed=state.images_seen, kimg=self._kimg(state), speed=""
        )
        self._shown = 0.0

    def __enter__(self) -> Monitor:
        self._hook = threading.excepthook
        threading.excepthook = self._quiet_about_files
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
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

    def ticked(self, state: State, means: dict[str, float]) -> None:
        try:
            self._tick(state, means)
        except OSError as error:
            raise TrainerError(
                f"could not write into {self.run_dir}: {error.strerror or error}; its checkpoints are kept"
            ) from error

    def _tick(self, state: State, means: dict[str, float]) -> None:
        speed = self._speed.since_last(state)
        line = {
            "step": state.steps,
            "images_seen": state.images_seen,
            **{name: round(value, 6) for name, value in means.items()},
            "images_per_second": round(speed, 1),
            "seconds": round(state.seconds, 3),
        }
        with self._metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in means.items():
            self._board.add_scalar(name, value, state.images_seen)
        self._board.add_scalar("speed/images_per_second", speed, state.images_seen)

        sheet = pictures.grid(pictures.sample(state.G_ema, GRID_SEEDS, state.config.model.z_distribution))
        pictures.write_png(sheet, self.run_dir / "samples" / f"fixed-{state.images_seen:09d}.png")
        self._board.add_image("samples/fixed", sheet, state.images_seen, dataformats="HWC")

        news = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        rate = f"{speed:.0f} img/s"
        self._progress.update(self._task, completed=state.images_seen, kimg=self._kimg(state), speed=rate)
        self.console.print(f"{self._kimg(state):>18}  {news}  {rate}", highlight=False)

    def _kimg(self, state: State) -> str:
        return f"{state.kimg:.1f}/{self.total / 1000:g} kimg"


class Speed:
    """Images a second between two ticks, from the state's own counters."""

    def __init__(self, state: State) -> None:
        self._images, self._seconds = state.images_seen, state.seconds

    def since_last(self, state: State) -> float:
        images, seconds = state.images_seen - self._images, state.seconds - self._seconds
        self._images, self._seconds = state.images_seen, state.seconds
        return images / seconds if seconds > 0 else 0.0


def forget_steps_after(metrics: Path, step: int) -> None:
    """Drop the lines that a run wrote after the checkpoint it resumes from, so that no step stands twice."""
    if not metrics.is_file():
        return
    kept = [line for line in metrics.read_text().splitlines() if _step_of(line) <= step]
    with replacing(metrics) as partial:
        partial.write_text("".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    """The step of a line; a torn one (the run died while writing it) counts as after everything."""
    try:
        record: Any = json.loads(line)
        return int(record["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
