"""Whether augmentations show in G's images: small trainings on images of one orientation and brightness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.trainer.tiny_run import TINY
from trainer.config import loading
from trainer.data import Batches
from trainer.training import loop
from trainer.training.state import TrainState

pytestmark = pytest.mark.slow

KIMG = 12


def upright(n: int) -> np.ndarray:
    """Images with a bright upper half, nearly equally bright: uint8 [n, 8, 8, 1]."""
    rng = np.random.default_rng(0)
    images = rng.integers(20, 50, (n, 8, 8, 1), dtype=np.uint8)
    images[:, :4] += rng.integers(150, 170, (n, 1, 1, 1), dtype=np.uint8)
    return images


def share_upright(images: Tensor) -> float:
    """The share of images whose upper half is farther above its opposite than any other half."""
    halves = [images[:, :, :4], images[:, :, 4:], images[..., :4], images[..., 4:]]
    top, bottom, left, right = (half.mean(dim=(1, 2, 3)) for half in halves)
    return (
        (torch.stack([top - bottom, bottom - top, left - right, right - left]).argmax(dim=0) == 0)
        .double()
        .mean()
        .item()
    )


def brightness_std(images: Tensor) -> float:
    return images.mean(dim=(1, 2, 3)).std().item()


def trained(**data: Any) -> tuple[TrainState, Tensor, Tensor, Tensor]:
    """The state of a training, images of its G, real ones, and these as D sees them."""
    torch.set_num_threads(1)
    model = {"z_dim": 8, "g_widths": [32], "d_widths": [32, 64], "d_norm": "none"}
    optim = {"batch_size": 32, "g_lr": 1e-3, "d_lr": 1e-3}
    merged = {**TINY, "data": TINY["data"] | data, "model": TINY["model"] | model, "optim": optim}
    p = merged["data"]["augment_p"]
    merged["data"]["augment_p"] = 0.5
    config = loading.parse(merged | {"run": TINY["run"] | {"total_kimg": KIMG}})
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"augment_p": p})}
    )  # which may be too high
    state = TrainState.create(config)
    batches = Batches(upright(400), 32, seed=0, device=state.device)
    while not state.finished:
        loop.train_iteration(state, batches)
    reals = torch.cat([batches.at(32 * number)[0] for number in range(30)])
    with torch.no_grad():
        return state, state.G_ema(torch.randn(1000, 8), None), reals, loop.augment_for_discriminator(state, reals)


def test_adaptive_augmentation_does_not_leak_into_g() -> None:
    policies = ["flip", "rotate90", "scale", "brightness", "contrast", "translation"]
    state, fakes, reals, shown = trained(augment=policies, augment_p=0.5, ada_target=0.1, ada_kimg=10)
    assert state.adaptive is not None
    assert 0.2 < state.adaptive.p.item() < 0.8
    assert share_upright(reals) == 1
    assert share_upright(shown) < 0.85  # what D is shown has the augmentation's statistics,
    assert brightness_std(shown) > 3 * brightness_std(reals)
    assert share_upright(fakes) > 0.99  # and what G draws has those of the images
    assert brightness_std(fakes) < 1.5 * brightness_std(reals)


def test_rotations_always_applied_leak_into_g() -> None:
    _, fakes, _, shown = trained(augment=["rotate90"], augment_p=1.0)
    assert 0.2 < share_upright(shown) < 0.3
    assert share_upright(fakes) < 0.5
