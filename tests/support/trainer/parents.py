"""Parents of fine-tuned runs, without a training: networks whose every tensor matters."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.trainer.generators import random_generator
from tests.support.trainer.tiny_run import TINY
from trainer.config import loading
from trainer.config.schema import Config
from trainer.finetune.parent import Parent
from trainer.training.state import TrainState

CLASSES = ("one", "two", "three")
ARCHITECTURES = ("mlp", "dcgan", "sndcgan", "resnet")


def config_of(
    architecture: str,
    *,
    resolution: int = 8,
    channels: int = 1,
    classes: tuple[str, ...] = (),
    **sections: dict[str, Any],
) -> Config:
    """Return a tiny config of an architecture, at 8 or 16 px."""
    widths = [8] if resolution == 8 else [8, 6]
    model: dict[str, Any] = {"architecture": architecture, "g_widths": widths, "d_widths": [8, 8], "d_norm": "none"}
    if architecture == "resnet":
        model["g_widths"] = [8, *widths]
    if architecture == "mlp":
        model["g_widths"] = model["d_widths"] = [8, 9]
    data = {"resolution": resolution, "channels": channels, "class_names": list(classes)}
    merged: dict[str, Any] = {**TINY, "data": TINY["data"] | data}
    merged["model"] = TINY["model"] | model | {"conditional": bool(classes)}
    for section, fields in sections.items():
        merged[section] = merged.get(section, {}) | fields
    return loading.parse(merged)


def parent_of(config: Config) -> tuple[TrainState, Parent]:
    """Return a state whose averaged generator and D are random everywhere, and the parent that it is."""
    state = TrainState.create(config)
    state.G_ema.load_state_dict(random_generator(config).state_dict())
    torch.manual_seed(1)
    for parameter in state.D.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    weights = [{name: tensor.clone() for name, tensor in net.state_dict().items()} for net in (state.G_ema, state.D)]
    record = {"kind": "checkpoint", "name": "p", "path": "/runs/0001-p/checkpoint-00000001.pt", "digest": "a" * 64}
    return state, Parent(config, weights[0], weights[1], record | {"images_seen": 1000, "dataset": "digits"})
