"""The whole configuration of a run: frozen, bounded, checked before anything starts.

A preset is a YAML file with these sections. `resolve` merges a preset with `--set section.field=value`
overrides; the result is what `--dry-run` prints, `config.json` holds and a checkpoint carries.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeGuard

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from trainer.config.agreement import check_agreement
from trainer.config.registry import ARCHITECTURES, OBJECTIVES
from trainer.errors import TrainerError
from trainer.names import NAME_PATTERN, checked_name, name_of_source, slug

LITERAL = {"name", "data.source"}  # taken as they are written, not as YAML
PRESETS = Path(__file__).with_name("presets")

Width = Annotated[int, Field(ge=1, le=8192)]
Kimg = Annotated[float, Field(ge=0, le=10_000_000)]

if TYPE_CHECKING:
    ArchitectureName: TypeAlias = str
    ObjectiveName: TypeAlias = str
else:
    ArchitectureName, ObjectiveName = Literal[tuple(ARCHITECTURES)], Literal[tuple(OBJECTIVES)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """To Python true is a 1, which nobody means who writes it."""
        if isinstance(value, bool) and "bool" not in str(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("Input should be no true or false")
        return value


class Data(Section):
    """Which images, at which size."""

    source: str = Field("digits", description="SOURCE or SOURCE@SPLIT: digits, mnist, cifar10, folder:PATH, …")
    resolution: int = Field(32, ge=4, le=128, description="height and width in pixels")
    channels: Literal[1, 3] = Field(1, description="1 gray, 3 RGB; those of the images when left out")
    flip: bool = Field(False, description="mirror each real image left to right half of the times it is shown")
    augment: tuple[Literal["color", "translation", "cutout"], ...] = Field(
        (), description="DiffAugment's policies, on what D sees; for small image sets"
    )
    noise_std: float = Field(0, ge=0, le=10, description="of Gaussian noise on what D sees (instance noise); 0: none")
    noise_kimg: float | None = Field(
        None, gt=0, le=10_000_000, description="kimg in which the noise falls linearly to nothing; none: it stays"
    )
    class_names: tuple[str, ...] = Field((), description="of the labels; taken from the image set when left out")


class Model(Section):
    """The two networks; see networks/ for the layers these numbers make."""

    architecture: ArchitectureName = "dcgan"
    z_dim: int = Field(100, ge=1, le=4096, description="width of a latent")
    z_distribution: Literal["normal", "uniform"] = Field("normal", description="N(0, 1) or U(-1, 1)")
    g_widths: tuple[Width, ...] = Field((256, 128, 64), description="channels (units) of G's hidden layers")
    d_widths: tuple[Width, ...] = Field((64, 128, 256), description="channels (units) of D's hidden layers")
    d_norm: Literal["batch", "layer", "none"] = Field(
        "batch", description="normalisation behind D's convolutions (dcgan, sndcgan)"
    )
    d_spectral_norm: bool = Field(False, description="spectral normalisation of every weight of D")
    d_halvings: int | None = Field(
        None, ge=0, le=16, description="how many of a resnet D's blocks halve the side; none: all but the last"
    )
    bias: Literal["all", "unnormalized", "none"] = Field(
        "unnormalized",
        description="which layers have a bias: all, those without a BatchNorm behind them, none",
    )
    init: Literal["normal", "xavier", "orthogonal", "default"] = Field(
        "normal", description="N(0, init_std), Glorot's uniform, orthogonal, or PyTorch's own"
    )
    init_std: float = Field(0.02, gt=0, le=1)
    conditional: bool = Field(False, description="on the class: conditional BatchNorm in G, projection in D")


class Objective(Section):
    """What D and G minimise; the formulas are in losses.py."""

    name: ObjectiveName = "non-saturating"
    real_label: float = Field(1.0, gt=0.5, le=1, description="D's target for real images; 0.9 smooths it one-sidedly")
    fake_label: float = Field(0.0, ge=0, lt=0.5, description="D's target for fakes; 0.1 beside 0.9 smooths both sides")
    clip: float | None = Field(None, gt=0, le=10, description="bound on the critic's weights after each step")
    gradient_penalty: Literal["none", "wgan-gp", "dragan"] = Field(
        "none", description="on D's gradient between reals and fakes (wgan-gp), or around the reals (dragan)"
    )
    gp_weight: float = Field(10.0, gt=0, le=1e6, description="weight λ of gradient_penalty")
    r1_gamma: float = Field(0, ge=0, le=1e6, description="weight of the gradient penalty on reals; 0: none")
    r1_interval: int = Field(4, ge=1, le=1000, description="steps between two penalties, each weighted by as much")


class Optim(Section):
    """Optimizers and how often each network moves."""

    algorithm: Literal["adam", "rmsprop"] = "adam"
    g_lr: float = Field(2e-4, gt=0, le=1)
    d_lr: float = Field(2e-4, gt=0, le=1)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.999)
    decay_kimg: tuple[Kimg, Kimg] | None = Field(
        None, description="[from, to]: between these both learning rates fall linearly to 0"
    )
    clip_grad_norm: float | None = Field(None, gt=0, le=1e6, description="bound on the norm of each network's gradient")
    batch_size: int = Field(64, ge=2, le=65536)
    n_critic: int = Field(1, ge=1, le=100, description="D steps to each round of G steps")
    g_steps: int = Field(1, ge=1, le=100, description="G steps a round")


class Ema(Section):
    """The averaged generator that is sampled and exported."""

    halflife_kimg: float = Field(2.0, ge=0, le=100_000, description="0: G_ema is G itself")
    warmup: float = Field(0.05, ge=0, le=1, description="half-life is at most this share of the images seen")


class Run(Section):
    """How long, on what, and how often to look."""

    total_kimg: float = Field(100.0, gt=0, le=10_000_000, description="thousands of real images shown to D")
    tick_kimg: float = Field(10.0, gt=0, le=10_000_000, description="between two ticks: metrics and a sample grid")
    checkpoint_ticks: int = Field(1, ge=1, le=1_000_000, description="ticks between two checkpoints")
    keep_checkpoints: int = Field(3, ge=1, le=1000, description="the newest ones kept; the best is kept beside them")
    quality_ticks: int = Field(5, ge=0, le=100_000, description="ticks between two measures of quality; 0: none")
    quality_images: int = Field(2000, ge=10, le=50_000, description="images that a measure of quality looks at")
    seed: int = Field(0, ge=0, lt=2**32)
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where the device has it natively"
    )
    cuda_graphs: Literal["auto"] | bool = Field(
        "auto", description="replay a step as one CUDA graph; auto: where it can be (no gradient penalty)"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; none: PyTorch's choice, recorded")


class Config(Section):
    name: str = Field(pattern=f"^{NAME_PATTERN}$", description="names the run, the file, the served model")
    data: Data = Data()
    model: Model = Model()
    objective: Objective = Objective()
    optim: Optim = Optim()
    ema: Ema = Ema()
    run: Run = Run()

    @model_validator(mode="after")
    def _fields_agree(self) -> Config:
        check_agreement(self)
        return self


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_preset(preset: str) -> dict[str, Any]:
    """Sections of a preset, by name or by the path of a YAML or JSON file.

    Raises TrainerError when there is none of that name, or the file or one of its sections is not a mapping.
    """
    path = PRESETS / f"{preset}.yaml"
    if preset not in preset_names():
        path = Path(preset)
        if path.suffix not in {".yaml", ".yml", ".json"}:
            close = difflib.get_close_matches(preset, preset_names(), n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(preset_names())}"
            raise TrainerError(f"no preset is called '{preset}'; {hint}")
        if not path.is_file():
            raise TrainerError(f"no preset file at {path}")
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainerError(f"{path} is not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(sections, dict):
        raise TrainerError(f"{path} should hold sections (data, model, …), not {type(sections).__name__}")
    for section, info in Config.model_fields.items():
        if not _is_section(info.annotation) or section not in sections:
            continue
        if sections[section] is None:  # a heading with nothing beneath
            sections[section] = {}
        if not isinstance(sections[section], dict):
            raise TrainerError(f"{path}: {section} is a section and should hold fields, not {sections[section]!r}")
    return sections


def resolve(preset: str, overrides: Iterable[str] = (), name: str | None = None, default: str | None = None) -> Config:
    """Return the config of a preset with overrides.

    Args:
        preset: The name of a preset, or the path of a YAML or JSON file.
        overrides: `section.field=value` each; values are read as YAML.
        name: The name of the run, whatever else names it.
        default: The name of a run that nothing else names.

    Returns:
        The checked config.

    Raises:
        TrainerError: If a field is unknown, a value is out of range or fields disagree; one line per problem.
    """
    sections = sections_of(preset, overrides)
    if name is not None:
        sections["name"] = checked_name(name)
    return parse(named(sections, preset, default))


def sections_of(preset: str, overrides: Iterable[str]) -> dict[str, Any]:
    """Return the sections of `preset` with overrides, not yet checked.

    With another `data.source` the preset's `data.channels` no longer applies where it could lose the images' colors:
    unless it is given too, the new source decides. The preset's `data.class_names` never apply to another source.
    """
    overrides = list(overrides)
    sections = load_preset(preset)
    given = {setting.partition("=")[0] for setting in overrides}
    preset_channels = (sections.get("data") or {}).get("channels")
    sections = apply(sections, overrides)
    source = sections.get("data", {}).get("source")
    may_lose_color = preset_channels == 1 or str(source).startswith("folder:")
    if may_lose_color and "data.source" in given and "data.channels" not in given:
        sections["data"].pop("channels", None)
    if "data.source" in given and "data.class_names" not in given:
        sections["data"].pop("class_names", None)  # those of the preset's images
    return sections


def named(sections: dict[str, Any], preset: str, default: str | None = None) -> dict[str, Any]:
    """Return sections that have a name: their own, else `default`, the one of the user's images, or the preset's."""
    if "name" not in sections:
        source = sections.get("data", {}).get("source")
        own = name_of_source(source) if isinstance(source, str) else None
        sections["name"] = default or own or (preset if preset in preset_names() else slug(Path(preset).stem) or "run")
    return sections


def has_default_name(config: Config) -> bool:
    """Return whether a config has the name that it would have if its user had named nothing."""
    return config.name in (*preset_names(), name_of_source(config.data.source))


def override(config: Config, overrides: Iterable[str]) -> Config:
    """A config with `section.field=value` overrides; raises TrainerError as `resolve` does."""
    return parse(apply(config.model_dump(mode="json"), overrides))


def apply(sections: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    known = known_fields()
    for setting in overrides:
        field, separator, text = setting.partition("=")
        if not separator or not field:
            raise TrainerError(f"--set takes section.field=value, for example optim.batch_size=128, not '{setting}'")
        if field not in known:
            raise TrainerError(unknown(field))
        try:
            value = text if field in LITERAL else number(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise TrainerError(f"--set {setting}: the value is not readable") from error
        section, _, name = field.rpartition(".")
        (sections.setdefault(section, {}) if section else sections)[name] = value
    return sections


def number(value: Any) -> Any:
    """YAML 1.1 reads `2e-4` as a string; people mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def parse(sections: Mapping[str, Any]) -> Config:
    """A Config from nested primitives; raises TrainerError naming each field that is wrong."""
    try:
        return Config.model_validate(sections)
    except ValidationError as error:
        raise TrainerError("; ".join(_explain(problem) for problem in error.errors())) from error


