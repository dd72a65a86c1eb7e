"""The state of a sweep: its plan (`plan.json`), and an Optuna study in SQLite (`study.db`).

Both stay whole however the process ends: a trial that was begun and did not end is returned again.
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
from trainer.config import loading
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.sweep import space
from trainer.sweep.space import Setting, Vary

if TYPE_CHECKING:
    import optuna

FORMAT_VERSION = 1
DEFAULT_TRIALS = 20
LISTED_TRIALS = 200  # of a dry run
SAMPLERS = ("grid", "random", "tpe")
TrialState = Literal["waiting", "running", "finished", "failed"]
STATES: dict[str, TrialState] = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "finished"}
RunResult = dict[str, Any]  # of one seed: seed, folder, frechet, recall, images_seen, seconds, …; or a reason


@dataclass(frozen=True)
class Plan:
    """What a sweep trains."""

    config: Config  # the settings are applied to it
    varies: Sequence[Vary]
    sampler: str  # one of SAMPLERS
    trials: int  # the grid's size, or how many settings a sampler draws
    seeds: int  # runs per setting

    @property
    def run_seeds(self) -> range:
        """The seeds of each setting's runs."""
        return range(self.config.run.seed, self.config.run.seed + self.seeds)

    @property
    def grid(self) -> list[Setting]:
        """The settings in order; empty where a sampler draws them."""
        return list(space.combinations(self.varies)) if self.sampler == "grid" else []

    @property
    def images(self) -> int:
        """The number of real images in all runs; lengths that a sampler draws count as the config's."""
        settings = self.grid or [{}] * self.trials
        kimg = sum(float(setting.get("run.total_kimg", self.config.run.total_kimg)) for setting in settings)
        return round(kimg * 1000) * self.seeds

    @property
    def default_folder(self) -> Path:
        """`sweeps/PRESET-FIELD-FIELD`, so that a sweep of other fields of the same preset has another folder."""
        return Path("sweeps", "-".join([self.config.name, *(vary.field.rpartition(".")[2] for vary in self.varies)]))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `plan.json`."""
        return {
            "format_version": FORMAT_VERSION,
            "vary": {vary.field: vary.describe() for vary in self.varies},
            "sampler": self.sampler,
            "trials": self.trials,
            "seeds": self.seeds,
            "config": self.config.model_dump(mode="json"),
        }

    def differences(self, recorded: dict[str, Any]) -> list[str]:
        """Return what differs from a recorded plan, as `what: then → now`; more trials of a sampler do not count."""
        ours, found = self.to_dict(), []
        for field in recorded["vary"] | ours["vary"]:
            then, now = (document["vary"].get(field, "not varied") for document in (recorded, ours))
            if then != now:
                found.append(f"--vary {field}: {then} → {now}")
        options = [option for option in ("sampler", "seeds") if recorded[option] != ours[option]]
        found += [f"--{option}: {recorded[option]} → {ours[option]}" for option in options]
        changed = loading.differences(loading.parse(recorded["config"]), self.config)
        # A name changes no score, and the class names are those of the images.
        return found + [line for line in changed if not line.startswith(("name: ", "data.class_names: "))]

    def list_trials(self, folder: Path) -> list[str]:
        """Return the lines of a dry run.

        Raises:
            TrainerError: If `folder` holds another sweep, or something else.
        """
        check_folder(folder, self)
        listed = enumerate(self.grid[:LISTED_TRIALS])
        lines = [f"{number:04d}  {space.format_setting(setting)}" for number, setting in listed]
        if not lines:
            lines = [f"{self.trials} settings, drawn one by one by the sampler {self.sampler}:"]
            lines += [f"  {vary.field} from {vary.describe()}" for vary in self.varies]
        elif self.trials > LISTED_TRIALS:
            lines.append(f"… and {self.trials - LISTED_TRIALS:,} more")
        seeds = f" x {self.seeds} seeds = {self.trials * self.seeds} runs" if self.seeds > 1 else ""
        lines.append(f"{self.trials} trials{seeds}, {self.images / 1000:,g} kimg ({self.images:,} real images) in all")
        if read_plan(folder):
            lines.append(f"{folder} already holds this sweep; it would resume there")
        return lines


def make_plan(
    preset: str, sets: Sequence[str], varies: Sequence[str], *, sampler: str, trials: int | None, seeds: int
) -> Plan:
    """Return the plan of the command's options, with every value and every combination checked.

    Args:
        preset: A preset's name or a YAML file.
        sets: The `--set` options.
        varies: The `--vary` options.
        sampler: One of SAMPLERS.
        trials: How many settings a sampler draws; None for the default.
        seeds: The number of runs per setting.

    Raises:
        TrainerError: If an option is not valid, or options disagree.
    """
    if sampler not in SAMPLERS:
        raise TrainerError(f"--sampler is {', '.join(SAMPLERS[:-1])} or {SAMPLERS[-1]}, not {sampler}")
    fields = space.parse_varies(varies, sampler)
    base = space.base_config(preset, sets, fields)
    if not base.run.quality_ticks:
        raise TrainerError("a sweep scores its runs, and run.quality_ticks=0 measures nothing; set it to 1 or more")
    if base.run.seed + seeds > 2**32:
        raise TrainerError(f"the last seed is {2**32 - 1}; run.seed={base.run.seed} and --seeds {seeds} exceed it")
    settings = space.check_combinations(base, fields)
    if sampler == "grid" and trials is not None:
        raise TrainerError(f"a grid tries all its {len(settings)} settings; --trials is for --sampler random or tpe")
    return Plan(base, fields, sampler, len(settings) if sampler == "grid" else trials or DEFAULT_TRIALS, seeds)


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


def read_plan(folder: Path) -> dict[str, Any] | None:
    """Return the recorded plan of a sweep's folder, None where there is none.

    Raises:
        TrainerError: If the file is damaged or of another format version.
    """
    path = folder / "plan.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format_version"] != FORMAT_VERSION:
            raise TrainerError(
                f"{path} has format version {found['format_version']}, this release reads {FORMAT_VERSION}; "
                "give another --output"
            )
        if not found.keys() >= {"vary", "sampler", "trials", "seeds", "config"}:
            raise KeyError("a part is missing")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise TrainerError(f"{path} is damaged ({error}); remove {folder} to start again") from error
    return dict(found)


def check_folder(folder: Path, plan: Plan) -> None:
    """Raise TrainerError if a folder holds another sweep, with the difference, or something else."""
    recorded = read_plan(folder)
    if recorded is None:
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise TrainerError(f"{folder} holds something other than a sweep; give another --output")
        return
    if changed := plan.differences(recorded):
        raise TrainerError(
            f"{folder} holds another sweep; this command changes {'; '.join(changed)}. "
            "Use the same options as before, or give another --output"
        )


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
        raise TrainerError("a sweep needs Optuna: pip install 'gan-atelier[train]', or pip install optuna") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
