"""Look at a set of images and choose the config of a run on it: the flow behind `trainer train SOURCE`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagesets
from artifacts.images.alpha import RGBA
from artifacts.images.resolution import Resolution
from imagesets import ImageSet
from imagesets.cache import default_cache_root
from imagesets.inspection.headers import file_names
from trainer import data, devices
from trainer.config import loading
from trainer.config.schema import RENAMED_FIELDS, Config
from trainer.distributed import environment
from trainer.errors import TrainerError
from trainer.finetune.config import inherit_config
from trainer.finetune.initialize import preview
from trainer.finetune.parent import Parent
from trainer.own_images import choices as rules
from trainer.own_images.choices import Choice
from trainer.own_images.duplicates import find_duplicates
from trainer.own_images.estimate import measure
from trainer.own_images.findings import Findings, find
from trainer.own_images.report import Inspection


@dataclass(frozen=True)
class Given:
    """What the user gave: overrides, by field, and the preset or parent."""

    settings: list[str]
    values: dict[str, Any]
    preset: str | None = None
    parent: Parent | None = None

    @classmethod
    def parse(cls, settings: Iterable[str], preset: str | None, parent: Parent | None) -> Given:
        """Read `section.field=value` overrides.

        Raises:
            TrainerError: If one is not such an override, or names the source.
        """
        settings = list(settings)
        sections = loading.apply_overrides({}, settings)
        for section, fields in sections.items():
            if isinstance(fields, dict):
                loading.check_section(section, fields)
        values = loading.flatten_sections(sections)
        if "data.source" in values:
            raise TrainerError(
                f"the images are given twice: as an argument and as --set data.source={values['data.source']}; leave "
                "one out"
            )
        return cls(settings, values, preset, parent)

    def or_chosen(self, choice: Choice) -> Choice:
        """Return the user's value of a field, or the choice."""
        name = RENAMED_FIELDS.get(choice.field, choice.field)
        return Choice(choice.field, self.values[name], "given", is_given=True) if name in self.values else choice


def inspect(
    source: str,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    preset: str | None = None,
    parent: Parent | None = None,
    name: str | None = None,
    default: str | None = None,
    data_root: Path = Path("data"),
    estimate: bool = True,
    user_code: bool = False,
) -> Inspection:
    """Look at a set of images and choose the config of a run on it.

    The images are decoded into the cache, from which the training reads them; nothing else is written.

    Args:
        source: The images, as `imagesets.load` takes them: a folder, an archive, a dataset.
        overrides: As `load_config` takes them; they replace what would be chosen.
        preset: A preset to keep, except for what the images decide.
        parent: What the run will start from.
        name: Name of the run.
        default: Name of the run that has no name otherwise.
        data_root: Folder of the datasets.
        estimate: Whether to measure a few steps of the training.
        user_code: Whether modules of a user that the parent names may be imported.

    Returns:
        The findings, the choices and the config.

    Raises:
        TrainerError: If there are too few images, or a given setting is wrong.
        ImageSetError: If the images cannot be loaded.
    """
    given = Given.parse(loading.override_texts(overrides), preset, parent)
    with environment.first_on_this_machine():
        found = find(source, data_root)
        _require_enough(source, found.count)
        device = _device(given)
        chosen = _choose_format(found, given, device)
        if parent is not None:
            _check_fit(parent, chosen, given, found.count, device, user_code)
        images = _load(chosen, data_root)
        duplicates = find_duplicates(images.images)
        skipped = {entry["file"] for entry in images.info.get("skipped", ())}
        names = file_names(chosen["data.source"].value, duplicates.examples, skipped, data_root)
    different = len(images) - duplicates.exact
    _require_enough(source, different, len(images))
    chosen = _choose_training(chosen, given, different, len(images), device)
    config = _make_config(chosen, given, name, default, user_code)
    images, trained = data.load_images(config, data_root)
    measured = measure(devices.resolve_auto(trained), images) if estimate and environment.world_size() == 1 else None
    shown = tuple(choice for choice in chosen.values() if choice.reason)
    return Inspection(found, duplicates, shown, config, measured, images, default_cache_root(), names)


def _device(given: Given) -> str:
    device = given.values.get("run.device", "auto")
    if device != "auto":
        return str(device)
    return next((name for name in ("cuda", "mps") if devices.is_available(name)), "cpu")


def _require_enough(source: str, different: int, count: int | None = None) -> None:
    """Raise TrainerError for fewer images than any training needs."""
    if different < rules.MIN_DIFFERENT:
        images = "1 image" if different == 1 else f"{different} images"
        of = f"{different} different of {count} images" if count not in (None, different) else images
        raise TrainerError(
            f"{source} has {of}: a GAN needs {rules.MIN_DIFFERENT} different ones or more, and learns well from 1,000; "
            "add images"
        )


