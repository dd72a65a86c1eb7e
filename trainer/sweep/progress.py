"""A sweep on the terminal: a bar for the whole, one for each run that is under way; plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from trainer.sweep.report import mean_and_spread
from trainer.sweep.study import Plan, Trial
from trainer.sweep.workers import Job

EVERY = 30.0  # seconds between two lines without a terminal


class View:
    """What the runner tells of its progress."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self.console = console
        self._total = plan.images
        self._began: tuple[float, int] | None = None  # when this process first looked, and the images seen before
        self._said = time.monotonic()
        self._bars: dict[Job, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[told]}", style="dim", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            speed_estimate_period=3600,  # runs report their progress once a tick
        )
        self._all = self._progress.add_task("[bold]sweep", total=plan.images, told="")

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._progress.stop()

    def started(self, job: Job, resumed: bool) -> None:
        label = f"{job.trial.number:04d} seed {job.seed}"
        how = "goes on" if resumed else "starts"
        if not self.console.is_terminal:
            self.console.print(f"{label} {how}: {job.trial.words()}")
        told = job.trial.words()
        self._bars[job] = self._progress.add_task(label, total=job.total, completed=job.images_seen(), told=told)

    def waits(self, job: Job) -> None:
        self.console.print(f"{job.trial.number:04d} seed {job.seed} is still being trained by a sweep before; waiting")

    def ended(self, job: Job) -> None:
        task = self._bars.pop(job, None)
        if task is not None:
            self._progress.remove_task(task)

    def told(self, trial: Trial) -> None:
        """A trial's line: its setting, and its score or why it has none."""
        if trial.reason:
            self.console.print(f"{trial.number:04d} {trial.words()}  failed: {trial.reason}", style="red", markup=False)
            return
        frechet, recall = (mean_and_spread(trial.runs, name) for name in ("frechet", "recall"))
        self.console.print(f"{trial.number:04d} {trial.words()}  Fréchet distance {frechet}, recall {recall}")

    def progressed(self, images: int, active: Sequence[Job], counts: str) -> None:
        """images: seen by all runs of the study so far."""
        for job in active:
            if job in self._bars:
                self._progress.update(self._bars[job], completed=job.images_seen())
        self._progress.update(self._all, completed=images, told=counts)
        now = time.monotonic()
        self._began = self._began or (now, images)
        if not self.console.is_terminal and now - self._said > EVERY:
            self._said = now
            self.console.print(f"{counts}; {images / self._total:.0%} of the images{self._left(now, images)}")

    def _left(self, now: float, images: int) -> str:
        began, before = self._began or (now, images)
        if images <= before or images >= self._total:
            return ""
        minutes = (now - began) * (self._total - images) / (images - before) / 60
        return f", about {minutes:.0f} minutes left" if minutes >= 1.5 else ", about a minute left"
