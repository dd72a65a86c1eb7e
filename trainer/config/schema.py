"""The configuration of a run: sections of bounded fields, and the rules that fields must satisfy together.

`loading.py` makes a Config of a preset and overrides. A Config is what `--dry-run` prints, `config.json` holds and a
checkpoint carries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from artifacts.images.resolution import Resolution, height_and_width
from artifacts.plugins import is_plugin
from trainer.config.image_shape import check_resolution
from trainer.config.image_shape import initial_resolution as initial_resolution  # for users' networks
from trainer.config.image_shape import num_upsamples as num_upsamples
from trainer.run_names import NAME_PATTERN

# What trainer.networks and trainer.training.losses define. An object from a user module is named "module:NAME".
ARCHITECTURES = ("mlp", "dcgan", "sndcgan", "resnet", "fastgan")
OBJECTIVES = ("non-saturating", "minimax", "lsgan", "hinge", "wasserstein", "relativistic")
SMOOTHABLE = ("non-saturating", "minimax", "lsgan")  # objectives whose targets for D can be smoothed
UNCENTERED = ("wasserstein",)  # objectives without a score of an undecided D
# What trainer.augmentation.policies defines. Those of LEAKING show in G's images if they are always applied.
Augmentation = Literal["flip", "rotate90", "scale", "color", "brightness", "contrast", "translation", "cutout"]
LEAKING = ("flip", "rotate90")
MAX_P = 0.8  # of adaptive augmentation; see trainer.augmentation.adaptive
TRACKERS = ("tensorboard", "trackio", "mlflow", "wandb")  # one module of trainer.trackers each
RENAMED_FIELDS = {"model.d_halvings": "model.d_downsamples"}  # old → new; the old name is still accepted

Width = Annotated[int, Field(ge=1, le=8192)]
Kimg = Annotated[float, Field(ge=0, le=10_000_000)]
Beta = Annotated[float, Field(ge=0, lt=1)]


def _one_of(names: tuple[str, ...]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names and not is_plugin(name):
            raise ValueError(f"Input should be {', '.join(map(repr, names))} or 'module:NAME' of your own")
        return name

    return AfterValidator(check)


class Section(BaseModel):
    """A group of fields: immutable, and without unknown fields or infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _reject_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and "bool" not in str(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("Input should not be true or false")
        return value


class Data(Section):
    """Which images, at which size."""

    source: str = Field("digits", description="SOURCE or SOURCE@SPLIT: digits, mnist, cifar10, folder:PATH, …")
    resolution: Annotated[Resolution, BeforeValidator(check_resolution)] = Field(
        32,
        description="side in pixels, 4 to 256, or HEIGHTxWIDTH, to which images are cropped: 64x96",
    )
    channels: Literal[1, 3, 4] = Field(
        1, description="1 gray, 3 RGB, 4 RGBA (keeps transparency); default: 1 or 3, those of the images"
    )
    scale_jpegs: bool = Field(
        False, description="decode large JPEGs at 1/2 to 1/8 of their size: faster, pixels differ by about 1 of 255"
    )
    flip: bool = Field(False, description="mirror each real image left to right with probability 0.5")
    max_images: int | None = Field(
        None, ge=2, description="train on a fixed random choice of so many images, equally many per class; default: all"
    )
    augment: tuple[Augmentation, ...] = Field(
        (),
        description=f"augmentations of all images that D sees, for small datasets: {', '.join(get_args(Augmentation))}",
    )
    augment_p: float | None = Field(
        None,
        ge=0,
        le=1,
        description="probability of each policy, per image; default: 1; with ada_target at first 0, or the parent's",
    )
    ada_target: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="adaptive augmentation: mean sign of D on real images at which p stays; 0.6 is usual",
    )
    ada_kimg: float = Field(
        100, gt=0, le=10_000_000, description="kimg in which adaptive augmentation's p can rise by 1"
    )
    noise_std: float = Field(
        0, ge=0, le=10, description="standard deviation of Gaussian noise on all images that D sees; 0: off"
    )
    noise_kimg: float | None = Field(
        None, gt=0, le=10_000_000, description="kimg over which the noise decreases linearly to 0; default: constant"
    )
    class_names: tuple[str, ...] = Field((), description="names of the labels; default: those of the dataset")

    @property
    def height(self) -> int:
        """Height of the images in pixels."""
        return height_and_width(self.resolution)[0]

    @property
    def width(self) -> int:
        """Width of the images in pixels."""
        return height_and_width(self.resolution)[1]


