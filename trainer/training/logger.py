"""What a run reports: progress on the terminal, metrics.jsonl, sample grids, warnings, and what trackers are given."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from artifacts.files import atomic_path
from trainer.data import ImageRecord
from trainer.errors import TrainerError
from trainer.reports import image_grids, plots
from trainer.trackers import Outcome, RunTrackers
from trainer.trackers.run_trackers import scalars
from trainer.training.loop import Callback
from trainer.training.state import TrainState

GRID_SEEDS = range(64)
REAL_SEED = 2**63  # Philox key that chooses the real images of a grid
D_WINS = 0.02  # a D loss below this leaves G next to no gradient
COLLAPSED = 0.5  # share of the best recall so far
SHOWN = ("frechet", "recall", "memorization", "memorization_real")  # of quality/…, on the terminal
SATURATED = 0.25  # how much more of the generated values than of the real ones are 0 or 255


class RunLogger(Callback):
    """A callback of the loop that writes into a run folder and prints progress, as plain lines without a terminal."""

    def __init__(self, state: TrainState, run_dir: Path, console: Console, reals: np.ndarray) -> None:
        """Open the logs of a run.

        Args:
            state: The state at the start.
            run_dir: The run folder.
            console: Where progress is printed.
            reals: The image set, uint8 [N, H, W, C]; grids show some next to the fakes.
        """
        self.run_dir = run_dir
        self.console = console
        self.total = state.config.run.total_kimg * 1000
        chosen = np.random.Philox(key=REAL_SEED).random_raw(len(GRID_SEEDS)) % np.uint64(len(reals))
        self._reals = np.stack([reals[int(index)] for index in chosen])
        self._metrics = run_dir / "metrics.jsonl"
        truncate_metrics(self._metrics, state.steps)
        self._ticks = plots.read_metrics(self._metrics) if self._metrics.is_file() else []
        self._trackers = RunTrackers(
            state.config,
            run_dir,
            images_seen=state.images_seen,
            made_by=ImageRecord.read(run_dir).content,
            history=self._ticks,
            report=console.print,
        )
        self._last_tick = state.images_seen, state.seconds
        self._final: dict[str, float] = {}  # the means of the last tick of a finished run
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

    def __enter__(self) -> RunLogger:
        """Show live progress on a terminal."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, exception: type[BaseException] | None, *_: object) -> None:
        """Close the logs and the trackers."""
        if self.console.is_terminal:
            self._live.stop()
        outcome: Outcome = "finished" if self._final else "stopped"
        if exception is not None and not issubclass(exception, KeyboardInterrupt):
            outcome = "failed"
        self._trackers.finish(outcome, self._last_tick[0], self._final)

    def on_step(self, state: TrainState) -> None:
        """Update the progress bar, at most four times per second."""
        now = time.monotonic()
        if now - self._shown > 0.25:
            self._shown = now
            self._progress.update(self._task, completed=state.images_seen, kimg=self._kimg(state))
            before, images = self._last_speed
            if now - before > 2:  # the speed of the last seconds
                self._progress.update(self._task, speed=f"{(state.images_seen - images) / (now - before):.0f} img/s")
                self._last_speed = now, state.images_seen

    def on_tick(self, state: TrainState, means: dict[str, float]) -> None:
        """Write the tick's metrics and grids, and print a line.

        Raises:
            TrainerError: If the run folder cannot be written.
        """
        try:
            self._tick(state, means)
        except OSError as error:
            raise TrainerError(
                f"could not write into {self.run_dir}: {error.strerror or error}; its checkpoints are kept"
            ) from error

    def _tick(self, state: TrainState, means: dict[str, float]) -> None:
        fixed, sheets = self._write_grids(state)
        images, seconds = state.images_seen - self._last_tick[0], state.seconds - self._last_tick[1]
        self._last_tick = state.images_seen, state.seconds
        means = means | {
            "saturated/fake": image_grids.saturated(fixed),
            "saturated/real": image_grids.saturated(self._reals),
        }
        line = {
            "step": state.steps,
            "images_seen": state.images_seen,
            **{name: round(value, 6) for name, value in means.items()},
            "images_per_second": round(images / seconds if seconds > 0 else 0.0, 1),
            "memory_mb": round(memory_mb(state.device)),
            "seconds": round(state.seconds, 3),
        }
        if state.cpu_seconds is not None:
            line["cpu_seconds"] = round(state.cpu_seconds, 3)
        with self._metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._ticks.append(line)
        pictures = {f"samples/{name}": sheet for name, sheet in sheets.items()}
        self._trackers.log_tick(state.images_seen, scalars(line), pictures)
        if state.finished:
            self._final = means
        self._print(state, line)

    def _write_grids(self, state: TrainState) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Write the tick's sample grids; return the images of the fixed seeds, uint8 [64, H, W, C], and the grids."""
        z_distribution, seen = state.config.model.z_distribution, state.images_seen
        fixed = image_grids.sample(state.G_ema, GRID_SEEDS, z_distribution)
        # No other tick shows these seeds, and a repeated run shows the same ones.
        fresh = image_grids.sample(state.G_ema, range(10**9 + seen, 10**9 + seen + len(GRID_SEEDS)), z_distribution)
        sheets = {
            "fixed": image_grids.grid(fixed),
            "random": image_grids.grid(fresh),
            "real-beside-fake": image_grids.side_by_side(image_grids.grid(self._reals), image_grids.grid(fresh)),
        }
        for name, sheet in sheets.items():
            image_grids.write_png(sheet, self.run_dir / "samples" / f"{name}-{seen:09d}.png")
        return fixed, sheets

    def _print(self, state: TrainState, line: dict[str, float]) -> None:
        rate = f"{line['images_per_second']:.0f} img/s"
        self._progress.update(self._task, completed=state.images_seen, kimg=self._kimg(state), speed=rate)
        self._live.update(Group(metrics_table(line), self._progress))
        shown = [f"{name} {line[name]:.3f}" for name in line if name.startswith(("loss/", "D/", "augment/"))]
        shown += [f"{name} {line[f'quality/{name}']:.3f}" for name in SHOWN if f"quality/{name}" in line]
        self.console.print(f"{self._kimg(state):>18}  {'  '.join(shown)}  {rate}", highlight=False)
        for warning in diagnose(self._ticks, state.config.objective.name):
            self.console.print(f"warning: {warning}", style="yellow", highlight=False)

    def _kimg(self, state: TrainState) -> str:
        return f"{state.kimg:.1f}/{self.total / 1000:g} kimg"


