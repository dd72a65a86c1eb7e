"""The sweep itself: runs are started as there is room, ended trials are told to the study, a stop is passed on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from trainer.errors import TrainerError
from trainer.sweep import space
from trainer.sweep.progress import View
from trainer.sweep.study import Plan, Run, Study, Trial
from trainer.sweep.workers import Child, Job

SAVING = 120.0  # seconds that a child has to finish its step and save


class Runner:
    """Trains a study's trials with `jobs` children of `threads` threads each."""

    def __init__(
        self,
        study: Study,
        folder: Path,
        view: View,
        *,
        jobs: int,
        threads: int,
        data_root: Path,
        should_stop: Callable[[], bool],
        trial_told: Callable[[], object],
    ) -> None:
        """trial_told is called after each trial that ended: to bring a report up to date."""
        self.study = study
        self.folder = folder
        self.view = view
        self.jobs = jobs
        self.threads = threads
        self.data_root = data_root
        self.should_stop = should_stop
        self.trial_told = trial_told
        self._queue: list[Job] = []
        self._waited: set[Job] = set()  # for a process that trains there still; said once
        self._active: list[Child] = []
        self._outcomes: dict[int, list[Run]] = {}
        self._interrupted: set[int] = set()
        self._all_begun = False
        self._broken: TrainerError | None = None  # what ended a run that its setting did not
        self._note()

    def run(self) -> bool:
        """Until every trial has ended, or a stop was asked for and the children have saved; True when all ended.

        Raises TrainerError, after the others have saved, when a run was ended by something else than its setting.
        """
        asked = False
        try:
            while True:
                if (self.should_stop() or self._broken) and not asked:
                    asked = True
                    self.view.console.print("stopping: the runs finish their step and save …")
                    for child in self._active:
                        child.ask_to_stop()
                if not asked:
                    self._start()
                self._collect()
                if not self._active and (asked or (self._all_begun and not self._queue)):
                    if self._broken:
                        raise self._broken
                    return not asked and not self._interrupted
                self._progress()
                time.sleep(0.2)
        except KeyboardInterrupt:  # a second one: at once
            for child in self._active:
                child.end(wait=0)
            raise
        finally:
            for child in self._active:  # an error of our own
                child.end(wait=SAVING)

    def _start(self) -> None:
        while len(self._active) < self.jobs:
            job = self._next()
            if job is None:
                return
            child = Child(job, self.data_root, self.threads)
            self._active.append(child)
            self.view.started(job, child.resumed)

    def _next(self) -> Job | None:
        """The first job whose folder no other process trains in; None while there is none."""
        while not any(job.is_free() for job in self._queue):
            for job in self._queue:
                if job not in self._waited:
                    self._waited.add(job)
                    self.view.waits(job)
            if self._all_begun or not self._begin_trial():
                return None
        job = next(job for job in self._queue if job.is_free())
        self._queue.remove(job)
        return job

    def _begin_trial(self) -> bool:
        """Queue the next trial's runs; False when all trials are begun."""
        trial = self.study.next()
        if trial is None:
            self._all_begun = True
            return False
        self._outcomes[trial.number] = []
        try:
            jobs = jobs_of(trial, self.study.plan, self.folder, self.threads)
        except TrainerError as error:  # a sampler drew what does not go together
            self._outcomes[trial.number] = [{"seed": seed, "reason": str(error)} for seed in self.study.plan.run_seeds]
            self._tell(trial)
            return True
        for job in jobs:
            ended = job.ended()
            if ended is None:
                self._queue.append(job)
            else:
                self._outcomes[trial.number].append(ended)
        self._tell(trial)
        return True

    def _collect(self) -> None:
        for child in list(self._active):
            try:
                outcome = child.outcome()
            except TrainerError as error:
                self._broken = self._broken or error
                outcome = "interrupted"
            if outcome == "going on":
                continue
            self._active.remove(child)
            self.view.ended(child.job)
            trial = child.job.trial
            if outcome == "interrupted":
                self._interrupted.add(trial.number)
                continue
            self._outcomes[trial.number].append(outcome)
            self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        """Tell the study of a trial when all its seeds have ended."""
        if len(self._outcomes[trial.number]) < self.study.plan.seeds:
            return
        runs = sorted(self._outcomes.pop(trial.number), key=lambda run: run["seed"])
        self.view.told(self.study.finish(trial, runs))
        self._note()
        self.trial_told()

    def _note(self) -> None:
        """What the ended trials come to: counted when one ends, not at every look."""
        counts = Counter(trial.state for trial in self.study.trials())
        plan = self.study.plan
        self._ended_images = plan.images * (counts["finished"] + counts["failed"]) // plan.trials
        self._counts = f"{counts['finished']} of {plan.trials} trials done"
        if counts["failed"]:
            self._counts += f", {counts['failed']} failed"

    def _progress(self) -> None:
        active = [child.job for child in self._active]
        under_way = sum(job.images_seen() for job in active)
        for runs in self._outcomes.values():
            under_way += sum(int(run.get("final_images_seen", 0)) for run in runs)
        self.view.progressed(self._ended_images + under_way, active, self._counts)


def jobs_of(trial: Trial, plan: Plan, folder: Path, threads: int) -> list[Job]:
    """A trial's runs, one a seed."""
    config = space.apply(plan.config, trial.setting)
    jobs = []
    for seed in plan.run_seeds:
        run = config.run.model_copy(update={"seed": seed, "threads": config.run.threads or threads})
        place = folder / trial.folder
        place.mkdir(parents=True, exist_ok=True)
        jobs.append(Job(trial, seed, config.model_copy(update={"run": run}), place / f"seed-{seed}"))
    return jobs
