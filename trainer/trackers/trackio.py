"""Trackio, which keeps runs in a local database unless the user names a Space or a server."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import uuid
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.reports.image_grids import to_pil
from trainer.trackers.base import PROJECT, Outcome, TrackedRun, flatten, parameters


class TrackioTracker:
    """A run of the project `gan-atelier`. TRACKIO_DIR, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL apply."""

    def __init__(self, run: TrackedRun) -> None:
        """Begin a run, or continue one that this machine has.

        Raises:
            TrainerError: If Trackio warns, which is how it reports failures.
        """
        import trackio

        self._trackio = trackio
        # Trackio finds a run to continue by its name alone, and several folders hold a 0001-digits-dcgan.
        name = run.identity.get("id") or f"{run.name}-{uuid.uuid4().hex[:6]}"
        with _warnings_are_errors():
            self._run = trackio.init(
                project=PROJECT,
                name=name,
                group=run.sweep,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self.identity = {"id": name}
        self.logged_until = run.logged_until
        remote = os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL", "").partition("?")[0]
        show = f"trackio show --project {shlex.quote(PROJECT)}"
        self.location = f"run {name} in {remote}" if remote else f"run {name}; show it with: {show}"

    def log_config(self, config: Config, made_by: Mapping[str, Any]) -> None:
        """Add the parameters, which Trackio stores with the first metrics after each start."""
        self._run.config.update(flatten(parameters(config, made_by)))

    def log_images(self, images_seen: int, images: Mapping[str, np.ndarray]) -> None:
        """Store pictures."""
        with _warnings_are_errors():
            media = {name: self._trackio.Image(to_pil(picture)) for name, picture in images.items()}
            self._run.log(media, step=images_seen)

    def log_scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Store metrics."""
        with _warnings_are_errors():
            self._run.log(dict(values), step=images_seen)

    def finish(self, outcome: Outcome, images_seen: int, final: Mapping[str, float]) -> None:  # noqa: ARG002
        """Wait for what is pending; Trackio has no outcome of a run."""
        with _warnings_are_errors():
            self._trackio.finish()  # run.finish() alone is repeated, and printed, when Python exits


@contextlib.contextmanager
def _warnings_are_errors() -> Iterator[None]:
    """Raise the first warning of Trackio as a TrainerError, and drop what it prints."""
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if "trackio" in warning.filename or "trackio" in str(warning.message):
            raise TrainerError(str(warning.message))
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
