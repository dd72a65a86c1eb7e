"""The trackers of one run: opened, fed with each tick and closed together, each turned off when it fails."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.files import atomic_path
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.trackers.base import Outcome, TrackedRun, Tracker

RECORD = "trackers.json"  # in the run folder: each tracker's identity, and the last tick that it has logged
CLASSES = {
    "tensorboard": "TensorBoardTracker",
    "trackio": "TrackioTracker",
    "mlflow": "MlflowTracker",
    "wandb": "WandbTracker",
}
NOT_LOGGED = {"step", "images_seen", "seconds", "cpu_seconds"}  # of a line of metrics.jsonl
MAX_RECORD = 65536  # bytes


def require_installed(names: Iterable[str]) -> None:
    """Raise TrainerError for the first tracker whose package is not installed."""
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # a folder ./wandb of runs looks like a package without a file
            extra = "train" if name == "tensorboard" else name
            raise TrainerError(
                f"the tracker {name} needs the package {name}: pip install 'gan-atelier[{extra}]', or choose others "
                "with --track (none for no tracker)"
            )


def scalars(line: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a line of metrics.jsonl that trackers show."""
    return {name: value for name, value in line.items() if name not in NOT_LOGGED}


class RunTrackers:
    """The trackers of a run.

    A tracker that fails prints one warning and is off until the run is resumed; the training continues. Ticks that a
    tracker has logged are not logged again, whatever checkpoint a run resumes from, and ticks that it has missed are
    added from metrics.jsonl, without their images. TensorBoard has only the ticks of the times when it was on.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        *,
        images_seen: int,
        made_by: Mapping[str, Any],
        history: Sequence[Mapping[str, float]],
        report: Callable[[str], None],
    ) -> None:
        """Begin the run in each tracker of `config.run.track`, or continue it.

        Args:
            config: The run's config.
            run_dir: The run folder.
            images_seen: The real images that the run has seen.
            made_by: The content of its made_by.json.
            history: The lines of its metrics.jsonl.
            report: Called with each line for the user.
        """
        self._path = run_dir / RECORD
        self._report = report
        self._active: dict[str, Tracker] = {}
        # A run that stopped before its first checkpoint begins again, in its trackers too.
        self._record = _read(self._path) if images_seen else {}
        if not images_seen:
            self._path.unlink(missing_ok=True)
        for name in config.run.track:
            entry = self._record.get(name, {})
            until = entry.get("images_seen", 0)  # kept in the record, for a tracker that cannot begin this time
            identity = {key: value for key, value in entry.items() if key != "images_seen" and isinstance(value, str)}
            run = TrackedRun(run_dir, images_seen, identity, until if isinstance(until, int) else 0)
            with self._off_if_it_fails(name):
                module = importlib.import_module(f"trainer.trackers.{name}")
                tracker: Tracker = getattr(module, CLASSES[name])(run)
                self._active[name] = tracker
                tracker.log_config(config, made_by)
                if tracker.location:
                    report(f"{name}: {tracker.location}")
                self._write(name, tracker)
                for line in history:
                    self._log(name, int(line["images_seen"]), scalars(line))

    def log_tick(self, images_seen: int, values: Mapping[str, float], images: Mapping[str, np.ndarray]) -> None:
        """Give a tick to each tracker that is on.

        Args:
            images_seen: The real images that the run has seen.
            values: The metrics by name.
            images: Pictures by name, uint8 [H, W, C].
        """
        for name in list(self._active):
            with self._off_if_it_fails(name):
                self._log(name, images_seen, values, images)

    def _log(
        self, name: str, images_seen: int, values: Mapping[str, float], images: Mapping[str, np.ndarray] | None = None
    ) -> None:
        tracker = self._active[name]
        if images_seen <= tracker.logged_until:
            return
        # Recorded first: a process that is killed in between leaves a tick out, instead of logging it twice.
        before, tracker.logged_until = tracker.logged_until, images_seen
        try:
            self._write(name, tracker)
            if images:
                tracker.log_images(images_seen, images)
            tracker.log_scalars(images_seen, values)
        except Exception:
            tracker.logged_until = before
            with contextlib.suppress(OSError):
                self._write(name, tracker)
            raise

    def _write(self, name: str, tracker: Tracker) -> None:
        if not tracker.identity:  # TensorBoard's files are in the run folder
            return
        self._record[name] = {**tracker.identity, "images_seen": tracker.logged_until}
        with atomic_path(self._path) as partial:
            partial.write_text(json.dumps(self._record, indent=2) + "\n", encoding="utf-8")

    def finish(self, outcome: Outcome, images_seen: int, final: Mapping[str, float]) -> None:
        """Close the run in each tracker that is on; see Tracker.finish."""
        for name in list(self._active):
            with self._off_if_it_fails(name):
                self._active.pop(name).finish(outcome, images_seen, final)

    @contextlib.contextmanager
    def _off_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of whatever package the tracker is
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._report(f"warning: {name} is off for the rest of this run: {reason}")
            if tracker := self._active.pop(name, None):
                with contextlib.suppress(Exception):
                    tracker.finish("failed", 0, {})


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the record of a run folder, empty where it is missing or damaged."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_RECORD))
    except (OSError, ValueError):
        return {}
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)} if isinstance(found, dict) else {}
