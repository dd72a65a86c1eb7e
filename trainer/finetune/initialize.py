"""Starts a run from its parent: what is checked before anything is written, and the networks' first weights."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from trainer import networks
from trainer.config.loading import flatten
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.finetune.matching import Match, Shape, load, match
from trainer.finetune.parent import Parent
from trainer.finetune.record import GENERATOR, describe
from trainer.networks import Discriminator, Generator
from trainer.networks.freezing import freeze_blocks
from trainer.training.state import TrainState

# The model fields that decide what fits of G and of D. `conditional` does not: its BatchNorm and projection adapt
DECISIVE = {
    "G": ("architecture", "z_dim", "g_widths", "bias"),
    "D": ("architecture", "d_widths", "d_norm", "d_downsamples", "d_minibatch_std", "d_spectral_norm", "bias"),
}


def check_freezing(config: Config) -> None:
    """Raise TrainerError if a run without a parent would keep random weights."""
    if config.optim.d_freeze:
        raise TrainerError(
            f"optim.d_freeze={config.optim.d_freeze} (--freeze-d) keeps weights of a parent; add --init-from RUN, or "
            "set it to 0"
        )


def preview(parent: Parent, config: Config) -> list[str]:
    """Return what a run of this config would take from its parent, before its images are loaded.

    Args:
        parent: The parent.
        config: A config with its channels. Where its classes are not known yet, those of the parent take their place.

    Raises:
        TrainerError: As `initialize` does.
    """
    lines = []
    if config.model.conditional and not config.data.class_names:
        names = Shape.of(parent.config).classes or ("0", "1")
        config = config.model_copy(update={"data": config.data.model_copy(update={"class_names": names})})
        lines = ["note: the classes are known once the images are loaded; they are listed as if they were the parent's"]
    G, D = networks.build(config)
    frozen = freeze_blocks(D, config.optim.d_freeze)
    return [*_describe(parent, config, _match_both(parent, config, G, D, frozen), frozen), *lines]


def initialize(state: TrainState, parent: Parent) -> list[str]:
    """Write the parent's weights into the networks of a state at step 0, and record the parent in it.

    G and its average both start from the parent's averaged generator. Adaptive augmentation starts with the p at which
    the parent's ended, unless the config has one: its D starts as sure of its images. Optimizers and counters stay new.

    Returns:
        Lines for the user: what was copied, adapted, left new, not used and frozen.

    Raises:
        TrainerError: If nothing of G, or of D, fits, or weights that the parent does not have would be frozen.
    """
    frozen = [name for name, weight in state.D.named_parameters() if not weight.requires_grad]
    matches = _match_both(parent, state.config, state.G, state.D, frozen)
    for network, found in ((state.G, matches[0]), (state.G_ema, matches[0]), (state.D, matches[1])):
        if found is not None:
            load(network, found)
    p = _first_p(parent, state.config)
    if p is not None and state.adaptive is not None:
        state.adaptive.p.fill_(p)
    state.parent = parent.record
    return _describe(parent, state.config, matches, frozen)


def _match_both(
    parent: Parent, config: Config, G: Generator, D: Discriminator, frozen: list[str]
) -> tuple[Match, Match | None]:
    ours, theirs = Shape.of(config), Shape.of(parent.config)
    of_g = match(G, parent.G, ours, theirs)
    of_d = None if parent.D is None else match(D, parent.D, ours, theirs)
    for found in (of_g, of_d):
        if found is not None and not found.fits:
            raise TrainerError(_misfit(parent, config, found.which))
    if frozen and of_d is None:
        raise TrainerError(
            f"--freeze-d keeps weights of the parent's D, and {parent.path.name} has none; use its run or a checkpoint"
        )
    if of_d is not None and (new := [name for name in frozen if name in of_d.new]):
        raise TrainerError(f"--freeze-d would keep random weights: D's {new[0]} is new: {of_d.new[new[0]]}")
    return of_g, of_d


def _first_p(parent: Parent, config: Config) -> float | None:
    """Return the p with which adaptive augmentation starts; None where the parent does not decide it."""
    return parent.augment_p if config.data.ada_target is not None and config.data.augment_p is None else None


def _describe(parent: Parent, config: Config, matches: tuple[Match, Match | None], frozen: list[str]) -> list[str]:
    lines = [*parent.notes, f"starts from {describe(parent.record)}"]
    for found in matches:
        lines += found.lines() if found is not None else []
    if parent.record["kind"] == GENERATOR:
        lines.append("D: all of it is new: a generator file has none")
    if frozen:
        lines.append(f"D: frozen: {', '.join(frozen)}")
    if p := _first_p(parent, config):
        lines.append(f"adaptive augmentation starts at p = {p:.2g}, where the parent's ended")
    return lines


def _misfit(parent: Parent, config: Config, which: str) -> str:
    """Return one line: that nothing fits, what differs, and what to set."""
    ours, theirs = flatten(config), flatten(parent.config)

    def differing(fields: Iterable[str]) -> list[str]:
        return [field for field in fields if ours[field] != theirs[field]]

    of_this = differing(f"model.{field}" for field in DECISIVE[which]) or differing(
        ["data.resolution", "data.channels"]
    )
    of_both = dict.fromkeys([*of_this, *differing(f"model.{field}" for names in DECISIVE.values() for field in names)])
    shown = "; ".join(f"{field}: {_text(theirs[field])} → {_text(ours[field])}" for field in of_this)
    settings = " ".join(f"--set {shlex.quote(f'{field}={_text(theirs[field])}')}" for field in of_both)
    hint = f" ({shown}); to keep its networks: {settings}" if of_this else ", whose architecture has other layers"
    return f"nothing of {which} fits that of {parent.record['name']}{hint}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
