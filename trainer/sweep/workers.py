"""Each run of a sweep is a process of its own (`python -m trainer train`): what breaks it breaks no other."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from artifacts.files import atomic_path
from artifacts.processes import TERMINATION, child_environment, python_module
from trainer.config.loading import to_json
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.sweep.study import Run, Trial
from trainer.training import checkpoint, run_folder

FAILED = 1  # what a child answers whose setting diverged or broke; 2 (a full disk, say) is of the place it runs in
INTERRUPTED = {
    130,
    *(-number for number in (signal.SIGINT, *TERMINATION)),
}  # what a child that was asked to stop answers


@dataclass(frozen=True, eq=False)
class Job:
    """One seed of a trial: a run folder, and beside it its config and what it printed."""

    trial: Trial
    seed: int
    config: Config
    run_dir: Path

    @property
    def log(self) -> Path:
        return self.run_dir.with_name(f"{self.run_dir.name}.log")

    @property
    def total(self) -> int:
        """Images that it is to see."""
        return round(self.config.run.total_kimg * 1000)

    def images_seen(self) -> int:
        """At the last tick."""
        lines = metrics_of(self.run_dir)
        return min(int(lines[-1]["images_seen"]), self.total) if lines else 0

    def told(self) -> Run:
        """What its outcome begins with."""
        return {"seed": self.seed, "folder": f"{self.trial.folder}/{self.run_dir.name}"}

    def ended(self) -> Run | None:
        """Its outcome when it was trained to its end already, by a sweep that was killed before it told so."""
        found = score(self.run_dir)
        at_the_end = found is not None and found["final_images_seen"] >= self.total
        return self.told() | found if found and at_the_end and (self.run_dir / "report.html").is_file() else None

    def is_free(self) -> bool:
        """Whether no process trains in the folder: a child outlives a killed sweep until it has saved."""
        if not self.run_dir.is_dir():
            return True
        try:
            with run_folder.exclusive(self.run_dir):
                return True
        except TrainerError:
            return False


class Child:
    """A job's process, from its checkpoint if it has one."""

    def __init__(self, job: Job, data_root: Path, threads: int) -> None:
        self.job = job
        arguments = [*self._arguments(), "--data-root", str(data_root)]
        command = [*python_module("trainer.sweep.worker_main"), str(os.getpid()), *arguments]
        threading = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        self._log: IO[bytes] = job.log.open("ab")
        self._log.write(f"$ trainer {shlex.join(arguments)}\n".encode())
        self._log.flush()
        self._start = self._log.tell()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=child_environment() | threading,
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and we ask each child once
        )

    def _arguments(self) -> list[str]:
        job = self.job
        self.resumed = job.run_dir.is_dir() and bool(checkpoint.paths(job.run_dir))
        if self.resumed:
            return ["resume", str(job.run_dir)]
        if job.run_dir.exists():  # it ended before its first checkpoint
            shutil.rmtree(job.run_dir)
        recipe = job.run_dir.with_name(f"{job.run_dir.name}.json")
        with atomic_path(recipe) as partial:
            partial.write_text(to_json(job.config), encoding="utf-8")
        return ["train", "--preset", str(recipe), "--run-dir", str(job.run_dir)]

    def ask_to_stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def end(self, wait: float) -> None:
        """Make sure that it is gone; it has `wait` seconds to save first."""
        if wait:
            self.ask_to_stop()
        try:
            self._process.wait(wait or 0.01)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def outcome(self) -> Run | Literal["going on", "interrupted"]:
        """What came of it: a score, or a `reason`.

        Raises TrainerError where its setting did not end it (a full disk, a kill): the run has no outcome then, and
        can go on.
        """
        code = self._process.poll()
        if code is None:
            return "going on"
        self._log.close()
        if code in INTERRUPTED:
            return "interrupted"
        told = self.job.told()
        if code == 0:
            return told | (score(self.job.run_dir) or {"reason": "it ended without a measure of quality"})
        if code == FAILED:
            return told | {"reason": self._reason(code)}
        raise TrainerError(
            f"{self.job.trial.words()}, seed {self.job.seed} cannot go on: {self._reason(code)}. Its log is "
            f"{self.job.log}; when that is mended, the same command goes on from there"
        )

    def _reason(self, code: int) -> str:
        with self.job.log.open("rb") as log:
            log.seek(self._start)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + " (was memory short?)" * (name == "SIGKILL")
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (errors or lines or [f"exit code {code}"])[-1][:400]


def score(run_dir: Path) -> dict[str, Any] | None:
    """A run's lowest Fréchet distance, recall and the images seen at that tick, and what it ended with.

    Recall is left out where there were too few images to measure it.
    """
    lines = metrics_of(run_dir)
    measured = [line for line in lines if "quality/frechet" in line]
    if not measured:
        return None
    best = min(measured, key=lambda line: line["quality/frechet"])
    recalls = {"recall": best.get("quality/recall"), "final_recall": measured[-1].get("quality/recall")}
    return {
        "frechet": best["quality/frechet"],
        **{name: value for name, value in recalls.items() if value is not None},
        "images_seen": best["images_seen"],
        "final_frechet": measured[-1]["quality/frechet"],
        "final_images_seen": lines[-1]["images_seen"],
        "seconds": lines[-1]["seconds"],
    }


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    """The ticks so far; a line that is being written at this moment is left out."""
    try:
        text = (run_dir / "metrics.jsonl").read_text(encoding="utf-8")
    except OSError:
        return []
    whole = text[: text.rfind("\n") + 1].splitlines()
    try:
        return [json.loads(line) for line in whole]
    except ValueError:
        return []