class Model(Section):
    """The two networks; see networks/ for the layers these numbers make."""

    architecture: Annotated[str, _one_of(ARCHITECTURES)] = Field(
        "dcgan", description=f"{', '.join(ARCHITECTURES)}, or your own: module:NAME"
    )
    z_dim: int = Field(100, ge=1, le=4096, description="width of a latent")
    z_distribution: Literal["normal", "uniform"] = Field("normal", description="N(0, 1) or U(-1, 1)")
    g_widths: tuple[Width, ...] = Field((256, 128, 64), description="channels (units) of G's hidden layers")
    d_widths: tuple[Width, ...] = Field((64, 128, 256), description="channels (units) of D's hidden layers")
    d_norm: Literal["batch", "layer", "none"] = Field(
        "batch", description="normalization after D's convolutions (dcgan, sndcgan, fastgan)"
    )
    d_spectral_norm: bool = Field(False, description="spectral normalization of every weight of D")
    d_minibatch_std: bool = Field(False, description="show D how much the images of a batch differ (not in an mlp)")
    d_downsamples: int | None = Field(
        None, ge=0, le=16, description="how many of a resnet D's blocks halve the resolution; default: all but the last"
    )
    bias: Literal["all", "unnormalized", "none"] = Field(
        "unnormalized", description="layers with a bias: all, those without a BatchNorm after them, none"
    )
    init: Literal["normal", "xavier", "orthogonal", "default"] = Field(
        "normal", description="N(0, init_std), Glorot's uniform, orthogonal, or PyTorch's own"
    )
    init_std: float = Field(0.02, gt=0, le=1, description="standard deviation of init=normal")
    conditional: bool = Field(False, description="condition on the class: BatchNorm in G, projection in D")

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and "d_halvings" in fields and "d_downsamples" not in fields:
            return {"d_downsamples" if name == "d_halvings" else name: value for name, value in fields.items()}
        return fields


class Objective(Section):
    """What D and G minimize; the formulas are in training/losses.py."""

    name: Annotated[str, _one_of(OBJECTIVES)] = Field(
        "non-saturating", description=f"{', '.join(OBJECTIVES)}, or your own: module:NAME"
    )
    real_label: float = Field(1.0, gt=0.5, le=1, description="D's target for real images; 0.9 smooths it one-sidedly")
    fake_label: float = Field(0.0, ge=0, lt=0.5, description="D's target for fakes; 0.1 with 0.9 smooths both sides")
    g_label: float = Field(1.0, gt=0.5, le=1, description="G's target for fakes; 0.9 smooths it (non-saturating only)")
    clip: float | None = Field(None, gt=0, le=10, description="bound on the critic's weights after each step")
    gradient_penalty: Literal["none", "wgan-gp", "dragan"] = Field(
        "none", description="on D's gradient between reals and fakes (wgan-gp), or around the reals (dragan)"
    )
    gp_weight: float = Field(10.0, gt=0, le=1e6, description="weight λ of gradient_penalty")
    r1_gamma: float = Field(0, ge=0, le=1e6, description="weight γ of the R1 penalty on reals; 0: off")
    r2_gamma: float = Field(0, ge=0, le=1e6, description="weight γ of the R2 penalty on fakes; 0: off")
    r1_interval: int = Field(
        4, ge=1, le=1000, description="steps between two R1 and R2 penalties; each is weighted by it"
    )
    reconstruction_weight: float = Field(
        1.0, ge=0, le=1e6, description="weight of the loss that makes D reconstruct reals, if it can (fastgan); 0: off"
    )
    penalty_method: Literal["exact", "finite-differences"] = Field(
        "exact", description="R1 and R2 by a second backward, or estimated from D's difference at noisy images"
    )


