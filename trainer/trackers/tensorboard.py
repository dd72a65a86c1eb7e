"""TensorBoard events in the run folder."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.config import loading
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.trackers.base import Outcome, TrackedRun


class TensorBoardTracker:
    """Writes `tensorboard/` in the run folder, whose own readers skip the steps after the point of a resume."""

    location = None

    def __init__(self, run: TrackedRun) -> None:
        """Open an event file.

        Raises:
            TrainerError: If TensorBoard cannot write to a folder of that name.
        """
        from torch.utils.tensorboard import SummaryWriter

        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        self.identity: dict[str, str] = {}
        self.logged_until = run.images_seen  # later steps are purged
        try:
            self._writer = SummaryWriter(str(run.run_dir / "tensorboard"), purge_step=run.images_seen + 1)
        except UnicodeEncodeError:
            raise TrainerError(f"the name of {run.run_dir} is not UTF-8") from None
        self._is_new = run.images_seen == 0
        self._hyperparameters: dict[str, str | float | int | bool] = {}
        self._excepthook = threading.excepthook
        threading.excepthook = self._ignore_file_errors

    def _ignore_file_errors(self, failure: Any) -> None:
        """Silence the traceback that the writer's thread prints for a full disk; its next call raises the error."""
        if not issubclass(failure.exc_type, OSError):
            self._excepthook(failure)

    def log_config(self, config: Config, made_by: Mapping[str, Any]) -> None:  # noqa: ARG002  made_by.json has it
        """Write the config of a new run as text."""
        self._hyperparameters = hyperparameters(config)
        if self._is_new:
            self._writer.add_text("config", f"```json\n{loading.to_json(config)}```", 0)

    def log_images(self, images_seen: int, images: Mapping[str, np.ndarray]) -> None:
        """Write pictures."""
        for name, picture in images.items():
            self._writer.add_image(name, picture, images_seen, dataformats="HWC")

    def log_scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Write metrics."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, images_seen)

    def finish(self, outcome: Outcome, images_seen: int, final: Mapping[str, float]) -> None:
        """Write the hyperparameters of a finished run, and close the file."""
        try:
            if outcome == "finished":
                self._writer.add_hparams(
                    self._hyperparameters,
                    {f"final/{name}": value for name, value in final.items()},
                    run_name=".",
                    global_step=images_seen,
                )
            self._writer.close()
        finally:
            threading.excepthook = self._excepthook


def hyperparameters(config: Config) -> dict[str, str | float | int | bool]:
    """Return the fields of a config as values that TensorBoard's hparams accept."""
    return {
        field: value if isinstance(value, (str, float, int, bool)) else json.dumps(value)
        for field, value in loading.flatten(config).items()
    }
