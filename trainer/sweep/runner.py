"""Runs a sweep: starts workers while there is room, records the trials that end, and passes a stop on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from imagesets import ImageSet
from trainer import devices
from trainer.data import ImageRecord, load_images
from trainer.data import with_channels as with_image_channels
from trainer.distributed import environment
from trainer.errors import TrainerError
from trainer.sweep import report, space
from trainer.sweep.plan import Plan, check_folder
from trainer.sweep.study import RunResult, Study, Trial, import_optuna, ranked
from trainer.sweep.workers import Job, Worker, jobs_of
from trainer.trackers import require_installed
from trainer.training import run_folder

SAVE_TIMEOUT = 120.0  # seconds that a worker has to finish its step and save
POLL_INTERVAL = 0.2  # seconds
PRINT_INTERVAL = 30.0  # seconds between two lines of progress without a terminal


def with_channels(plan: Plan, data_root: Path) -> Plan:
    """Return the plan with the images' channels where none are given, so that every run trains on the same images."""
    return replace(plan, config=with_image_channels(plan.config, data_root))


def run_sweep(plan: Plan, folder: Path, data_root: Path, jobs: int, console: Console) -> int:
    """Train the remaining trials of a plan, and write the report.

    Args:
        plan: What to train.
        folder: The sweep's folder. A sweep of the same plan resumes.
        data_root: The folder of the datasets.
        jobs: The number of runs at a time.
        console: Where progress is printed.

    Returns:
        The exit code: 0, 1 (a trial failed) or 130 (stopped).

    Raises:
        TrainerError: If the folder holds another sweep, or a run ended for a reason that is not its setting.
    """
    import_optuna()
    if environment.world_size() > 1:
        raise TrainerError("a sweep starts its own runs: remove torchrun, and use --jobs for several at a time")
    require_installed(plan.config.run.track)
    threads = plan.config.run.threads or max(1, devices.default_threads() // jobs)
    check_folder(folder, plan)
    images = _load_images(plan, data_root)
    folder.mkdir(parents=True, exist_ok=True)
    with run_folder.exclusive(folder, "sweeping"):
        study = Study(folder, plan)
        check_same_images(folder, images)
        done = sum(trial.state in ("finished", "failed") for trial in study.trials())
        seeds = f", {plan.seeds} seeds each" if plan.seeds > 1 else ""
        console.print(
            f"{plan.config.name}: {plan.trials} trials{seeds}, {plan.most}{plan.images / 1000:,g} kimg in all; "
            f"{jobs} at a time with {threads} threads each → {folder}" + (f" ({done} are done)" if done else "")
        )

        def write_report() -> None:
            try:
                report.write(folder, study)
            except (ImportError, OSError) as error:  # The trials are recorded even without a library or disk space.
                console.print(f"warning: no report ({error}); the same command writes it later")

        with run_folder.graceful_stop() as should_stop:
            with SweepProgress(console, plan) as progress:
                runner = Runner(study, folder, progress, jobs, threads, data_root, should_stop, write_report)
                finished = runner.run()
            write_report()
        return _print_outcome(study.trials(), folder / report.PAGE, finished, console)


def _load_images(plan: Plan, data_root: Path) -> ImageSet:
    """Check that the device and the image set suit every setting, and decode the images before a worker does."""
    devices.resolve_auto(plan.config)
    configs = (space.apply(plan.config, setting) for setting in space.combinations(plan.varies))
    for config in {(config.optim.batch_size, config.model.conditional): config for config in configs}.values():
        images, _ = load_images(config, data_root)
    return images


def check_same_images(folder: Path, images: ImageSet) -> None:
    """Record the images of a sweep, or raise TrainerError for other images, whose scores would not compare."""
    record = ImageRecord.read(folder)
    if changed := record.describe_change(images):
        raise TrainerError(
            f"the images of {images.name} differ from those that the sweep in {folder} started with: {changed}. "
            "Restore the same images, or give another --output"
        )
    if not record.has_fingerprint:
        run_folder.write_text(folder / ImageRecord.FILE, json.dumps({"image_set": images.info}, indent=2) + "\n")


def _print_outcome(trials: Sequence[Trial], page: Path, finished: bool, console: Console) -> int:
    failed = [trial for trial in trials if trial.state == "failed"]
    for best in ranked(trials)[:1]:
        setting, score = space.format_setting(best.setting), best.mean_and_std("frechet")
        console.print(f"best: {best.number:04d} {setting}  Fréchet distance {score}")
    if failed:
        console.print(f"{len(failed)} of {len(trials)} trials failed, the first: {failed[0].reason}")
    if not finished:
        console.print(f"stopped; {page} shows the results so far. Run the same command to resume")
        return 130
    console.print(f"open {page}")
    return 1 if failed else 0


class SweepProgress:
    """A bar for the sweep and one per active run; plain lines without a terminal."""

    def __init__(self, console: Console, plan: Plan, get_time: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._get_time = get_time
        self._last_printed = get_time()
        self._bars: dict[Job, TaskID] = {}
        self._sweep: TaskID | None = None
        self._total = plan.images
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            get_time=get_time,
            speed_estimate_period=3600,  # A run reports its progress only once per tick.
        )

    def __enter__(self) -> SweepProgress:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._progress.stop()

    def started(self, job: Job, *, resumed: bool) -> None:
        """Add a run's bar, or print a line."""
        label = job.trial.label
        if not self.console.is_terminal:
            self.console.print(f"{job.name} {'resumes' if resumed else 'starts'}: {label}")
        self._bars[job] = self._progress.add_task(
            job.name, total=job.total_images, completed=job.images_seen(), detail=label
        )

    def ended(self, job: Job) -> None:
        """Remove a run's bar."""
        if (bar := self._bars.pop(job, None)) is not None:
            self._progress.remove_task(bar)

    def print_trial(self, trial: Trial) -> None:
        """Print a trial's setting, and its score or why it failed."""
        if trial.reason:
            line = f"{trial.number:04d} {trial.label}  failed: {trial.reason}"
            self.console.print(line, style="red", markup=False)
            return
        frechet, recall = (trial.mean_and_std(name) for name in ("frechet", "recall"))
        self.console.print(f"{trial.number:04d} {trial.label}  Fréchet distance {frechet}, recall {recall}")

    def update(self, images: int, counts: str) -> None:
        """Show the real images that all runs have seen so far, and how many trials have ended."""
        for job, bar in self._bars.items():
            self._progress.update(bar, completed=job.images_seen())
        if self._sweep is None:  # Images of an earlier process count for the bar, but not for its speed.
            self._sweep = self._progress.add_task("[bold]sweep", total=self._total, completed=images, detail=counts)
        self._progress.update(self._sweep, completed=images, detail=counts)
        if not self.console.is_terminal and self._get_time() - self._last_printed > PRINT_INTERVAL:
            self._last_printed = self._get_time()
            self.console.print(f"{counts}; {images / self._total:.0%} of the images{self.time_left()}")

    def time_left(self) -> str:
        """Return `, about N minutes left`, or "" while that is not known."""
        task = next(task for task in self._progress.tasks if task.id == self._sweep)
        if not task.time_remaining:
            return ""
        minutes = task.time_remaining / 60
        return f", about {minutes:.0f} minutes left" if minutes >= 1.5 else ", about a minute left"


@dataclass
class Runner:
    """Trains a study's trials with a number of workers at a time."""

    study: Study
    folder: Path
    progress: SweepProgress
    jobs: int
    threads: int  # of each worker
    data_root: Path
    should_stop: Callable[[], bool]
    on_trial_end: Callable[[], object]
    _workers: list[Worker] = field(default_factory=list)
    _held: list[Job] = field(default_factory=list)  # another process, of an earlier sweep, trains in their folders
    _results: dict[int, list[RunResult]] = field(default_factory=dict)  # of the trials that have begun
    _interrupted: bool = False
    _error: TrainerError | None = None  # what ended a run that its setting did not

    def run(self) -> bool:
        """Train until every trial has ended, or until the workers have saved after a stop.

        Returns:
            Whether all trials ended.

        Raises:
            TrainerError: After the other runs have saved, if a run ended for a reason that is not its setting.
        """
        self._count_trials()
        jobs, stopping = self._remaining_jobs(), False
        try:
            while True:
                if (self.should_stop() or self._error) and not stopping:
                    stopping = True
                    self.progress.console.print("stopping: the runs finish their step and save …")
                    for worker in self._workers:
                        worker.stop()
                while not stopping and len(self._workers) < self.jobs and (job := self._next_job(jobs)):
                    worker = Worker(job, self.data_root, self.threads)
                    self._workers.append(worker)
                    self.progress.started(job, resumed=worker.resumed)
                if not self._workers and (stopping or not self._held):
                    break
                self._collect_results()
                self._show_progress()
                time.sleep(POLL_INTERVAL)
        except KeyboardInterrupt:  # the second Ctrl-C
            for worker in self._workers:
                worker.end(timeout=0)
            raise
        finally:
            for worker in self._workers:
                worker.end(timeout=SAVE_TIMEOUT)
        if self._error:
            raise self._error
        return not stopping and not self._interrupted

    def _remaining_jobs(self) -> Iterator[Job]:
        """Yield the runs that have not ended. A trial begins only when its first run is due."""
        while (trial := self.study.ask()) is not None:
            results = self._results[trial.number] = []
            remaining = []
            try:
                for job in jobs_of(trial, self.study.plan, self.folder, self.threads):
                    if (result := job.finished_result()) is None:
                        remaining.append(job)
                    else:
                        results.append(result)
            except TrainerError as error:  # The sampler drew values that do not go together.
                results += [{"seed": seed, "reason": str(error)} for seed in self.study.plan.run_seeds]
            self._end_if_complete(trial)
            yield from remaining

    def _next_job(self, jobs: Iterator[Job]) -> Job | None:
        """Return the next run whose folder no other process trains in; None while there is none."""
        if free := next((job for job in self._held if job.is_free()), None):
            self._held.remove(free)
            return free
        for job in jobs:
            if job.is_free():
                return job
            self._held.append(job)
            self.progress.console.print(f"{job.name} is still being trained by an earlier sweep; waiting")
        return None

    def _collect_results(self) -> None:
        for worker in list(self._workers):
            try:
                result = worker.poll()
            except TrainerError as error:
                self._error = self._error or error
                result = "interrupted"
            if result == "running":
                continue
            self._workers.remove(worker)
            self.progress.ended(worker.job)
            if result == "interrupted":
                self._interrupted = True
            else:
                self._results[worker.job.trial.number].append(result)
                self._end_if_complete(worker.job.trial)

    def _end_if_complete(self, trial: Trial) -> None:
        """Record a trial when all its runs have ended."""
        if len(self._results[trial.number]) < self.study.plan.seeds:
            return
        runs = sorted(self._results.pop(trial.number), key=lambda run: run["seed"])
        self.progress.print_trial(self.study.tell(trial, runs))
        self._count_trials()
        self.on_trial_end()

    def _count_trials(self) -> None:
        counts = Counter(trial.state for trial in self.study.trials())
        plan = self.study.plan
        self._ended_images = plan.images * (counts["finished"] + counts["failed"]) // plan.trials
        self._counts = f"{counts['finished']} of {plan.trials} trials done"
        if counts["failed"]:
            self._counts += f", {counts['failed']} failed"

    def _show_progress(self) -> None:
        active = sum(worker.job.images_seen() for worker in self._workers)
        ended = sum(int(run.get("final_images_seen", 0)) for runs in self._results.values() for run in runs)
        self.progress.update(self._ended_images + active + ended, self._counts)