def _choose_format(found: Findings, given: Given, device: str) -> dict[str, Choice]:
    """Choose the source, the preset, and what decides how images are decoded, by field."""
    source = found.source
    if source.is_given:
        why = "the given split"
    elif source.held_out:
        why = f"{found.count:,} images; {source.held_out:,} are held out for the score"
    else:
        why = f"all {found.count:,} images; none are held out"
    chosen = [Choice("data.source", source.train, why)]
    if given.parent is not None and given.preset is None:
        return {choice.field: choice for choice in [*chosen, *_formats_of_parent(found, given)]}
    preset = rules.choose_preset(source.train, device)
    if given.preset is not None:
        preset = Choice("preset", given.preset, "given", is_given=True)
    sections = loading.load_preset(preset.value)
    theirs = sections.get("data", {})
    keeps = preset.is_given or _is_made_for(preset.value, source.train, theirs)
    resolution = given.or_chosen(
        Choice("data.resolution", theirs.get("resolution", 32), "the preset's")
        if keeps
        else rules.choose_resolution(found, device)
    )
    channels = given.or_chosen(rules.choose_channels(found))
    conditional = rules.choose_conditional(found, can_be=sections.get("model", {}).get("architecture") != "mlp")
    if keeps and conditional.value and not sections.get("model", {}).get("conditional"):
        conditional = Choice(conditional.field, False, "the preset's")
    chosen += [preset, resolution, channels, given.or_chosen(conditional)]
    if not keeps:
        chosen.append(given.or_chosen(rules.choose_flip(channels.value)))
    return {choice.field: choice for choice in [*chosen, *_scaling(found, given, resolution.value)]}


def _formats_of_parent(found: Findings, given: Given) -> list[Choice]:
    """Choose how images are decoded for a run that continues a parent's weights."""
    assert given.parent is not None
    theirs = given.parent.config
    conditional = rules.choose_conditional(found)
    if conditional.value and not theirs.model.conditional:
        conditional = Choice(conditional.field, False, "the parent's")
    resolution = given.or_chosen(Choice("data.resolution", theirs.data.resolution, "the parent's"))
    channels = rules.choose_channels(found)
    if theirs.data.channels == RGBA and found.has_transparency:
        channels = Choice(channels.field, RGBA, "the parent's; some images have transparency")
    channels = given.or_chosen(channels)
    chosen = [resolution, channels, given.or_chosen(conditional), given.or_chosen(rules.choose_flip(channels.value))]
    return [*chosen, *_scaling(found, given, resolution.value)]


def _scaling(found: Findings, given: Given, resolution: Resolution) -> list[Choice]:
    choice = Choice("data.scale_jpegs", True, "large JPEGs are decoded at a fraction of their size, four times as fast")
    return [given.or_chosen(choice)] if found.scales_jpegs(resolution) else []


def _is_made_for(preset: str, source: str, theirs: Mapping[str, Any]) -> bool:
    """Return whether a preset is kept as it is for a source."""
    name = source.partition("@")[0]
    return name == theirs.get("source") or rules.PRESETS_OF_SETS.get(name) == preset


def _check_fit(
    parent: Parent, chosen: dict[str, Choice], given: Given, count: int, device: str, user_code: bool
) -> None:
    """Raise TrainerError before any image is decoded if nothing of G or D fits the parent's."""
    try:
        config = _make_config(_choose_training(chosen, given, count, count, device), given, None, None, user_code)
    except TrainerError:  # reported with the final config, whose augmentation and length depend on the duplicates
        return
    preview(parent, config)


def _load(chosen: Mapping[str, Choice], data_root: Path) -> ImageSet:
    scaled = chosen.get("data.scale_jpegs")
    return imagesets.load(
        chosen["data.source"].value,
        resolution=chosen["data.resolution"].value,
        channels=chosen["data.channels"].value,
        scale_jpegs=scaled is not None and bool(scaled.value),
        data_root=data_root,
        progress=environment.rank() == 0,
    )


def _choose_training(
    chosen: dict[str, Choice], given: Given, different: int, count: int, device: str
) -> dict[str, Choice]:
    """Choose augmentation, batch size and length, and what follows from them; a preset that is kept keeps its own."""
    preset = chosen.get("preset")
    sections: dict[str, Any] = {} if preset is None else loading.load_preset(preset.value)
    theirs = sections.get("data", {})
    parent = given.parent.config if given.parent is not None and preset is None else None
    keeps = preset is not None and (preset.is_given or _is_made_for(preset.value, chosen["data.source"].value, theirs))
    size = parent.optim.batch_size if parent else sections.get("optim", {}).get("batch_size", 64)
    found = [rules.choose_batch_size(count, given.values.get("optim.batch_size", size))]
    kimg = sections.get("run", {}).get("total_kimg", 100)
    if not keeps:
        found.append(rules.choose_augmentation(different))
        if found[-1] is not None and not {"data.augment", "data.augment_p"} & given.values.keys():
            objective = parent.objective.name if parent else sections.get("objective", {}).get("name", "non-saturating")
            found.append(rules.choose_ada_target(device, given.values.get("objective.name", objective)))
        length = rules.choose_length(different, device, fine_tuned=given.parent is not None)
        found.append(given.or_chosen(length))
        kimg = length.value
    kimg = given.values.get("run.total_kimg", kimg)
    chosen = chosen | {choice.field: given.or_chosen(choice) for choice in found if choice is not None}
    if parent is not None:
        sections = {"model": parent.model.model_dump(), "data": {"resolution": parent.data.resolution}}
    follows = rules.dependent_settings(sections, chosen["data.resolution"].value, kimg)
    if keeps and "run.total_kimg" not in given.values:
        follows = {name: value for name, value in follows.items() if name.startswith("model.")}
    return chosen | {name: Choice(name, value, "") for name, value in follows.items() if name not in given.values}


def _make_config(
    chosen: Mapping[str, Choice], given: Given, name: str | None, default: str | None, user_code: bool
) -> Config:
    preset = chosen.get("preset")
    ours = [choice.setting for choice in chosen.values() if choice.field != "preset" and not choice.is_given]
    settings = [*ours, *given.settings]
    if preset is None:
        assert given.parent is not None
        return inherit_config(given.parent, settings, name=name, default=default, user_code=user_code)
    return loading.resolve(preset.value, settings, name, default)
