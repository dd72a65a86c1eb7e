"""Every objective learns a fixed toy distribution: its distance falls below a bound. A wrong sign never gets there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from trainer.config import loading
from trainer.data import Batches
from trainer.training import loop
from trainer.training.losses import AdversarialLoss
from trainer.training.state import TrainState

# Images of 4x4 pixels in two gray levels: left half and right half each N(mean, std) around these, in [-1, 1].
MEANS, STD = (-0.5, 0.4), 0.15
STEPS, BATCH = 300, 64


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def toy_images(count: int) -> np.ndarray:
    """Images uint8 [count, 4, 4, 1] whose halves have independent brightness."""
    rng = np.random.default_rng(0)
    halves = np.stack([rng.normal(mean, STD, count) for mean in MEANS], axis=1)  # [count, 2]
    images = np.repeat(halves[:, None, :], 4, axis=1).repeat(2, axis=2)[..., None]
    return np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)


def distance(state: TrainState) -> float:
    """Fréchet distance between Gaussians with diagonal covariance, over the brightness of the halves."""
    z = torch.randn(2000, state.config.model.z_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        images = state.G_ema(z)[:, 0]
    halves = torch.stack([images[:, :, :2].mean(dim=(1, 2)), images[:, :, 2:].mean(dim=(1, 2))], dim=1)
    return float((halves.mean(0) - torch.tensor(MEANS)).square().sum() + (halves.std(0) - STD).square().sum())


def train(objective: dict[str, Any], change: Any = None, **optim: Any) -> tuple[float, float]:
    """Return the distance before and after a short training."""
    config = loading.parse(
        {
            "name": "toy",
            "data": {"resolution": 4, "channels": 1},
            "model": {"architecture": "mlp", "z_dim": 4, "g_widths": [32], "d_widths": [32, 32], "init": "default"},
            "objective": objective,
            "optim": {"batch_size": BATCH, "g_lr": 2e-3, "d_lr": 2e-3, **optim},
            "ema": {"halflife_kimg": 2},
            "run": {"device": "cpu", "precision": "fp32", "threads": 1, "total_kimg": 1000},
        }
    )
    state = TrainState.create(config)
    if change is not None:
        state.loss = change(state.loss)
    batches = Batches(toy_images(2000), BATCH, seed=0, device=state.device)
    before = distance(state)
    for _ in range(STEPS):
        loop.train_iteration(state, batches)
    return before, distance(state)


OBJECTIVES: dict[str, dict[str, Any]] = {
    "non-saturating": {"r1_gamma": 0.1},
    "minimax": {"r1_gamma": 0.1},
    "lsgan": {"real_label": 0.9, "fake_label": 0.1},
    "hinge": {"r1_gamma": 0.1},
    "wasserstein": {"gradient_penalty": "wgan-gp", "gp_weight": 1.0},
    "non-saturating dragan": {"name": "non-saturating", "gradient_penalty": "dragan"},
}
BOUND = 0.05


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_each_objective_reaches_the_toy_distribution(name: str) -> None:
    before, after = train({"name": name, **OBJECTIVES[name]})
    assert before > 4 * BOUND
    assert after < BOUND


def flip_g(loss: AdversarialLoss) -> AdversarialLoss:
    """The loss with the wrong sign for G."""
    return replace(loss, g=lambda fake: -loss.g(fake))


def flip_d(loss: AdversarialLoss) -> AdversarialLoss:
    """The loss with the wrong sign for D."""
    return replace(loss, d=lambda real, fake: -loss.d(real, fake))


@pytest.mark.parametrize("flip", [flip_g, flip_d])
@pytest.mark.parametrize("name", ["non-saturating", "wasserstein"])
def test_training_with_a_wrong_sign_does_not_reach_it(name: str, flip: Any) -> None:
    _, after = train({"name": name, **OBJECTIVES[name]}, flip)
    assert not after < 4 * BOUND
