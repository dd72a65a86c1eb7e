"""Which fields of a config must agree with which, and what is wrong with those that do not.

Each check raises ValueError with one line that names the fields and what to set instead. An architecture whose rules
are not here has them in its own file, as `check`: asking it loads torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.config import registry

if TYPE_CHECKING:
    from trainer.config.schema import Config, Model, Objective

CRITICS = ("wasserstein",)
PROBABILISTIC = ("non-saturating", "minimax")
CONVOLUTIONAL = ("dcgan", "sndcgan", "resnet")


def check_agreement(config: Config) -> None:
    """All of them."""
    _check_architecture(config.model, config.data.resolution)
    _check_objective(config.objective, config.model)
    _check_schedule(config)
    names = config.data.class_names
    if len(set(names)) != len(names):
        raise ValueError("data.class_names holds a name twice")
    if len(set(config.data.augment)) != len(config.data.augment):
        raise ValueError("data.augment names a policy twice; each is applied once")
    if config.data.noise_kimg is not None and not config.data.noise_std:
        raise ValueError("data.noise_kimg is how long data.noise_std lasts, and that is 0; set both")


def base_side(resolution: int) -> int:
    """Side of a convolutional generator's first feature map: 7 where it divides the resolution, else 4."""
    return 7 if resolution % 7 == 0 else 4


def doublings(resolution: int) -> int:
    """How often a generator doubles from its first feature map. ValueError: it cannot reach the resolution."""
    base = base_side(resolution)
    count = (resolution // base).bit_length() - 1
    if base << count != resolution or count < 1:
        raise ValueError(
            f"a convolutional generator cannot make {resolution} px: it doubles from 4 or 7, so use 8, 14, 16, 28, 32, "
            "56, 64, 112 or 128"
        )
    return count


def _check_architecture(model: Model, resolution: int) -> None:
    if model.architecture == "mlp":
        if not (model.g_widths and model.d_widths):
            raise ValueError("an mlp needs at least one width in model.g_widths and in model.d_widths")
        if model.conditional:
            raise ValueError("model.conditional needs BatchNorm to act on: model.architecture=dcgan, sndcgan or resnet")
    elif model.architecture in CONVOLUTIONAL:
        _check_widths(model, resolution)
    elif check := getattr(registry.architecture(model.architecture), "check", None):
        check(model, resolution)
    if model.d_halvings is not None and model.architecture != "resnet":
        raise ValueError(f"model.d_halvings is of a resnet's D; leave it out with {model.architecture}")


def _check_widths(model: Model, resolution: int) -> None:
    needed, given = doublings(resolution), len(model.g_widths)
    if model.architecture == "resnet":
        if given != needed + 1:
            raise ValueError(
                f"at {resolution} px a resnet's model.g_widths needs {needed + 1} widths "
                f"(the first map and {needed} blocks that double), not {given}"
            )
    elif given not in (needed, needed + 1):
        raise ValueError(
            f"at {resolution} px model.g_widths needs {needed} widths (the last layer doubles) "
            f"or {needed + 1} (a 3x3 layer ends it), not {given}"
        )
    halvings, fit = len(model.d_widths), resolution.bit_length() - 1
    if model.architecture != "dcgan":
        halvings -= 1
    if model.d_halvings is not None:
        if model.d_halvings > len(model.d_widths):
            raise ValueError(
                f"model.d_halvings={model.d_halvings}, but model.d_widths has {len(model.d_widths)} blocks"
            )
        halvings = model.d_halvings
    if not model.d_widths or halvings > fit:
        raise ValueError(
            f"model.d_widths has {len(model.d_widths)} entries, which halve {resolution} px {max(halvings, 0)} times; "
            f"1 to {fit} times fit"
        )


def _check_objective(objective: Objective, model: Model) -> None:
    name, penalty = objective.name, objective.gradient_penalty
    smoothed = objective.real_label != 1.0 or objective.fake_label != 0.0
    if smoothed and name not in (*PROBABILISTIC, "lsgan"):
        raise ValueError(f"objective.real_label and fake_label smooth D's targets; {name} scores have none")
    if name == "wasserstein":
        bounds = (objective.clip is not None) + (penalty != "none") + model.d_spectral_norm
        if not bounds:
            raise ValueError(
                "the wasserstein objective needs a bounded critic: objective.clip=0.01, "
                "objective.gradient_penalty=wgan-gp or model.d_spectral_norm=true"
            )
        if objective.clip is not None and bounds > 1:
            raise ValueError("objective.clip bounds a critic already; leave out the gradient penalty or spectral norm")
        if objective.clip is not None and objective.r1_gamma:
            raise ValueError(
                "objective.r1_gamma is for an unbounded discriminator; clipping bounds this critic already"
            )
    elif objective.clip is not None:
        raise ValueError(f"objective.clip belongs to the wasserstein objective, not to {name}")
    if penalty == "wgan-gp" and model.d_norm == "batch" and model.architecture in ("dcgan", "sndcgan"):
        raise ValueError(
            "wgan-gp bounds D's gradient image by image, and BatchNorm mixes the images: set model.d_norm=layer or none"
        )


def _check_schedule(config: Config) -> None:
    if config.optim.decay_kimg is None:
        return
    start, end = config.optim.decay_kimg
    if start >= end:
        raise ValueError(f"optim.decay_kimg falls from its first number to its second, not from {start:g} to {end:g}")
    if end < config.run.total_kimg:
        raise ValueError(
            f"optim.decay_kimg ends at {end:g}, before run.total_kimg={config.run.total_kimg:g}: "
            "nothing would be learned in between; raise it or shorten the run"
        )
