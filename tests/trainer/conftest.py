"""A tiny run that every trainer test can afford: 8 px, a few hundred weights, noise for images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.trainer.tiny_run import TINY
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches


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