def metrics_table(line: dict[str, float]) -> Table:
    """Return the metrics of a tick as a table for the live view."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    values: list[str] = []
    qualities = tuple(f"quality/{name}" for name in SHOWN)
    for name, value in line.items():
        if name.startswith(("loss/", "D/", "augment/", "gradient/")) or name in qualities:
            table.add_column(name, justify="right")
            values.append(f"{value:.3f}")
    table.add_column("memory", justify="right")
    table.add_row(*values, f"{line['memory_mb']:,} MB")
    return table


def memory_mb(device: torch.device) -> float:
    """Return the peak memory of a CUDA device, else the present resident memory of the process, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError, IndexError, ValueError, AttributeError):  # no /proc
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    with contextlib.suppress(ImportError):  # Windows
        import resource

        # The peak, in bytes on macOS, else in kB.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    return 0.0


def truncate_metrics(metrics: Path, step: int) -> None:
    """Remove the lines that a run wrote after the checkpoint it resumes from, so that each step is in one line.

    An incomplete line, of a run that was killed, is removed too.
    """
    kept = []
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            kept += [line + "\n"] if json.loads(line)["step"] <= step else []
    if metrics.is_file():
        with atomic_path(metrics) as partial:
            partial.write_text("".join(kept), encoding="utf-8")


def diagnose(ticks: Sequence[Mapping[str, float]], objective: str) -> list[str]:
    """Return a warning with a remedy for each known failure that the last tick shows.

    Args:
        ticks: The metrics of all ticks, as metrics.jsonl has them.
        objective: `objective.name`.
    """
    last, found = ticks[-1], list[str]()
    losses = [tick["loss/G"] for tick in ticks[-3:]]
    grows = len(losses) == 3 and losses[2] > losses[1] > losses[0]
    if objective != "wasserstein" and grows and last["loss/D"] < D_WINS:
        rise = f"{losses[0]:.2f} → {losses[2]:.2f}"
        found.append(
            f"D wins: its loss is {last['loss/D']:.3f} while G's grows ({rise}). Hold D back: "
            "a lower optim.d_lr, objective.r1_gamma=1, model.d_spectral_norm=true, or data.augment with "
            "data.ada_target=0.6 for a small set"
        )
    recalls = [tick["quality/recall"] for tick in ticks if "quality/recall" in tick]
    if len(recalls) >= 3 and "quality/recall" in last:
        best = max(recalls[:-1])
        if best >= 0.05 and recalls[-1] <= recalls[-2] < best and recalls[-1] < COLLAPSED * best:
            found.append(
                f"diversity falls: recall is {recalls[-1]:.2f}, after {best:.2f}. G may be collapsing onto few images: "
                "lower optim.g_lr, raise optim.batch_size, or go back to the best checkpoint"
            )
    if last.get("quality/memorization_excess"):
        copies, real = last["quality/memorization"], last["quality/memorization_real"]
        found.append(
            f"G memorizes: {copies:.0%} of its images are near-copies of training images, {real:.0%} of other real "
            "images. Stop here and export an earlier checkpoint; next time use more images, data.augment or --init-from"
        )
    fakes, reals = last.get("saturated/fake"), last.get("saturated/real")
    if fakes is not None and reals is not None and fakes >= reals + SATURATED:
        found.append(
            f"saturated outputs: {fakes:.0%} of the generated values are 0 or 255, {reals:.0%} of the real ones. "
            "tanh has no slope there: lower optim.g_lr, or start again with a smaller model.init_std"
        )
    return found
