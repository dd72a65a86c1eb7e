"""Makes a Config of a preset and `section.field=value` overrides, with errors a user can act on."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, TypeGuard

import numpy as np
import yaml
from pydantic import BaseModel, ValidationError

from imagesets import full_name
from trainer.config.schema import RENAMED_FIELDS, Config, Section
from trainer.errors import TrainerError
from trainer.run_names import checked_name, name_of_source, slug

PRESETS = Path(__file__).with_name("presets")
LITERAL_FIELDS = {"name", "data.source"}  # taken as written, not as YAML


def load_config(
    preset: str | Path, overrides: Iterable[str] | Mapping[str, Any] = (), *, name: str | None = None
) -> Config:
    """Return the checked config of a preset with overrides.

    Args:
        preset: The name of a preset, or the path of a YAML or JSON file.
        overrides: `{"section.field": value}`, where values may be NumPy's, or `"section.field=value"` strings whose
            values are YAML.
        name: Name of the run. Default: that of the file, of the user's images or of the preset.

    Returns:
        The config, with `auto` where the machine decides.

    Raises:
        TrainerError: If a field is unknown, a value is out of range or fields disagree; one line per problem.
    """
    return resolve(str(preset), override_texts(overrides), name)


def override_texts(overrides: Iterable[str] | Mapping[str, Any]) -> list[str]:
    """Return overrides as `section.field=value`, from such texts or from values by field."""
    if isinstance(overrides, Mapping):
        return [f"{field}={_as_yaml(field, value)}" for field, value in overrides.items()]
    return list(overrides)


def _as_yaml(field: str, value: Any) -> str:
    if field in LITERAL_FIELDS:
        if isinstance(value, str | PurePath):
            return str(value)
        raise TrainerError(f"{field} is a text, not {type(value).__name__}")
    try:
        return json.dumps(value, default=_as_primitive)
    except (TypeError, ValueError, RecursionError) as error:
        raise TrainerError(
            f"{field}: a config cannot hold a value of type {type(value).__name__}; give a number, a text, a boolean, "
            "None, or a list or an array of them"
        ) from error


def _as_primitive(value: Any) -> Any:
    """Return a NumPy value or an array as numbers and lists, another iterable as a list."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else list(value)


