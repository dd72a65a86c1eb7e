"""Train a run on images that are given, without an image set by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from imagesets.types import ImageSet
from trainer import api, devices
from trainer.config.loading import to_json
from trainer.config.schema import Config
from trainer.data import record_images
from trainer.training import checkpoint, run_folder
from trainer.training.state import TrainState


def start(config: Config, images: ImageSet, run_dir: Path, console: Console) -> bool:
    """Train a new run in an existing folder; return whether it reached its end."""
    devices.configure_process(config)
    with run_folder.exclusive(run_dir):
        run_folder.write_record(run_dir, record_images(images, Path("data")) | {"machine": devices.describe()})
        return api._run_loop(TrainState.create(config), images, run_dir, console).finished


def resume(run_dir: Path, content: Mapping[str, Any], config: Config, images: ImageSet, console: Console) -> bool:
    """Continue from a checkpoint's content; return whether the run reached its end."""
    devices.configure_process(config)
    with run_folder.exclusive(run_dir):
        state = checkpoint.restore(content, config)
        run_folder.write_text(run_dir / "config.json", to_json(config))
        checkpoint.write_best(state, run_dir)
        return api._run_loop(state, images, run_dir, console).finished
