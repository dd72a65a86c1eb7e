"""The trials of a sweep, in an Optuna study in SQLite (`study.db`).

It stays whole however the process ends: a trial that was begun and did not end is returned again.
"""

from __future__ import annotations

import json
import statistics
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from artifacts.files import atomic_path
from trainer.errors import TrainerError
from trainer.sweep import space
from trainer.sweep.plan import Plan
from trainer.sweep.space import Setting, Vary

if TYPE_CHECKING:
    import optuna

TrialState = Literal["waiting", "running", "finished", "failed"]
STATES: dict[str, TrialState] = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "finished"}
RunResult = dict[str, Any]  # of one seed: seed, folder, frechet, recall, images_seen, seconds, …; or a reason


@dataclass(frozen=True)
class Trial:
    """One setting, and the results of its runs, one per seed."""

    number: int
    state: TrialState
    setting: Setting
    runs: Sequence[RunResult] = ()
    reason: str = ""

    @property
    def folder(self) -> str:
        """The trial's folder in the sweep's."""
        return f"trials/{self.number:04d}"

    @property
    def label(self) -> str:
        """The setting without the sections' names."""
        return space.format_setting(self.setting, short=True)

    @property
    def score(self) -> float:
        """The mean over the seeds of each run's lowest Fréchet distance."""
        return statistics.fmean(run["frechet"] for run in self.runs)

    def values(self, name: str) -> list[float]:
        """Return what the runs measured under a name; a run that did not measure it has no value."""
        return [run[name] for run in self.runs if name in run]

    def mean_and_std(self, name: str) -> str:
        """Return `mean ± standard deviation` over the runs; only the mean of a single one."""
        values = self.values(name)
        if not values:
            return "–"
        mean = f"{statistics.fmean(values):.3f}"
        return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the finished trials, the best first."""
    return sorted((trial for trial in trials if trial.state == "finished"), key=lambda trial: trial.score)


class Study:
    """The trials of a sweep's folder. Only one process at a time may use it (`run_folder.exclusive`)."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._optuna = import_optuna()
        self.plan = plan
        self._path = folder / "study.db"
        self._asked: dict[int, optuna.trial.Trial] = {}
        with atomic_path(folder / "plan.json") as partial:
            partial.write_text(json.dumps(plan.to_dict(), indent=2) + "\n", encoding="utf-8")
        with self._storage_errors():
            self._study: optuna.Study = self._optuna.create_study(
                storage=f"sqlite:///{self._path.resolve()}", study_name="sweep", load_if_exists=True
            )
            stored = self._study.get_trials(deepcopy=False)
            self._unfinished = [frozen for frozen in stored if frozen.state.name == "RUNNING"]
            for setting in plan.grid[len(stored) :]:
                self._study.enqueue_trial({field: _encode(value) for field, value in setting.items()})

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        """Raise TrainerError with SQLite's reason for a database that cannot be read or written."""
        try:
            yield
        except Exception as error:  # SQLAlchemy has many types, and Optuna its own.
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = str(cause).strip().partition("\n")[0]
            raise TrainerError(
                f"{self._path} cannot be used ({reason}); fix the cause, then run the same command to resume"
            ) from error

    def ask(self) -> Trial | None:
        """Return an unfinished trial, or the next new one; None when all have begun."""
        with self._storage_errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = self._study.get_trials(deepcopy=False)
            waiting = any(frozen.state.name == "WAITING" for frozen in stored)
            if not self._unfinished and not waiting and len(stored) >= self.plan.trials:
                return None
            # Seeded by the trial's number, so that an interrupted sweep draws the same settings
            seed = self._unfinished[0].number if self._unfinished else len(stored)
            samplers = self._optuna.samplers
            self._study.sampler = (
                samplers.TPESampler(seed=seed, constant_liar=True)  # --jobs runs several trials at a time
                if self.plan.sampler == "tpe"
                else samplers.RandomSampler(seed=seed)
            )
            if self._unfinished:
                # Optuna has no public way to get a running trial again: `ask` returns new trials only.
                trial = self._optuna.trial.Trial(self._study, self._unfinished.pop(0)._trial_id)
            else:
                trial = self._study.ask()
            for vary in self.plan.varies:
                _suggest(trial, vary)
            self._asked[trial.number] = trial
            return Trial(trial.number, "running", self._setting(trial.params))

    def tell(self, trial: Trial, runs: Sequence[RunResult]) -> Trial:
        """End a trial: its score is the mean over its seeds; it failed if one of its runs did."""
        prefix = "seed {seed}: " if len(runs) > 1 else ""
        reasons = [prefix.format(**run) + run["reason"] for run in runs if "reason" in run]
        asked = self._asked[trial.number]
        with self._storage_errors():
            asked.set_user_attr("runs", list(runs))
            if reasons:
                asked.set_user_attr("reason", "; ".join(reasons))
                self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
            else:
                self._study.tell(asked, statistics.fmean(run["frechet"] for run in runs))
        return self.trials()[trial.number]

    def trials(self) -> list[Trial]:
        """Return every trial by number, those that wait included."""
        with self._storage_errors():
            stored = self._study.get_trials(deepcopy=False)
        return [
            Trial(
                frozen.number,
                STATES.get(frozen.state.name, "failed"),
                self._setting(frozen.system_attrs.get("fixed_params", {}) | frozen.params),
                frozen.user_attrs.get("runs", ()),
                frozen.user_attrs.get("reason", ""),
            )
            for frozen in stored
        ]

    def _setting(self, stored: dict[str, Any]) -> Setting:
        """Return the stored values as the config holds them; a value that is not drawn yet is left out."""
        return {vary.field: _decode(stored[vary.field], vary) for vary in self.plan.varies if vary.field in stored}


def _suggest(trial: optuna.trial.Trial, vary: Vary) -> None:
    if not vary.is_range:
        trial.suggest_categorical(vary.field, [_encode(value) for value in vary.values])
    elif vary.integer:
        trial.suggest_int(vary.field, *vary.values, log=vary.log)
    else:
        trial.suggest_float(vary.field, *vary.values, log=vary.log)


def _encode(value: Any) -> Any:
    """Return a value as Optuna stores it: a list as its JSON text."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _decode(stored: Any, vary: Vary) -> Any:
    if not vary.is_range:
        return vary.values[[_encode(value) for value in vary.values].index(stored)]
    # Four digits, so that the value shown is the value that was tried.
    return stored if vary.integer else float(f"{stored:.4g}")


def import_optuna() -> Any:
    """Return the module optuna, or raise TrainerError with the command that installs it."""
    try:
        import optuna
    except ImportError as error:
        raise TrainerError(
            "a sweep needs Optuna: pip install '.[train]' in the checkout, or pip install optuna"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
