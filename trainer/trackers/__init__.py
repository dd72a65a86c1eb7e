"""Experiment trackers: where a run's metrics, sample grids and config go, next to metrics.jsonl."""

from trainer.trackers.base import Outcome, TrackedRun, Tracker
from trainer.trackers.run_trackers import RunTrackers, require_installed

__all__ = ["Outcome", "RunTrackers", "TrackedRun", "Tracker", "require_installed"]
