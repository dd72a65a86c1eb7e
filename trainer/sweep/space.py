"""The search space of a sweep: the `--vary` options, and every combination checked before a run starts."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import yaml
from pydantic import BaseModel

from trainer.config import loading
from trainer.config.schema import Config
from trainer.errors import TrainerError

MAX_COMBINATIONS = 10_000
EXAMPLE = "--vary model.z_dim=32,64,100 or, with --sampler tpe, --vary optim.g_lr=1e-5..1e-3:log"
RANGE = re.compile(r"(?P<low>[^,\[\]]+?)\.\.(?P<high>[^,\[\]:]+)(?::(?P<scale>\w+))?")

# Fields that a sweep cannot vary, and why.
FIXED = (
    {
        "name": "it only names the run",
        "run.seed": "use --seeds 3 for three seeds of every setting",
        "run.threads": "--jobs divides the cores",
        "run.track": "it only records the run; use --set run.track=…",
        "run.device": "a sweep runs on one device; use --set run.device=…",
    }
    | dict.fromkeys(
        ("data.source", "data.max_images", "data.resolution", "data.channels", "run.quality_images"),
        "scores against other images do not compare; run a sweep for each",
    )
    | dict.fromkeys(
        ("run.quality_ticks", "run.tick_kimg"), "a run that is measured more often has more chances of a low score"
    )
)

Setting = dict[str, Any]  # section.field → a value as JSON has it


@dataclass(frozen=True)
class Vary:
    """A field and its values; the two ends where it is a range."""

    field: str
    values: tuple[Any, ...]
    is_range: bool = False
    log: bool = False

    @property
    def integer(self) -> bool:
        """Whether all values are whole numbers."""
        return all(type(value) is int for value in self.values)

    def describe(self) -> str:
        """Return the values as `--vary` accepts them."""
        if self.is_range:
            return f"{format_value(self.values[0])}..{format_value(self.values[1])}" + ":log" * self.log
        return ",".join(format_value(value) for value in self.values)


def format_value(value: Any) -> str:
    """Return a value of a setting as people read and type it."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return value if isinstance(value, str) else json.dumps(value)


def format_setting(setting: Mapping[str, Any], *, short: bool = False) -> str:
    """Return `field=value  field=value`; `short` leaves out the sections' names."""
    return "  ".join(
        f"{field.rpartition('.')[2] if short else field}={format_value(value)}" for field, value in setting.items()
    )


def parse_varies(texts: Iterable[str], sampler: str) -> list[Vary]:
    """Return the `--vary` options, each field and value checked against its own field.

    Raises:
        TrainerError: For an unknown field, a value out of range, a field or value that is given twice, or a range
            where a grid needs a list.
    """
    varies: list[Vary] = []
    for text in texts:
        field, separator, values = text.partition("=")
        if not separator or not values.strip():
            raise TrainerError(f"--vary requires section.field=value,value,…, not '{text}': {EXAMPLE}")
        if field not in loading.field_names():
            raise TrainerError(loading.unknown_field(field))
        if field in FIXED:
            raise TrainerError(f"--vary {field}: {FIXED[field]}")
        if any(field == vary.field for vary in varies):
            raise TrainerError(f"--vary {field} was given twice; list all values in one option")
        match = RANGE.fullmatch(values.strip())
        varies.append(_parse_range(field, match) if match else _parse_values(field, values))
        if varies[-1].is_range and sampler == "grid":
            raise TrainerError(f"--vary {text}: a grid requires values, not a range; add --sampler random or tpe")
    if not varies:
        raise TrainerError(f"nothing to vary; give {EXAMPLE}")
    return varies


def _parse_values(field: str, text: str) -> Vary:
    try:
        items = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise TrainerError(f"--vary {field}={text}: the values are not readable; {EXAMPLE}") from error
    if None in items and text.replace(" ", "").endswith(","):
        items = items[:-1]
    values = [_checked(field, item) for item in items]
    for index, value in enumerate(values):
        if value in values[:index]:
            raise TrainerError(f"--vary {field}: {format_value(value)} is listed twice")
    if len(values) < 2:
        raise TrainerError(f"--vary {field}={text} is one value; give two or more, or use --set {field}={text}")
    return Vary(field, tuple(values))


def _parse_range(field: str, match: re.Match[str]) -> Vary:
    text = match.group(0)
    try:
        low, high = (_checked(field, yaml.safe_load(match[end])) for end in ("low", "high"))
    except yaml.YAMLError as error:
        raise TrainerError(f"--vary {field}={text}: the ends of the range are not readable; {EXAMPLE}") from error
    if any(type(end) not in (int, float) for end in (low, high)):
        raise TrainerError(f"--vary {field}={text}: a range requires numbers; list the values: {field}=…,…")
    if low >= high:
        raise TrainerError(f"--vary {field}={text}: give a range from the lower number to the higher")
    if match["scale"] not in (None, "log"):
        raise TrainerError(f"--vary {field}={text}: after a range only :log is allowed")
    if match["scale"] and low <= 0:
        raise TrainerError(f"--vary {field}={text}: a range on a logarithmic scale begins above 0")
    return Vary(field, (low, high), is_range=True, log=match["scale"] == "log")


def _checked(field: str, value: Any) -> Any:
    """Return the value as the config holds it, checked against its own field only."""
    section, _, name = field.partition(".")
    kind = cast(type[BaseModel], Config.model_fields[section].annotation)
    try:
        fields = loading.parse_section(kind, section, {name: loading.parse_number(value)})
    except TrainerError as error:
        raise TrainerError(f"--vary {error}") from error
    return fields[name]


def base_config(preset: str, sets: Sequence[str], varies: Sequence[Vary]) -> Config:
    """Return the preset with `--set` and the first value of each varied field, which the preset need not agree with.

    Raises:
        TrainerError: If the config is not valid, or a field is both set and varied.
    """
    fixed = {setting.partition("=")[0] for setting in sets}
    for vary in varies:
        if vary.field in fixed:
            raise TrainerError(f"{vary.field} is in --set and in --vary; remove one of them")
    return loading.resolve(preset, [*sets, *(f"{vary.field}={json.dumps(vary.values[0])}" for vary in varies)])


def combinations(varies: Sequence[Vary]) -> Iterator[Setting]:
    """Yield every combination of the values (of a range: its ends), the last field changing fastest."""
    fields = [vary.field for vary in varies]
    for values in itertools.product(*(vary.values for vary in varies)):
        yield dict(zip(fields, values, strict=True))


def check_combinations(base: Config, varies: Sequence[Vary]) -> list[Setting]:
    """Return all combinations.

    Raises:
        TrainerError: For the first combination whose fields disagree, or for too many combinations.
    """
    count = math.prod(len(vary.values) for vary in varies)
    if count > MAX_COMBINATIONS:
        raise TrainerError(
            f"these values make {count:,} combinations, more than {MAX_COMBINATIONS:,}; give fewer values, "
            "or ranges and --sampler tpe"
        )
    settings = list(combinations(varies))
    for setting in settings:
        try:
            apply(base, setting)
        except TrainerError as error:
            raise TrainerError(f"with {format_setting(setting)}: {error}") from error
    return settings


def apply(base: Config, setting: Mapping[str, Any]) -> Config:
    """Return the config with a setting's values.

    Raises:
        TrainerError: If its fields disagree.
    """
    sections = base.model_dump(mode="json")
    for field, value in setting.items():
        section, _, name = field.partition(".")
        sections[section][name] = value
    return loading.parse(sections)