class Optim(Section):
    """Optimizers, and how often each network is updated."""

    algorithm: Literal["adam", "rmsprop"] = Field("adam", description="optimizer of both networks")
    g_lr: float = Field(2e-4, gt=0, le=1, description="learning rate of G")
    d_lr: float = Field(2e-4, gt=0, le=1, description="learning rate of D")
    betas: tuple[Beta, Beta] = Field((0.5, 0.999), description="Adam's β1 and β2")
    decay_kimg: tuple[Kimg, Kimg] | None = Field(
        None, description="[from, to]: both learning rates fall to 0 between these"
    )
    schedule: Literal["linear", "cosine"] = Field("linear", description="shape of the fall between decay_kimg")
    clip_grad_norm: float | None = Field(None, gt=0, le=1e6, description="bound on the norm of each network's gradient")
    batch_size: int = Field(64, ge=2, le=65536, description="images per batch, over all processes")
    n_critic: int = Field(1, ge=1, le=100, description="D steps per round")
    g_steps: int = Field(1, ge=1, le=100, description="G steps per round")
    reuse_fakes: bool = Field(True, description="G's first step uses the last D step's fakes; false: new ones, slower")
    d_freeze: int = Field(
        0, ge=0, le=64, description="blocks of D, from the image on, whose weights stay the parent's (fine-tuning)"
    )


class Ema(Section):
    """The EMA generator (exponential moving average of G's weights), which is sampled and exported."""

    halflife_kimg: float = Field(2.0, ge=0, le=100_000, description="half-life of the average; 0: G_ema is G itself")
    warmup: float = Field(0.05, ge=0, le=1, description="the half-life is at most this share of the images seen")


class RunSection(Section):
    """How long, on which device, and how often to measure and save."""

    total_kimg: float = Field(100.0, gt=0, le=10_000_000, description="thousands of real images shown to D")
    tick_kimg: float = Field(10.0, gt=0, le=10_000_000, description="kimg per tick: metrics and a sample grid")
    checkpoint_ticks: int = Field(1, ge=1, le=1_000_000, description="ticks between two checkpoints")
    keep_checkpoints: int = Field(3, ge=1, le=1000, description="latest checkpoints to keep, in addition to the best")
    quality_ticks: int = Field(5, ge=0, le=100_000, description="ticks between two quality measurements; 0: off")
    quality_images: int = Field(2000, ge=10, le=50_000, description="images per quality measurement")
    patience_ticks: int = Field(
        0, ge=0, le=1_000_000, description="end the run after so many ticks without a better quality/frechet; 0: never"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of weights, batches and training latents")
    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="auto: the fastest device available")
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the hardware supports it")
    cuda_graphs: Literal["auto"] | bool = Field(
        "auto", description="replay steps as CUDA graphs; auto: where possible (one GPU, no data.noise_kimg)"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; default: PyTorch's choice, recorded")
    track: tuple[str, ...] = Field(
        ("tensorboard",), description=f"where metrics and images go too: {', '.join(TRACKERS)}; none: nowhere"
    )

    @field_validator("track", mode="before")
    @classmethod
    def _parse_trackers(cls, value: Any) -> Any:
        """Accept `a,b` and `none` next to lists, and check the names."""
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"Input should be a list of {', '.join(TRACKERS)}, or none")
        names = [name.strip() for name in names]
        if names == ["none"]:
            return ()
        for number, name in enumerate(names):
            if name == "none":
                raise ValueError("none means no tracker; leave it out to use the others")
            if name not in TRACKERS:
                raise ValueError(f"Input should be {', '.join(TRACKERS)} or none")
            if name in names[:number]:
                raise ValueError(f"{name} is listed twice")
        return tuple(names)


