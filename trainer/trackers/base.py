"""The interface of a tracker, and what one is given of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from trainer.config.schema import Config
from trainer.run_names import FOLDER, redact_path

PROJECT = "gan-atelier"  # the project or experiment that holds the runs, unless the user's environment names another
PRIVATE = frozenset({"data_root"})  # fields of made_by.json that hold a path of this machine

Outcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker sees it when it begins or continues.

    Attributes:
        run_dir: The run folder.
        images_seen: The real images that the run had seen when it started or resumed; steps are counted in them.
        identity: What the tracker recorded as its `identity` in the run folder earlier; empty for a new run.
        logged_until: The images seen at the last tick that this tracker has logged; 0 for a new run.
    """

    run_dir: Path
    images_seen: int = 0
    identity: Mapping[str, str] = field(default_factory=dict)
    logged_until: int = 0

    @property
    def sweep(self) -> str | None:
        """The name of the sweep that the run belongs to, whose run folders are SWEEP/trials/0003/seed-0."""
        parts = self.run_dir.absolute().parts
        return parts[-4] if len(parts) > 4 and parts[-3] == "trials" else None

    @property
    def name(self) -> str:
        """The run's name: that of its folder, and in a sweep also those of the sweep and the trial."""
        if self.sweep is None:
            return self.run_dir.absolute().name
        return "-".join((self.sweep, *self.run_dir.absolute().parts[-2:]))


class Tracker(Protocol):
    """One tracker of one run. Any method may raise: RunTrackers then turns the tracker off.

    Attributes:
        identity: What finds this run in the tracker again. It is stored in the run folder, without secrets.
        logged_until: Ticks up to this number of images seen are not logged again.
        location: A line that says where the run is and how to look at it; None for none.
    """

    identity: Mapping[str, str]
    logged_until: int
    location: str | None

    def log_config(self, config: Config, made_by: Mapping[str, Any]) -> None:
        """Record the run's config and the content of its made_by.json, once after each start."""

    def log_images(self, images_seen: int, images: Mapping[str, np.ndarray]) -> None:
        """Record a tick's pictures by name, uint8 [H, W, C] each."""

    def log_scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Record a tick's metrics by name."""

    def finish(self, outcome: Outcome, images_seen: int, final: Mapping[str, float]) -> None:
        """Write what is pending and close the run.

        Args:
            outcome: How the run ended; one that was stopped can continue.
            images_seen: The real images that it has seen.
            final: The metrics of the last tick of a finished run, else empty.
        """


def parameters(config: Config, made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's config and record as nested values, without the folders of this machine.

    Args:
        config: The run's config.
        made_by: The content of made_by.json, which becomes the section `made_by`.
    """
    return {**_redact(config.model_dump(mode="json")), "made_by": _redact(made_by)}


def _redact(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _redact(inner) for key, inner in value.items() if key not in PRIVATE}
    if isinstance(value, list | tuple):
        return [_redact(inner) for inner in value]
    if isinstance(value, str) and (FOLDER in value or Path(value).is_absolute()):
        # A union may begin with a named dataset.
        return redact_path(value) if FOLDER in value else Path(value).name
    return value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool | None]:
    """Return nested values under dotted names, lists as JSON."""
    found: dict[str, str | int | float | bool | None] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            plain = value is None or isinstance(value, str | int | float | bool)
            found[f"{prefix}{key}"] = value if plain else json.dumps(value, ensure_ascii=False, default=str)
    return found
