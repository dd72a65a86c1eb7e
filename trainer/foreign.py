"""Generators that others trained: a state dict of theirs becomes one of ours, and so a generator file.

Names differ from code to code; the layers of a DCGAN or an MLP and their order do not. So the config is read off the
shapes, and each tensor goes where ours of the same place in the order is.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifacts.git_lfs import HINT, is_lfs_pointer_file
from trainer import checkpoint, networks
from trainer import config as configuration
from trainer.agreement import base_side
from trainer.errors import TrainerError

ARCHITECTURES = ("dcgan", "mlp")
# where others keep a generator's weights in a checkpoint of several networks
WRAPPERS = (
    "generator",
    "generator_state_dict",
    "netG",
    "netG_state_dict",
    "G",
    "gen",
    "state_dict",
    "model_state_dict",
)

Weights = dict[str, Tensor]


def payload(
    path: Path,
    architecture: str,
    *,
    name: str,
    dataset: str = "unknown",
    z_distribution: str = "normal",
    images_seen: int = 0,
) -> dict[str, Any]:
    """What `export` needs of a checkpoint, made of a foreign generator's state dict, whose output a tanh is to follow.

    Raises TrainerError when the file cannot be read without running code, or a tensor's shape does not fit, named.
    """
    theirs = read(path)
    shape = _dcgan if architecture == "dcgan" else _mlp
    config = configuration.parse(
        {
            "name": name,
            "ema": {"halflife_kimg": 0},
            **shape(theirs, path.name),
        }
    )
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update={"source": dataset}),
            "model": config.model.model_copy(update={"z_distribution": z_distribution}),
        }
    )
    return {
        "config": config.model_dump(mode="json"),
        "G_ema": matched(theirs, networks.build(config)[0].state_dict(), path.name),
        "counters": {"images_seen": images_seen},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(path.stat().st_mtime)),
        "imported": f"{path.name}, sha256 {checkpoint.sha256(path)}",
    }


def read(path: Path) -> Weights:
    """The floating-point tensors of a state dict, in its order, `module.` of DataParallel dropped."""
    if not path.is_file():
        raise TrainerError(f"no checkpoint at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of foreign bytes the unpickler raises nearly anything: struct.error, IndexError, …
        if is_lfs_pointer_file(path):
            raise TrainerError(f"{path} is {HINT}") from error
        reason = str(error).strip().split("\n")[0][:120] or type(error).__name__
        raise TrainerError(
            f"{path} is not a state dict ({reason}); save one with torch.save(netG.state_dict(), …): "
            "a whole pickled module would run its code here"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        keys = ", ".join(map(str, content))[:200] if isinstance(content, Mapping) else type(content).__name__
        raise TrainerError(f"{path} holds no generator's state dict; it holds {keys}")
    found = {str(key).removeprefix("module."): value for key, value in content.items() if value.is_floating_point()}
    if not found:
        raise TrainerError(f"{path} holds no weights")
    if broken := [key for key, value in found.items() if not value.isfinite().all()]:
        raise TrainerError(f"{path} is of a training that diverged: {broken[0]} holds NaN or infinite values")
    return {key: value.detach().float() for key, value in found.items()}


def _dcgan(theirs: Weights, file: str) -> dict[str, Any]:
    """The sections of a config with a DCGAN generator of these shapes: [z, w, k, k], then [in, out, 4 or 3, …] each."""
    layers = [(key, tuple(value.shape)) for key, value in theirs.items() if value.dim() == 4]
    if len(layers) < 2:
        raise TrainerError(f"{file} has {len(layers)} transposed convolutions; a dcgan has two or more")
    for (before, shape), (key, following) in itertools.pairwise(layers):
        if shape[1] != following[0]:
            raise TrainerError(
                f"{key} is {following}, but {before} gives {shape[1]} channels: not a chain of transposed convolutions"
            )
    for key, shape in layers[1:]:
        if shape[2:] not in ((4, 4), (3, 3)):
            raise TrainerError(f"{key} is {shape}; a dcgan's layers after the first are 4x4 (doubling) or a last 3x3")
    (_, (z_dim, _, base, _)), (last, (_, channels, _, _)) = layers[0], layers[-1]
    if any(shape[2] == 3 for _, shape in layers[1:-1]):
        raise TrainerError(f"{file} has a 3x3 layer before its last; a dcgan ends with it or has none")
    resolution = base << sum(shape[2] == 4 for _, shape in layers[1:])
    if base_side(resolution) != base:
        raise TrainerError(f"{layers[0][0]} makes a first map of {base}x{base}; ours begin with 4x4 or 7x7")
    if channels not in (1, 3):
        raise TrainerError(f"{last} gives {channels} channels; an image has 1 or 3")
    widths = [shape[1] for _, shape in layers[:-1]]
    biased = [f"{key.removesuffix('weight')}bias" in theirs for key, _ in layers]
    bias = "all" if all(biased) else "unnormalized" if biased[-1] else "none"
    return {
        "data": {"resolution": resolution, "channels": channels},
        "model": {
            "architecture": "dcgan",
            "z_dim": z_dim,
            "g_widths": widths,
            "d_widths": widths[::-1][: resolution.bit_length() - 1],
            "bias": bias,
        },
    }


def _mlp(theirs: Weights, file: str) -> dict[str, Any]:
    """The sections of a config with a fully connected generator of these shapes: [out, in] each."""
    shapes = [tuple(value.shape) for value in theirs.values() if value.dim() == 2]
    if len(shapes) < 2:
        raise TrainerError(f"{file} has {len(shapes)} linear layers; an mlp has two or more")
    values = shapes[-1][0]
    for channels in (1, 3):
        resolution = round((values / channels) ** 0.5)
        if channels * resolution**2 == values:
            break
    else:
        raise TrainerError(f"the last layer gives {values} values, which no square image of 1 or 3 channels has")
    return {
        "data": {"resolution": resolution, "channels": channels},
        "model": {
            "architecture": "mlp",
            "z_dim": shapes[0][1],
            "g_widths": [out for out, _ in shapes[:-1]],
            "d_widths": [out for out, _ in shapes[:-1]][::-1],
            "bias": "all" if any(value.dim() == 1 for value in theirs.values()) else "none",
        },
    }


def matched(theirs: Weights, ours: Mapping[str, Tensor], file: str) -> Weights:
    """Their tensors under our names, by place in the order. Raises TrainerError naming the first that does not fit."""
    wanted = {key: value for key, value in ours.items() if value.is_floating_point()}
    pairs = list(zip(theirs.items(), wanted.items(), strict=False))
    for (key, value), (name, place) in pairs:
        if value.shape != place.shape:
            raise TrainerError(
                f"{file} does not fit: {key} is {tuple(value.shape)}, where this architecture has {name} of "
                f"{tuple(place.shape)}"
            )
    if len(theirs) != len(wanted):
        extra, what = (list(theirs), "is left over") if len(theirs) > len(wanted) else (list(wanted), "is missing")
        raise TrainerError(
            f"{file} does not fit: {extra[len(pairs)]} {what} (and {abs(len(theirs) - len(wanted)) - 1} more)"
        )
    counters = {key: torch.zeros_like(value) for key, value in ours.items() if not value.is_floating_point()}
    return {name: value for (_, value), (name, _) in pairs} | counters
