"""How a run is resumed: which checkpoint, with which changes of its config, and on the same images."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagesets import ImageSet, ImageSetError
from trainer import devices
from trainer.config.loading import differences, override
from trainer.config.schema import Config
from trainer.data import ImageRecord, load_images, record_images
from trainer.distributed import environment
from trainer.errors import TrainerError
from trainer.quality import patience
from trainer.run_names import FOLDER
from trainer.training import checkpoint


@dataclass(frozen=True)
class ResumePlan:
    """How a run resumes."""

    path: Path  # of the checkpoint it resumes from
    content: dict[str, Any]  # of the checkpoint
    config: Config  # with what the user changes
    changes_source: bool  # whether the user gives a new path of the same images
    notes: list[str]  # lines for the user

    @property
    def kimg(self) -> float:
        """Thousands of images that the checkpoint has seen."""
        return float(self.content["counters"]["images_seen"]) / 1000

    @property
    def end(self) -> str | None:
        """Why the run is finished, and how to train it longer; None if it is not finished."""
        if self.kimg >= self.config.run.total_kimg:
            return f"is finished at {self.kimg:g} kimg; train it longer with --kimg, above {self.kimg:g}"
        images_seen = self.content["counters"]["images_seen"]
        if reason := patience.describe_end(self.config, self.content.get("best") or {}, images_seen):
            ticks = patience.ticks_without_improvement(self.config, self.content.get("best") or {}, images_seen)
            return (
                f"ended at {self.kimg:g} kimg: {reason}; continue with --set run.patience_ticks={2 * ticks}, or 0 to "
                "train the full length"
            )
        return None


def plan_resume(run_dir: Path, overrides: Iterable[str] = (), kimg: float | None = None) -> ResumePlan:
    """Return how a run resumes from its latest checkpoint.

    Args:
        run_dir: The run folder.
        overrides: `section.field=value` each: `run` fields, and `data.source`.
        kimg: A new length, in thousands of images.

    Raises:
        TrainerError: If no checkpoint is readable, or an override changes more than length, device and the path of the
            images.
    """
    path, content, skipped = checkpoint.load_latest(run_dir)
    notes = [f"warning: {line}; using the one before" for line in skipped]
    checkpoint.check_same_config(run_dir, content)
    recorded = checkpoint.config_of(content)
    decay = recorded.optim.decay_kimg
    if kimg and decay and kimg > decay[1]:
        raise TrainerError(
            f"{run_dir} ends at {decay[1]:g} kimg, where its learning rates have fallen to 0 (optim.decay_kimg); train "
            f"a new, longer run with --set run.total_kimg={kimg:g} and a later optim.decay_kimg"
        )
    overrides = [*overrides, *([f"run.total_kimg={kimg}"] if kimg else ())]
    config = override(recorded, overrides)
    fixed = [
        line
        for line in differences(recorded, config)
        if not line.startswith(("run.", "data.source: ")) or line.startswith("run.seed")
    ]
    if fixed:
        raise TrainerError(f"these fields cannot change when resuming: {'; '.join(fixed)}")
    given = {line.partition("=")[0] for line in overrides}
    if "run.device" not in given and not devices.is_available(config.run.device):
        notes.append(f"note: {run_dir} was trained on {config.run.device}, which is not available: not bit-exact")
        config = override(config, [f"{field}=auto" for field in ("run.device", "run.precision") if field not in given])
    if config.run.device != recorded.run.device and "run.cuda_graphs" not in given:
        config = override(config, ["run.cuda_graphs=auto"])  # it was resolved for the other device
    return ResumePlan(path, content, devices.resolve_auto(config), "data.source" in given, notes)


@dataclass(frozen=True)
class FoundImages:
    """The images that a run resumes on."""

    images: ImageSet
    record: dict[str, Any] | None  # the new content of the image record, if it changes
    note: str | None  # a line for the user
    changed: bool  # whether they differ from those that the run was started on


def find_images(
    run_dir: Path, config: Config, data_root: Path | None, *, moved: bool = False, accept_changes: bool = False
) -> FoundImages:
    """Load the images that a run was started on.

    Args:
        run_dir: The run folder. Its record says where the images were, whatever the working directory is now.
        config: The config of the run.
        data_root: The folder of the datasets; None for the recorded one.
        moved: Whether `config.data.source` is a new path, which replaces the recorded one.
        accept_changes: Whether images that have changed are accepted.

    Raises:
        TrainerError: If the images are not found, or have changed and that is not accepted.
    """
    record = ImageRecord.read(run_dir)
    source = (None if moved else record.source) or config.data.source
    config = config.model_copy(update={"data": config.data.model_copy(update={"source": source})})
    root = data_root or record.data_root or Path("data")
    try:
        with environment.first_on_this_machine():
            images, found = load_images(config, root)
    except ImageSetError as error:
        if not source.startswith(FOLDER):
            raise
        hint = f"trainer resume {shlex.quote(str(run_dir))} --set data.source=folder:PATH"
        raise TrainerError(f"{error}; if the same images are elsewhere now: {hint}") from error
    changed = record.describe_change(images)
    if classes := [line for line in differences(config, found) if line.startswith("data.class_names: ")]:
        raise TrainerError(f"the images of {images.name} are not those that {run_dir} began with: {classes[0]}")
    if changed and not accept_changes:
        raise TrainerError(
            f"the images of {images.name} are not those that {run_dir} began with: {changed}. Give the path of the "
            "same images with --set data.source=folder:PATH, train a new run, or continue on these with --other-images"
        )
    note = None
    if changed:
        note = f"warning: the images have changed since {run_dir} began: {changed}"
    elif not record.has_fingerprint:
        note = f"note: {run_dir / ImageRecord.FILE} has no fingerprint: the images may have changed since"
    keep = record.has_fingerprint and not changed and not moved
    return FoundImages(images, None if keep else {**record.content, **record_images(images, root)}, note, bool(changed))
