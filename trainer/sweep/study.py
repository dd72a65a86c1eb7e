"""A sweep's memory: the command it was begun with (`plan.json`), and an Optuna study over SQLite (`study.db`).

Whatever kills the process, both are whole: a trial that was begun and not ended is handed out again.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from artifacts.files import atomic_path
from trainer.config import loading
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.sweep import space
from trainer.sweep.space import Setting, Vary

if TYPE_CHECKING:
    import optuna

FORMAT_VERSION = 1
Sampler = Literal["grid", "random", "tpe"]
SAMPLERS: tuple[Sampler, ...] = ("grid", "random", "tpe")
TrialState = Literal["waiting", "running", "finished", "failed"]
Run = dict[str, Any]  # of one seed: seed, folder, frechet, recall, images_seen, seconds, …; or seed, folder, reason


@dataclass(frozen=True)
class Plan:
    """What a sweep was asked to do; `trials` is the grid's size, or how many settings a sampler draws."""

    config: Config
    varies: Sequence[Vary]
    sampler: Sampler
    trials: int
    seeds: int

    @property
    def run_seeds(self) -> range:
        return range(self.config.run.seed, self.config.run.seed + self.seeds)

    @property
    def images(self) -> int:
        """How many real images all its runs show together; a sampler's lengths are not known before they are drawn."""
        settings: list[Setting] = [{}] * self.trials
        if self.sampler == "grid":
            settings = list(space.combinations(self.varies))
        kimg = sum(float(setting.get("run.total_kimg", self.config.run.total_kimg)) for setting in settings)
        return round(kimg * 1000) * self.seeds

    def document(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "vary": {vary.field: vary.describe() for vary in self.varies},
            "sampler": self.sampler,
            "trials": self.trials,
            "seeds": self.seeds,
            "config": self.config.model_dump(mode="json"),
        }

    def differences(self, recorded: dict[str, Any]) -> list[str]:
        """What another command said, `what: then → now`; more trials of a sampler are no difference."""
        ours, found = self.document(), []
        for field in [*recorded["vary"], *(ours["vary"].keys() - recorded["vary"].keys())]:
            then, now = (document["vary"].get(field, "not varied") for document in (recorded, ours))
            if then != now:
                found.append(f"--vary {field}: {then} → {now}")
        for option in ("sampler", "seeds"):
            if recorded[option] != ours[option]:
                found.append(f"--{option}: {recorded[option]} → {ours[option]}")
        changed = loading.differences(loading.parse(recorded["config"]), self.config)
        # a name changes no score, and the images decide the class names
        return found + [line for line in changed if not line.startswith(("name: ", "data.class_names: "))]


@dataclass(frozen=True)
class Trial:
    """One setting: what came of it with each seed."""

    number: int
    state: TrialState
    setting: Setting
    runs: Sequence[Run] = ()
    reason: str = ""

    @property
    def folder(self) -> str:
        return f"trials/{self.number:04d}"

    def words(self) -> str:
        """The setting by the fields' own names, for a narrow place."""
        return "  ".join(f"{field.rpartition('.')[2]}={space.shown(value)}" for field, value in self.setting.items())


def recorded_plan(folder: Path) -> dict[str, Any] | None:
    path = folder / "plan.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format_version"] != FORMAT_VERSION:
            raise TrainerError(f"{path} has format version {found['format_version']}, this one reads {FORMAT_VERSION}")
        if not found.keys() >= {"vary", "sampler", "trials", "seeds", "config"}:
            raise KeyError("a part is missing")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise TrainerError(f"{path} is damaged ({error}); remove {folder} to begin anew") from error
    return found


def check_same(folder: Path, plan: Plan) -> None:
    """Refuse a folder that holds another sweep, with the difference; or one that holds something else."""
    recorded = recorded_plan(folder)
    if recorded is None:
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise TrainerError(f"{folder} holds something else than a sweep; give another --output")
        return
    changed = plan.differences(recorded)
    if changed:
        raise TrainerError(
            f"{folder} holds another sweep; this command changes {'; '.join(changed)}. "
            "Say it as it was, or give another --output"
        )