def parse_section(kind: type[BaseModel], section: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A section's fields as JSON has them, checked one by one and not against each other; raises TrainerError."""
    try:
        return kind.model_validate(fields).model_dump(mode="json")
    except ValidationError as error:
        raise TrainerError("; ".join(_explain(problem, (section,)) for problem in error.errors())) from error


def _explain(problem: Any, inside: tuple[str, ...] = ()) -> str:
    field = ".".join(str(part) for part in (*inside, *problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return unknown(field)
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {message}, got {problem['input']!r}" if field else message


def unknown(field: str) -> str:
    known = known_fields()
    inside = [name for name in known if name.startswith(f"{field}.")]
    if inside:
        return f"{field} is a section; set its fields one by one: {', '.join(inside)}"
    close = difflib.get_close_matches(field, known, n=1)
    return f"unknown field {field}" + (f" (did you mean {close[0]}?)" if close else f"; there are: {', '.join(known)}")


def known_fields() -> list[str]:
    """Every `section.field` that --set takes."""
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
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def differences(ours: Config, theirs: Config) -> list[str]:
    """`section.field: ours → theirs` for each field that differs."""
    a, b = ours.model_dump(mode="json"), theirs.model_dump(mode="json")
    found = []
    for field in known_fields():
        section, _, name = field.partition(".")
        left, right = (a[section][name], b[section][name]) if name else (a[section], b[section])
        if left != right:
            found.append(f"{field}: {left} → {right}")
    return found
