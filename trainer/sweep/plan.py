"""What a sweep trains, from the command's options, and its record plan.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import loading
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.sweep import space
from trainer.sweep.space import Setting, Vary

FORMAT_VERSION = 1
DEFAULT_TRIALS = 20
LISTED_TRIALS = 200  # of a dry run
SAMPLERS = ("grid", "random", "tpe")


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
    def most(self) -> str:
        """`at most ` before the number of images if a run may end before its length, else nothing."""
        settings = self.grid or [{}]
        patience = [setting.get("run.patience_ticks", self.config.run.patience_ticks) for setting in settings]
        return "at most " if any(patience) else ""

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
        # A name and a tracker change no score, and the class names are those of the images.
        return found + [
            line for line in changed if not line.startswith(("name: ", "run.track: ", "data.class_names: "))
        ]

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
        images = f"{self.most}{self.images / 1000:,g} kimg ({self.images:,} real images) in all"
        lines.append(f"{self.trials} trials{seeds}, {images}")
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