class Study:
    """The trials of a sweep's folder. One process at a time holds it (run.exclusive)."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._optuna = import_optuna()
        self.plan = plan
        self._path = folder / "study.db"
        with atomic_path(folder / "plan.json") as partial:
            partial.write_text(json.dumps(plan.document(), indent=2) + "\n", encoding="utf-8")
        with self._in_one_line():
            self._study = self._optuna.create_study(
                storage=f"sqlite:///{self._path.resolve()}", study_name="sweep", load_if_exists=True
            )
            self._began = self._with_state("RUNNING")
            if plan.sampler == "grid":
                self._enqueue_grid()

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """A database that cannot be read or written, on a full disk for one, is a TrainerError with SQLite's reason."""
        try:
            yield
        except Exception as error:  # SQLAlchemy's many, Optuna's own
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = str(cause).strip().partition("\n")[0]
            raise TrainerError(
                f"{self._path} cannot be used ({reason}); when that is mended, the same command goes on"
            ) from error

    def _with_state(self, state: str) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState[state],))

    def _enqueue_grid(self) -> None:
        """All combinations as waiting trials, in their order; those that are there already stay as they are."""
        settings = list(space.combinations(self.plan.varies))
        for setting in settings[len(self._study.get_trials(deepcopy=False)) :]:
            self._study.enqueue_trial({vary.field: encoded(setting[vary.field]) for vary in self.plan.varies})

    def next(self) -> Trial | None:
        """A trial to go on with, or the next one to begin; None when all are begun."""
        with self._in_one_line(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._began:
                begun = self._began.pop(0)
                # by its id, which Optuna has no public name for: `ask` hands out new trials only
                trial = self._optuna.trial.Trial(self._study, begun._trial_id)
            else:
                count = len(self._study.get_trials(deepcopy=False))
                waiting = self._with_state("WAITING")
                if not waiting and count >= self.plan.trials:
                    return None
                self._study.sampler = self._sampler(count)
                trial = self._study.ask()
            setting = {vary.field: self._suggest(trial, vary) for vary in self.plan.varies}
        return Trial(trial.number, "running", setting)

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """A sampler for one trial, seeded by its number: an interrupted sweep draws what an uninterrupted one would.

        The grid's trials bring their values with them, and no sampler is asked.
        """
        samplers = self._optuna.samplers
        if self.plan.sampler == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True)  # several are under way with --jobs
        return samplers.RandomSampler(seed=seed)

    def _suggest(self, trial: optuna.trial.Trial, vary: Vary) -> Any:
        if not vary.is_range:
            choices = [encoded(value) for value in vary.values]
            return vary.values[choices.index(trial.suggest_categorical(vary.field, choices))]
        low, high = vary.values
        if vary.integer:
            return trial.suggest_int(vary.field, low, high, log=vary.log)
        # to four digits: what is shown is what was tried
        return float(f"{trial.suggest_float(vary.field, low, high, log=vary.log):.4g}")

    def finish(self, trial: Trial, runs: Sequence[Run]) -> Trial:
        """End a trial: its score is the mean over its seeds, or it failed when one of them did."""
        reasons = [f"seed {run['seed']}: {run['reason']}" for run in runs if "reason" in run]
        if len(runs) == 1:
            reasons = [run["reason"] for run in runs if "reason" in run]
        with self._in_one_line():
            stored = self._optuna.trial.Trial(self._study, self._id(trial.number))
            stored.set_user_attr("runs", list(runs))
            if reasons:
                stored.set_user_attr("reason", "; ".join(reasons))
                self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
            else:
                self._study.tell(trial.number, sum(run["frechet"] for run in runs) / len(runs))
        return self.trials()[trial.number]

    def _id(self, number: int) -> int:
        return self._study.get_trials(deepcopy=False)[number]._trial_id

    def trials(self) -> list[Trial]:
        """Every trial so far by number; those of a grid that wait their turn among them."""
        states: dict[str, TrialState] = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "finished"}
        with self._in_one_line():
            stored = self._study.get_trials(deepcopy=False)
        return [
            Trial(
                frozen.number,
                states.get(frozen.state.name, "failed"),
                self._setting(frozen),
                frozen.user_attrs.get("runs", ()),
                frozen.user_attrs.get("reason", ""),
            )
            for frozen in stored
        ]

    def _setting(self, frozen: optuna.trial.FrozenTrial) -> Setting:
        """The values of a trial as the config takes them; what is not drawn yet is left out."""
        stored, setting = frozen.params | frozen.system_attrs.get("fixed_params", {}), {}
        for vary in self.plan.varies:
            if vary.field in stored:
                value = stored[vary.field]
                if not vary.is_range:
                    value = vary.values[[encoded(choice) for choice in vary.values].index(value)]
                elif not vary.integer:
                    value = float(f"{value:.4g}")
                setting[vary.field] = value
        return setting


def encoded(value: Any) -> Any:
    """A value as Optuna stores one: a list as its JSON text."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise TrainerError("a sweep needs Optuna: pip install 'gan-atelier[train]', or pip install optuna") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