def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_preset(preset: str) -> dict[str, Any]:
    """Return the sections of a preset, unchecked.

    Args:
        preset: The name of a preset, or the path of a YAML or JSON file.

    Raises:
        TrainerError: If it does not exist, or the file or one of its sections is not a mapping.
    """
    path = PRESETS / f"{preset}.yaml"
    if preset not in preset_names():
        path = Path(preset)
        if path.suffix not in {".yaml", ".yml", ".json"}:
            close = difflib.get_close_matches(preset, preset_names(), n=1)
            hint = f"did you mean {close[0]}?" if close else f"presets: {', '.join(preset_names())}"
            raise TrainerError(f"no preset is called '{preset}'; {hint}")
        if not path.is_file():
            raise TrainerError(f"no preset file at {path}")
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainerError(f"{path} is not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(sections, dict):
        raise TrainerError(f"{path} must contain sections (data, model, …), not {type(sections).__name__}")
    for section, info in Config.model_fields.items():
        if not _is_section(info.annotation) or section not in sections:
            continue
        if sections[section] is None:  # a heading without fields
            sections[section] = {}
        if not isinstance(sections[section], dict):
            raise TrainerError(f"{path}: {section} is a section and must contain fields, not {sections[section]!r}")
    for old, new in RENAMED_FIELDS.items():
        section, _, field = old.partition(".")
        if field in sections.get(section, {}):
            sections[section][new.partition(".")[2]] = sections[section].pop(field)
    data = sections.get("data", {})
    if isinstance(data.get("source"), str):
        data["source"] = full_name(data["source"])
    return sections


def resolve(preset: str, overrides: Iterable[str] = (), name: str | None = None, default: str | None = None) -> Config:
    """Return the checked config of a preset with overrides.

    With another `data.source` the preset's `data.channels` no longer applies where it could lose the images' colors:
    unless it is given too, the new source decides. The preset's `data.class_names` never apply to another source.

    Args:
        preset: The name of a preset, or the path of a YAML or JSON file.
        overrides: `section.field=value` each; values are read as YAML.
        name: The name of the run, which overrides all others.
        default: The name of a run that has no name otherwise; without it, that of the user's images or of the preset.

    Raises:
        TrainerError: If a field is unknown, a value is out of range or fields disagree; one line per problem.
    """
    overrides = list(overrides)
    given = {setting.partition("=")[0] for setting in overrides}
    sections = load_preset(preset)
    is_gray = sections.get("data", {}).get("channels") == 1
    apply_overrides(sections, overrides)
    data = sections.get("data", {})
    source = data.get("source")
    if "data.source" in given:
        if "data.channels" not in given and (is_gray or "folder:" in str(source)):
            data.pop("channels", None)
        if "data.class_names" not in given:
            data.pop("class_names", None)
    if name is not None:
        sections["name"] = checked_name(name)
    elif "name" not in sections:
        of_images = name_of_source(source) if isinstance(source, str) else None
        of_preset = preset if preset in preset_names() else slug(Path(preset).stem) or "run"
        sections["name"] = default or of_images or of_preset
    return parse(sections)


def has_default_name(config: Config) -> bool:
    """Return whether a config has the name it gets when the user gives none."""
    return config.name in (*preset_names(), name_of_source(config.data.source))


def override(config: Config, overrides: Iterable[str]) -> Config:
    """Return a config with `section.field=value` overrides; raises TrainerError as `resolve` does."""
    return parse(apply_overrides(config.model_dump(mode="json"), overrides))


def apply_overrides(sections: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Write `section.field=value` overrides into sections and return them."""
    known = field_names()
    for setting in overrides:
        field, separator, text = setting.partition("=")
        if not separator or not field:
            raise TrainerError(f"--set takes section.field=value, for example optim.batch_size=128, not '{setting}'")
        field = RENAMED_FIELDS.get(field, field)
        if field not in known:
            raise TrainerError(unknown_field(field))
        try:
            if field == "data.source":
                text = full_name(text)
            value = text if field in LITERAL_FIELDS else parse_number(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise TrainerError(f"--set {setting}: the value is not readable") from error
        section, _, name = field.rpartition(".")
        (sections.setdefault(section, {}) if section else sections)[name] = value
    return sections


def parse_number(value: Any) -> Any:
    """Return a string such as `2e-4`, which YAML 1.1 reads as text, as a number; other values as they are."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def parse(sections: Mapping[str, Any]) -> Config:
    """Return the Config of nested primitives.

    Raises:
        TrainerError: If a field is wrong; the message names each.
    """
    try:
        return Config.model_validate(sections)
    except ValidationError as error:
        raise TrainerError("; ".join(_explain(problem) for problem in error.errors())) from error


def parse_section(kind: type[BaseModel], section: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section's fields as JSON values, each checked but not against each other.

    Raises:
        TrainerError: If a field is wrong.
    """
    try:
        return kind.model_validate(fields).model_dump(mode="json")
    except ValidationError as error:
        raise TrainerError("; ".join(_explain(problem, (section,)) for problem in error.errors())) from error


def check_section(section: str, fields: Mapping[str, Any]) -> None:
    """Raise TrainerError if a field of a section of the config is wrong."""
    kind = Config.model_fields[section].annotation
    assert _is_section(kind)
    parse_section(kind, section, fields)


def _explain(problem: Any, inside: tuple[str, ...] = ()) -> str:
    field = ".".join(str(part) for part in (*inside, *problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return unknown_field(field)
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {message}, got {problem['input']!r}" if field else message


def unknown_field(field: str) -> str:
    """Return the message for a field that does not exist, with the closest one that does."""
    known = field_names()
    inside = [name for name in known if name.startswith(f"{field}.")]
    if inside:
        return f"{field} is a section; set its fields one by one: {', '.join(inside)}"
    close = difflib.get_close_matches(field, known, n=1)
    return f"unknown field {field}" + (f" (did you mean {close[0]}?)" if close else f"; fields: {', '.join(known)}")


def field_names() -> list[str]:
    """Return every `section.field` that --set takes."""
    fields = []
    for section, info in Config.model_fields.items():
        if _is_section(info.annotation):
            fields += [f"{section}.{field}" for field in info.annotation.model_fields]
        else:
            fields.append(section)
    return fields


def _is_section(annotation: Any) -> TypeGuard[type[Section]]:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def to_json(config: Config) -> str:
    """Return a config as indented JSON."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def differences(ours: Config, theirs: Config) -> list[str]:
    """Return `section.field: ours → theirs` for each field that differs."""
    before, after = flatten(ours), flatten(theirs)
    return [f"{field}: {before[field]} → {after[field]}" for field in before if before[field] != after[field]]


def flatten(config: Config, *, only_set: bool = False) -> dict[str, Any]:
    """Return a config's values, as JSON has them, by `section.field`.

    Args:
        config: The config.
        only_set: Whether to leave out fields without a given value.
    """
    return flatten_sections(config.model_dump(mode="json", exclude_unset=only_set))


def flatten_sections(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of sections by `section.field`."""
    found: dict[str, Any] = {}
    for section, value in sections.items():
        if isinstance(value, dict):
            found |= {f"{section}.{field}": inner for field, inner in value.items()}
        else:
            found[section] = value
    return found
