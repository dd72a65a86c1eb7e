"""The config of a fine-tuned run that has no preset: the parent's networks and training, the new run's images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainer.config import loading
from trainer.config.schema import Config, RunSection
from trainer.errors import TrainerError
from trainer.finetune.parent import Parent
from trainer.finetune.record import GENERATOR
from trainer.plugins import require_user_code
from trainer.run_names import FOLDER, checked_name, name_of_source, slug

OF_ITS_RUN = ("decay_kimg", "schedule", "d_freeze")  # optim fields that belong to the parent's length and its parent
TOTAL_KIMG: float = RunSection.model_fields["total_kimg"].default


def inherit_config(
    parent: Parent,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    name: str | None = None,
    default: str | None = None,
    user_code: bool = False,
) -> Config:
    """Return the config of a run that is fine-tuned from a parent.

    `model`, `objective`, `ema` and `optim` are the parent's, without `d_freeze`; its learning rates fall over the same
    share of the new run. Of a generator that other code trained, only `model` is. With another `data.source` the
    resolution is the parent's and all other `data` fields are the new run's; without, `data` is the parent's. `run` is
    the new run's.

    Args:
        parent: The parent.
        overrides: As `load_config` takes them; they replace what is inherited.
        name: The name of the run.
        default: The name of a run that has no name otherwise; without it, that of the user's images, or the parent's
            with the source's.
        user_code: Whether modules of a user that the parent names, and no override, may be imported.

    Raises:
        TrainerError: If a field is wrong, fields disagree, or the config needs a module of the parent's author.
    """
    texts = loading.override_texts(overrides)
    inherited = parent.config.model_dump(mode="json")
    sections: dict[str, Any] = {"model": inherited["model"]}
    if not parent.imported:
        optim = {field: value for field, value in inherited["optim"].items() if field not in OF_ITS_RUN}
        sections |= {"objective": inherited["objective"], "optim": optim, "ema": inherited["ema"]}
    given = loading.apply_overrides({}, texts)
    source = given.get("data", {}).get("source", inherited["data"]["source"])
    same = source == inherited["data"]["source"]
    if same and parent.record["kind"] == GENERATOR and source.startswith(FOLDER):
        raise TrainerError(
            f"{parent.path.name} was trained on {source}, and a generator file does not hold where that is: add "
            "--set data.source=folder:PATH"
        )
    sections["data"] = inherited["data"] if same else {"resolution": inherited["data"]["resolution"]}
    if sections["data"].get("ada_target") is not None:
        sections["data"]["augment_p"] = None  # it starts where the parent's ended, not where the parent's started
    loading.apply_overrides(sections, texts)
    if not parent.imported:
        _scale_decay(sections, parent.config)
    if name is not None:
        sections["name"] = checked_name(name)
    elif "name" not in sections:
        of_parent = slug(f"{parent.record['name']}-{Path(str(source).partition('@')[0]).name}")
        sections["name"] = default or name_of_source(str(source)) or of_parent
    config = loading.parse(sections)
    fields = {f"{section}.{field}" for section, inner in given.items() if isinstance(inner, dict) for field in inner}
    theirs = [plugin for plugin in config.plugins() if plugin[0] not in fields]
    require_user_code(user_code, theirs, str(parent.path))
    return config


def _scale_decay(sections: dict[str, Any], theirs: Config) -> None:
    """Let the learning rates fall over the same share of the run as the parent's, unless the user says otherwise."""
    optim, total = sections["optim"], sections.get("run", {}).get("total_kimg", TOTAL_KIMG)
    if theirs.optim.decay_kimg is None or "decay_kimg" in optim or not isinstance(total, int | float) or total <= 0:
        return  # a length that is no positive number is reported with the other fields
    start, end = theirs.optim.decay_kimg
    sections["optim"] = {"schedule": theirs.optim.schedule, **optim, "decay_kimg": [total * start / end, total]}