class Config(Section):
    """The whole configuration of a run."""

    name: str = Field(pattern=f"^{NAME_PATTERN}$", description="name of the run, its generator file and served model")
    data: Data = Data()
    model: Model = Model()
    objective: Objective = Objective()
    optim: Optim = Optim()
    ema: Ema = Ema()
    run: RunSection = RunSection()

    @model_validator(mode="after")
    def _check_fields_agree(self) -> Config:
        _check_data(self.data)
        _check_augmentation(self.data, self.objective)
        _check_architecture(self.model, self.data.resolution)
        _check_objective(self.objective, self.model)
        _check_schedule(self.optim, self.run)
        _check_patience(self.run)
        if self.model.d_minibatch_std and self.optim.batch_size % 4:
            raise ValueError("model.d_minibatch_std compares four images: make optim.batch_size a multiple of 4")
        return self

    @property
    def num_classes(self) -> int:
        """Number of classes that G and D are conditioned on; 0 for an unconditional model."""
        return len(self.data.class_names) if self.model.conditional else 0

    def plugins(self) -> Iterator[tuple[str, str]]:
        """Yield the field and the name of each object from a user module."""
        names = {"model.architecture": self.model.architecture, "objective.name": self.objective.name}
        for field, name in (names | {"data.source": self.data.source}).items():
            if is_plugin(name.partition("@")[0]):
                yield field, name


# The rules raise ValueError with one line that names the fields and what to set instead.


def _check_data(data: Data) -> None:
    if len(set(data.class_names)) != len(data.class_names):
        raise ValueError("data.class_names lists a name twice")
    if data.noise_kimg is not None and not data.noise_std:
        raise ValueError("data.noise_kimg has no effect while data.noise_std is 0; set both")


def _check_augmentation(data: Data, objective: Objective) -> None:
    if len(set(data.augment)) != len(data.augment):
        raise ValueError("data.augment lists a policy twice; list each once")
    if not data.augment and (data.ada_target is not None or data.augment_p is not None):
        field = "augment_p" if data.ada_target is None else "ada_target"
        raise ValueError(
            f"data.{field} has no effect without policies; set data.augment, such as "
            "[flip,rotate90,scale,brightness,contrast,translation,cutout]"
        )
    if data.ada_target is None:
        if data.ada_kimg != Data.model_fields["ada_kimg"].default:
            raise ValueError("data.ada_kimg has no effect without data.ada_target; set both")
        p = 1.0 if data.augment_p is None else data.augment_p
        if p > MAX_P and (leaking := [name for name in LEAKING if name in data.augment]):
            raise ValueError(
                f"{' and '.join(leaking)} would show in G's images if always applied: set data.ada_target=0.6, or a "
                f"constant data.augment_p of at most {MAX_P:g}"
            )
        return
    if data.augment_p is not None and data.augment_p > MAX_P:
        raise ValueError(f"with data.ada_target, data.augment_p is where p starts, at most {MAX_P:g}")
    if objective.name in UNCENTERED:
        raise ValueError(
            f"data.ada_target reads the sign of D, and a {objective.name} critic's scores have no zero: "
            f"set a constant data.augment_p, at most {MAX_P:g}"
        )


def _check_architecture(model: Model, resolution: Resolution) -> None:
    if is_plugin(model.architecture):
        return  # its own rules are checked when the networks are built
    if model.d_downsamples is not None and model.architecture != "resnet":
        raise ValueError(f"model.d_downsamples applies to a resnet's D; leave it out with {model.architecture}")
    if model.architecture != "mlp":
        _check_widths(model, resolution)
        return
    if not (model.g_widths and model.d_widths):
        raise ValueError("an mlp needs at least one width in model.g_widths and in model.d_widths")
    if model.d_minibatch_std:
        raise ValueError(
            "model.d_minibatch_std adds a feature map: model.architecture=dcgan, sndcgan, resnet or fastgan"
        )
    if model.conditional:
        raise ValueError(
            "model.conditional needs BatchNorm to act on: model.architecture=dcgan, sndcgan, resnet or fastgan"
        )


