"""The runs of a sweep, each in its own process, so that a run that fails ends no other.

`python -m trainer.sweep.workers PARENT train …` is `trainer train …` that ends when the process PARENT does.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from artifacts.files import atomic_path
from artifacts.processes import TERMINATION, child_environment, end_with, python_module
from artifacts.resources import POOLS
from trainer.config.loading import to_json
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.reports import pages, plots
from trainer.sweep import space
from trainer.sweep.plan import Plan
from trainer.sweep.study import RunResult, Trial
from trainer.training import checkpoint, run_folder

# Exit code of a run whose setting diverged or broke. Code 2, on a full disk for one, is not the setting's fault.
FAILED = 1
INTERRUPTED = {130, *(-number for number in (signal.SIGINT, *TERMINATION))}


@dataclass(frozen=True, eq=False)
class Job:
    """One seed of a trial: a run folder, its config and its log next to it."""

    trial: Trial
    seed: int
    config: Config
    run_dir: Path

    @property
    def name(self) -> str:
        """The trial's number and the seed."""
        return f"{self.trial.number:04d} seed {self.seed}"

    @property
    def log(self) -> Path:
        """The file of what the run printed."""
        return self.run_dir.with_name(f"{self.run_dir.name}.log")

    @property
    def total_images(self) -> int:
        """The real images that the run is to see."""
        return round(self.config.run.total_kimg * 1000)

    def images_seen(self) -> int:
        """Return the real images that the run had seen at its last tick."""
        ticks = read_ticks(self.run_dir)
        return min(int(ticks[-1]["images_seen"]), self.total_images) if ticks else 0

    def result(self, **values: Any) -> RunResult:
        """Return the run's result with these values."""
        return {"seed": self.seed, "folder": f"{self.trial.folder}/{self.run_dir.name}", **values}

    def finished_result(self) -> RunResult | None:
        """Return the result of a run that ended, also by its patience, before a killed sweep recorded it."""
        values = score(self.run_dir)
        if values is None or not (self.run_dir / "report.html").is_file():
            return None
        is_complete = values["final_images_seen"] >= self.total_images or pages.early_end(self.run_dir) is not None
        return self.result(**values) if is_complete else None

    def is_free(self) -> bool:
        """Return whether no process trains in the folder: a run outlives a killed sweep until it has saved."""
        if not self.run_dir.is_dir():
            return True
        try:
            with run_folder.exclusive(self.run_dir):
                return True
        except TrainerError:
            return False


def jobs_of(trial: Trial, plan: Plan, folder: Path, threads: int) -> list[Job]:
    """Return a trial's runs, one per seed, and make their folder."""
    config = space.apply(plan.config, trial.setting)
    parent = folder / trial.folder
    parent.mkdir(parents=True, exist_ok=True)
    jobs = []
    for seed in plan.run_seeds:
        run = config.run.model_copy(update={"seed": seed, "threads": config.run.threads or threads})
        jobs.append(Job(trial, seed, config.model_copy(update={"run": run}), parent / f"seed-{seed}"))
    return jobs


class Worker:
    """The process of a job. It resumes from a checkpoint where the run has one."""

    def __init__(self, job: Job, data_root: Path, threads: int) -> None:
        self.job = job
        arguments = [*self._arguments(), "--data-root", str(data_root)]
        self._log = job.log.open("ab")
        self._log.write(f"$ trainer {shlex.join(arguments)}\n".encode())
        self._log.flush()
        self._start = self._log.tell()
        self._process = subprocess.Popen(
            [*python_module("trainer.sweep.workers"), str(os.getpid()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=child_environment() | dict.fromkeys(POOLS, str(threads)),
            start_new_session=True,  # A terminal's Ctrl-C reaches only the sweep, which stops each worker once.
        )

    def _arguments(self) -> list[str]:
        job = self.job
        self.resumed = job.run_dir.is_dir() and bool(checkpoint.paths(job.run_dir))
        if self.resumed:
            return ["resume", str(job.run_dir), *(["--user-code"] if self._names_what_the_plan_names() else [])]
        if job.run_dir.exists():  # The run ended before its first checkpoint.
            shutil.rmtree(job.run_dir)
        preset = job.run_dir.with_name(f"{job.run_dir.name}.json")
        with atomic_path(preset) as partial:
            partial.write_text(to_json(job.config), encoding="utf-8")
        return ["train", "--preset", str(preset), "--run-dir", str(job.run_dir)]

    def _names_what_the_plan_names(self) -> bool:
        """Return whether the run names the user modules of the plan, which the user gave, and no others."""
        planned = list(self.job.config.plugins())
        with contextlib.suppress(TrainerError):  # unreadable checkpoints, which the run itself reports
            return bool(planned) and planned == list(
                checkpoint.config_of(checkpoint.load_latest(self.job.run_dir)[1]).plugins()
            )
        return False

    def stop(self) -> None:
        """Ask the run to finish its step and save."""
        self._process.send_signal(signal.SIGTERM)

    def end(self, timeout: float) -> None:
        """End the process; with a timeout above 0 it has so many seconds to save first."""
        if timeout:
            self.stop()
        try:
            self._process.wait(timeout or 0.01)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def poll(self) -> RunResult | Literal["running", "interrupted"]:
        """Return the run's result, a score or a `reason`, once it has ended.

        Raises:
            TrainerError: If the run did not end because of its setting (a full disk, a kill). It has no result then,
                and can resume.
        """
        code = self._process.poll()
        if code is None:
            return "running"
        self._log.close()
        if code in INTERRUPTED:
            return "interrupted"
        if code == 0:
            return self.job.result(**(score(self.job.run_dir) or {"reason": "it ended without a measure of quality"}))
        if code == FAILED:
            return self.job.result(reason=self._reason(code))
        raise TrainerError(
            f"{self.job.trial.label}, seed {self.job.seed} cannot continue: {self._reason(code)}. Its log is "
            f"{self.job.log}; fix the cause, then run the same command to resume"
        )

    def _reason(self, code: int) -> str:
        with self.job.log.open("rb") as log:
            log.seek(self._start)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + " (out of memory?)" * (name == "SIGKILL")
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (errors or lines or [f"exit code {code}"])[-1][:400]


def score(run_dir: Path) -> dict[str, Any] | None:
    """Return a run's lowest Fréchet distance, recall and images seen at that tick, and its last values.

    Recall is left out where there were too few images to measure it.
    """
    ticks = read_ticks(run_dir)
    measured = [tick for tick in ticks if "quality/frechet" in tick]
    if not measured:
        return None
    best = min(measured, key=lambda tick: tick["quality/frechet"])
    recalls = {"recall": best.get("quality/recall"), "final_recall": measured[-1].get("quality/recall")}
    return {
        "frechet": best["quality/frechet"],
        **{name: value for name, value in recalls.items() if value is not None},
        "images_seen": best["images_seen"],
        "final_frechet": measured[-1]["quality/frechet"],
        "final_images_seen": ticks[-1]["images_seen"],
        "seconds": ticks[-1]["seconds"],
    }


def read_ticks(run_dir: Path) -> list[plots.Tick]:
    """Return the ticks so far, none without a readable file."""
    try:
        return plots.read_metrics(run_dir / "metrics.jsonl", growing=True)
    except (OSError, TrainerError):
        return []


if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)))
    runpy.run_module("trainer", run_name="__main__", alter_sys=True)
