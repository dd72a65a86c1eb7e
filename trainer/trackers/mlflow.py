"""MLflow: the tracking server of MLFLOW_TRACKING_URI, or a local store."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from trainer.config.schema import Config
from trainer.reports.image_grids import to_pil
from trainer.trackers.base import PROJECT, Outcome, TrackedRun, flatten, parameters

LOCAL = ("sqlite", "file")  # schemes of stores without a server
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
MAX_BATCH = 100  # parameters per request
# A server that is gone costs a run seconds, not MLflow's default of many minutes. MLflow reports its use to its
# makers unless a variable disables it.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MlflowTracker:
    """A run of the experiment `gan-atelier` or MLFLOW_EXPERIMENT_NAME. MLflow's own active run is left alone."""

    def __init__(self, run: TrackedRun) -> None:
        """Begin a run, or continue one that the store still has.

        Raises:
            mlflow.exceptions.MlflowException: If the store cannot be reached or written.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import mlflow

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        uri = tracking_uri(run.identity.get("store"))
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self._run_id = self._continued(run.identity.get("id"))
        self._is_new = self._run_id is None
        if self._run_id is None:
            tags = {"sweep": run.sweep} if run.sweep else None
            self._run_id = self._client.create_run(self._experiment(), run_name=run.name, tags=tags).info.run_id
        self.logged_until = 0 if self._is_new else run.logged_until
        is_local = urlsplit(uri).scheme in LOCAL
        self.identity = {"id": self._run_id, **({"store": uri} if is_local else {})}
        show = f"; show it with: mlflow ui --backend-store-uri {shlex.quote(uri)}" if is_local else ""
        self.location = f"run {self._run_id}{show}"

    def _continued(self, run_id: str | None) -> str | None:
        """Return a run's id if the store has it, and mark it as running; None otherwise."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run_id

    def _experiment(self) -> str:
        """Return the id of the experiment, which is created if it does not exist."""
        from mlflow.exceptions import MlflowException

        if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return number
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        if found := self._client.get_experiment_by_name(name):
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:  # another run of a sweep has created it at the same moment
            if found := self._client.get_experiment_by_name(name):
                return str(found.experiment_id)
            raise

    def log_config(self, config: Config, made_by: Mapping[str, Any]) -> None:
        """Store the parameters of a new run; MLflow allows no change of them."""
        from mlflow.entities import Param

        if not self._is_new:
            return
        flat = flatten(parameters(config, made_by))
        params = [Param(name, value if isinstance(value, str) else str(value)) for name, value in flat.items()]
        for start in range(0, len(params), MAX_BATCH):
            self._client.log_batch(self._run_id, params=params[start : start + MAX_BATCH])

    def log_images(self, images_seen: int, images: Mapping[str, np.ndarray]) -> None:
        """Store pictures."""
        for name, picture in images.items():
            self._client.log_image(self._run_id, to_pil(picture), key=name, step=images_seen)

    def log_scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Store metrics in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, images_seen) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def finish(self, outcome: Outcome, images_seen: int, final: Mapping[str, float]) -> None:  # noqa: ARG002
        """Set the run's status."""
        self._client.set_terminated(self._run_id, status=STATUS[outcome])


def tracking_uri(recorded: str | None) -> str:
    """Return the URI of the store: the user's, else the local one that a resumed run began in, else MLflow's default.

    Args:
        recorded: The local store that the run folder names.
    """
    import mlflow

    if not mlflow.is_tracking_uri_set() and recorded is not None:
        parts = urlsplit(recorded)
        if parts.scheme in LOCAL and not parts.netloc and Path(unquote(parts.path.removeprefix("/"))).exists():
            return recorded
    return str(mlflow.get_tracking_uri())
