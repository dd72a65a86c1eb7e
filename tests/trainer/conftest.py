"""A tiny run that every trainer test can afford: 8 px, a few hundred weights, noise for images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.training.state import TrainState

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"source": "digits", "resolution": 8, "channels": 1},
    "model": {"architecture": "dcgan", "z_dim": 4, "g_widths": [8], "d_widths": [8]},
    "optim": {"batch_size": 8},
    "run": {"total_kimg": 0.16, "tick_kimg": 0.04, "device": "cpu", "precision": "fp32", "threads": 1},
}


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """tiny(**sections) → the tiny config with those sections' fields changed."""

    def make(**sections: dict[str, Any]) -> Config:
        merged = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY.items()}
        for section, fields in sections.items():
            merged.setdefault(section, {}).update(fields)
        return loading.parse(merged)

    return make


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def batches_of(noise: np.ndarray) -> Callable[[Config], Batches]:
    def make(config: Config) -> Batches:
        shape = (50, config.data.resolution, config.data.resolution, config.data.channels)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        labels = np.arange(50) % len(config.data.class_names) if config.model.conditional else None
        cpu = torch.device("cpu")
        return Batches(images, config.optim.batch_size, seed=config.run.seed, device=cpu, labels=labels)

    return make


def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Every tensor of a state by name, for comparing two of them to the last bit."""
    found = {}
    for part in ("G", "D", "G_ema"):
        found |= {f"{part}.{name}": tensor for name, tensor in getattr(state, part).state_dict().items()}
    for part in ("g_optimizer", "d_optimizer"):
        for index, slots in getattr(state, part).state_dict()["state"].items():
            found |= {f"{part}.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    return found | {f"sums.{name}": total for name, total in state.sums.items()} | {"rng": state.rng.get_state()}


SAFETENSORS_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def write_safetensors(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    """Write a file by the format's description, its tensors sorted by name as the library sorts them."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name in sorted(tensors):
        content = tensors[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {
            "dtype": SAFETENSORS_TYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": offsets,
        }
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path
