"""A tiny run that every trainer test can afford: 8 px, a few hundred weights, noise for images."""

from __future__ import annotations

from typing import Any

import torch

from trainer.training.state import TrainState

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"source": "digits", "resolution": 8, "channels": 1},
    "model": {"architecture": "dcgan", "z_dim": 4, "g_widths": [8], "d_widths": [8]},
    "optim": {"batch_size": 8},
    "run": {"total_kimg": 0.16, "tick_kimg": 0.04, "device": "cpu", "precision": "fp32", "threads": 1},
}


def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Every tensor of a state by name, for comparing two of them to the last bit."""
    found = {}
    for part in ("G", "D", "G_ema"):
        found |= {f"{part}.{name}": tensor for name, tensor in getattr(state, part).state_dict().items()}
    for part in ("g_optimizer", "d_optimizer"):
        for index, slots in getattr(state, part).state_dict()["state"].items():
            found |= {f"{part}.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    if state.adaptive is not None:
        found |= {f"adaptive.{name}": tensor for name, tensor in state.adaptive.state_dict().items()}
    return found | {f"sums.{name}": total for name, total in state.sums.items()} | {"rng": state.rng.get_state()}
