"""Weights & Biases: offline in the run folder, or online for a user who has logged in."""

from __future__ import annotations

import netrc
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from trainer.config.schema import Config
from trainer.reports.image_grids import to_pil
from trainer.trackers.base import PROJECT, Outcome, TrackedRun, parameters

FINISH_TIMEOUT = 120.0  # seconds that an online run's last upload may take; `wandb sync` sends the rest later


class WandbTracker:
    """A run of the project `gan-atelier` or WANDB_PROJECT. WANDB_MODE, WANDB_DIR and W&B's other variables apply."""

    def __init__(self, run: TrackedRun) -> None:
        """Begin a run, or continue one.

        Raises:
            wandb.errors.Error: If W&B is to be online and cannot begin.
        """
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it reports errors to its makers, also offline
        import wandb

        self._wandb = wandb
        mode: Any = None if "WANDB_MODE" in os.environ else default_mode(wandb.setup().settings)
        run_id = run.identity.get("id")
        settings = {
            "silent": True,
            "console": "off",
            "disable_git": True,  # it would upload the uncommitted changes of the folder that the user is in
            "save_code": False,
            "finish_timeout": FINISH_TIMEOUT,
        }
        if "WANDB_FINISH_TIMEOUT" in os.environ:
            del settings["finish_timeout"]
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", run.name),
            group=os.environ.get("WANDB_RUN_GROUP", run.sweep),
            dir=None if "WANDB_DIR" in os.environ else str(run.run_dir),
            id=run_id,
            resume=None if run_id is None else "allow",
            mode=mode,
            reinit="create_new",  # a run that the user's own code has begun stays as it is
            settings=wandb.Settings(**settings),
        )
        self.identity = {"id": str(self._run.id)}
        self.logged_until = run.logged_until
        if self._run.disabled:
            self.location = "disabled by its settings"
        elif self._run.offline:
            folder = Path(self._run.dir).parent
            self.location = f"offline run {self._run.id}; upload it with: wandb sync {shlex.quote(str(folder))}"
        else:
            self.location = str(self._run.url)

    def log_config(self, config: Config, made_by: Mapping[str, Any]) -> None:
        """Store the parameters."""
        self._run.config.update(parameters(config, made_by), allow_val_change=True)

    def log_images(self, images_seen: int, images: Mapping[str, np.ndarray]) -> None:
        """Store pictures, in the row of the tick's metrics."""
        media = {name: self._wandb.Image(to_pil(picture)) for name, picture in images.items()}
        self._run.log(media, step=images_seen, commit=False)

    def log_scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Store metrics, which ends the tick's row."""
        self._run.log(dict(values), step=images_seen, commit=True)

    def finish(self, outcome: Outcome, images_seen: int, final: Mapping[str, float]) -> None:  # noqa: ARG002
        """Upload or write what is pending, and close the run."""
        self._run.finish(exit_code=1 if outcome == "failed" else 0)


def default_mode(settings: Any) -> str | None:
    """Return "offline" if W&B would be online without a login, else None, which leaves the mode to W&B.

    Args:
        settings: W&B's settings of this process, with its settings files.
    """
    return None if settings.mode != "online" or is_logged_in(settings.base_url) else "offline"


def is_logged_in(base_url: str) -> bool:
    """Return whether the environment or the user's .netrc has credentials for W&B's server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = os.environ.get("NETRC")
    for file in [path] if path else ["~/.netrc", "~/_netrc"]:
        try:
            if netrc.netrc(Path(file).expanduser()).authenticators(urlsplit(base_url).netloc):
                return True
        except (OSError, netrc.NetrcParseError, RuntimeError):  # no file, or no home folder
            continue
    return False
