"""Imports the state dict of a generator that other code trained, for its export as a generator file.

Names differ between codebases, but the layers of a DCGAN or an MLP and their order do not. So the config follows from
the shapes, and each tensor takes the place of ours with the same position in the order.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifacts.images.resolution import height_and_width, resolution_of
from trainer import networks
from trainer.config import loading
from trainer.config.image_shape import first_map
from trainer.errors import TrainerError
from trainer.networks.imported_activations import LEAKY_RELU, LEAKY_SLOPE, Layers
from trainer.onnx_export import state_dict_file
from trainer.onnx_export.state_dict_file import Weights
from trainer.training import checkpoint

ARCHITECTURES = ("dcgan", "mlp")


def import_state_dict(
    path: Path,
    architecture: str,
    *,
    name: str,
    dataset: str = "unknown",
    z_distribution: str = "normal",
    images_seen: int = 0,
    layers: Layers = Layers(),
    key: str | None = None,
) -> dict[str, Any]:
    """Return what `export` needs of a checkpoint, from the state dict of another codebase's generator.

    Args:
        path: The file of the state dict.
        architecture: One of ARCHITECTURES.
        name: The name of the model.
        dataset: What the generator was trained on.
        z_distribution: The distribution of its latents, normal or uniform.
        images_seen: The real images that its training showed.
        layers: The layers without weights, which a state dict does not contain.
        key: Which part of the file holds the generator; None finds it.

    Returns:
        A checkpoint as checkpoint.read returns it, with the parts that an export needs.

    Raises:
        TrainerError: If the file cannot be read without running code, or a tensor does not fit. The message names it.
    """
    theirs = state_dict_file.read_state_dict(path, key)
    if state_dict_file.is_safetensors(path):
        theirs = state_dict_file.sort_by_name(theirs)
    config_of = _dcgan_config if architecture == "dcgan" else _mlp_config
    config = loading.parse({"name": name, "ema": {"halflife_kimg": 0}, **config_of(theirs, path.name)})
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update={"source": dataset}),
            "model": config.model.model_copy(update={"z_distribution": z_distribution}),
        }
    )
    origin = f"{path.name}{f' ({key})' if key else ''}, sha256 {checkpoint.sha256(path)}"
    return {
        "config": config.model_dump(mode="json"),
        "G_ema": match_state_dict(theirs, networks.build(config)[0].state_dict(), path.name),
        "counters": {"images_seen": images_seen},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(path.stat().st_mtime)),
        "imported": "; ".join([origin, *describe_layers(layers, architecture)]),
        "layers": asdict(layers),
    }


def describe_layers(layers: Layers, architecture: str) -> list[str]:
    """Return a description of the layers without weights of an imported generator."""
    eps = [f"BatchNorm eps {layers.batchnorm_eps:g}"] if architecture == "dcgan" else []
    activation = layers.activation
    if activation == LEAKY_RELU:
        activation = f"{LEAKY_RELU}:{LEAKY_SLOPE:g}"
    return [f"{activation} between layers", f"{layers.output_activation} at the end", *eps]


def assumptions(layers: Layers, architecture: str, z_distribution: str, path: Path) -> str:
    """Return the line that lists what an import assumed, and how to change it."""
    taken = [*describe_layers(layers, architecture), f"{z_distribution} latents"]
    options = ["--activation", "--output-activation", "--z-distribution"]
    if architecture == "dcgan":
        taken.append("the strides and paddings of a DCGAN")
        options.insert(2, "--batchnorm-eps")
    if state_dict_file.is_safetensors(path):
        taken.append("layers in the order of their names")
    return (
        f"not in the file, so assumed: {', '.join(taken)}. Where its own code differs, so do the images; "
        f"to change this: {', '.join(options)}"
    )


def _dcgan_config(theirs: Weights, file: str) -> dict[str, Any]:
    """Return config sections of a DCGAN generator with these shapes: [z, w, k, k], then [in, out, 4 or 3, …] each."""
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
    (_, (z_dim, _, *base)), (last, (_, channels, _, _)) = layers[0], layers[-1]
    if any(shape[2] == 3 for _, shape in layers[1:-1]):
        raise TrainerError(f"{file} has a 3x3 layer before its last; a dcgan ends with it or has none")
    doublings = sum(shape[2] == 4 for _, shape in layers[1:])
    resolution = resolution_of(base[0] << doublings, base[1] << doublings)
    try:
        ours = first_map(resolution)
    except ValueError as error:
        raise TrainerError(f"{layers[0][0]} makes a first map of {base[0]}x{base[1]}: {error}") from error
    if ours != tuple(base):
        raise TrainerError(
            f"{layers[0][0]} makes a first map of {base[0]}x{base[1]}; ours of {resolution} px is {ours[0]}x{ours[1]}"
        )
    if channels not in (1, 3, 4):
        raise TrainerError(f"{last} gives {channels} channels; an image has 1, 3 or 4")
    widths = [shape[1] for _, shape in layers[:-1]]
    biased = [f"{key.removesuffix('weight')}bias" in theirs for key, _ in layers]
    bias = "all" if all(biased) else "unnormalized" if biased[-1] else "none"
    return {
        "data": {"resolution": resolution, "channels": channels},
        "model": {
            "architecture": "dcgan",
            "z_dim": z_dim,
            "g_widths": widths,
            "d_widths": widths[::-1][: min(height_and_width(resolution)).bit_length() - 1],
            "bias": bias,
        },
    }


def _mlp_config(theirs: Weights, file: str) -> dict[str, Any]:
    """Return config sections of a fully connected generator with these shapes: [out, in] each."""
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


def match_state_dict(theirs: Weights, ours: Mapping[str, Tensor], file: str) -> Weights:
    """Return their tensors under our names, by position.

    Args:
        theirs: Their tensors, in order.
        ours: The state dict of our network.
        file: The name of their file, for errors.

    Raises:
        TrainerError: For the first tensor that does not fit, or one that is left over or missing.
    """
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