def _check_widths(model: Model, resolution: Resolution) -> None:
    needed, given = num_upsamples(resolution), len(model.g_widths)
    if model.architecture in ("resnet", "fastgan"):
        if given != needed + 1:
            raise ValueError(
                f"at {resolution} px a {model.architecture}'s model.g_widths needs {needed + 1} widths "
                f"(the first map and {needed} blocks that double), not {given}"
            )
    elif given not in (needed, needed + 1):
        raise ValueError(
            f"at {resolution} px model.g_widths needs {needed} widths (the last layer doubles) "
            f"or {needed + 1} (a 3x3 layer ends it), not {given}"
        )
    if model.architecture == "fastgan":
        if not 2 <= len(model.d_widths) <= needed:
            fit = f"2 to {needed} fit" if needed > 2 else "2 fit" if needed == 2 else "use 16 px or more"
            raise ValueError(f"model.d_widths halves {resolution} px {len(model.d_widths)} times in a fastgan; {fit}")
        return
    blocks, most = len(model.d_widths), min(height_and_width(resolution)).bit_length() - 1
    downsamples = blocks if model.architecture == "dcgan" else blocks - 1
    if model.d_downsamples is not None:
        if model.d_downsamples > blocks:
            raise ValueError(f"model.d_downsamples={model.d_downsamples}, but model.d_widths has {blocks} blocks")
        downsamples = model.d_downsamples
    if not blocks or downsamples > most:
        raise ValueError(
            f"model.d_widths has {blocks} entries, which halve {resolution} px {max(downsamples, 0)} times; "
            f"1 to {most} times fit"
        )


def _check_objective(objective: Objective, model: Model) -> None:
    if objective.penalty_method != "exact" and not (objective.r1_gamma or objective.r2_gamma):
        raise ValueError("objective.penalty_method has no effect without objective.r1_gamma or r2_gamma; set one")
    if not is_plugin(objective.name):
        _check_loss(objective, model)
    if (
        objective.gradient_penalty == "wgan-gp"
        and model.d_norm == "batch"
        and model.architecture in ("dcgan", "sndcgan", "fastgan")
    ):
        raise ValueError(
            "wgan-gp bounds D's gradient per image, and BatchNorm mixes the images: set model.d_norm=layer or none"
        )


def _check_loss(objective: Objective, model: Model) -> None:
    name = objective.name
    if (objective.real_label != 1.0 or objective.fake_label != 0.0) and name not in SMOOTHABLE:
        raise ValueError(
            f"objective.real_label and fake_label smooth D's targets; {name} scores have none: set "
            "objective.real_label=1 and objective.fake_label=0"
        )
    if objective.g_label != 1.0 and name != "non-saturating":
        raise ValueError(f"objective.g_label smooths G's target with non-saturating only, not with {name}")
    if name != "wasserstein":
        if objective.clip is not None:
            raise ValueError(f"objective.clip belongs to the wasserstein objective, not to {name}")
        return
    bounds = (objective.clip is not None) + (objective.gradient_penalty != "none") + model.d_spectral_norm
    if not bounds:
        raise ValueError(
            "the wasserstein objective needs a bounded critic: objective.clip=0.01, "
            "objective.gradient_penalty=wgan-gp or model.d_spectral_norm=true"
        )
    if objective.clip is not None and bounds > 1:
        raise ValueError("objective.clip bounds a critic already; leave out the gradient penalty or spectral norm")
    if objective.clip is not None and (objective.r1_gamma or objective.r2_gamma):
        which = "r1_gamma" if objective.r1_gamma else "r2_gamma"
        raise ValueError(f"objective.{which} is for an unbounded discriminator; clipping bounds this critic already")


def _check_schedule(optim: Optim, run: RunSection) -> None:
    if optim.decay_kimg is None:
        if optim.schedule != "linear":
            raise ValueError("optim.schedule has no effect without optim.decay_kimg; set both")
        return
    start, end = optim.decay_kimg
    if start >= end:
        raise ValueError(f"optim.decay_kimg is [from, to] with from below to, not [{start:g}, {end:g}]")
    if end < run.total_kimg:
        raise ValueError(
            f"optim.decay_kimg ends at {end:g}, before run.total_kimg={run.total_kimg:g}: "
            "nothing would be learned in between; raise it or shorten the run"
        )


def _check_patience(run: RunSection) -> None:
    if not run.patience_ticks:
        return
    if not run.quality_ticks:
        raise ValueError("run.patience_ticks needs a measure of quality: set run.quality_ticks too (0 is off)")
    if run.patience_ticks < run.quality_ticks:
        raise ValueError(
            f"run.patience_ticks={run.patience_ticks} is below run.quality_ticks={run.quality_ticks}, the ticks "
            f"between two measurements; set it to {run.quality_ticks} or more"
        )
