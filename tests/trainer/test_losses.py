from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trainer import losses
from trainer.config import Objective


def test_non_saturating_is_binary_cross_entropy_on_a_sigmoid() -> None:
    real, fake = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for label in (1.0, 0.9):
        bce = F.binary_cross_entropy(real.sigmoid(), torch.full_like(real, label)) + F.binary_cross_entropy(
            fake.sigmoid(), torch.zeros_like(fake)
        )
        torch.testing.assert_close(losses.non_saturating_d(real, fake, label), bce)
    torch.testing.assert_close(
        losses.non_saturating_g(fake), F.binary_cross_entropy(fake.sigmoid(), torch.ones_like(fake))
    )


def test_an_undecided_discriminator_loses_two_log_two() -> None:
    zeros = torch.zeros(4)
    assert losses.non_saturating_d(zeros, zeros).item() == pytest.approx(2 * 0.6931472)
    assert losses.non_saturating_g(zeros).item() == pytest.approx(0.6931472)


def test_logits_that_overflow_a_sigmoid_keep_their_gradient() -> None:
    fake = torch.tensor([-200.0], requires_grad=True)
    losses.non_saturating_g(fake).backward()
    assert fake.grad is not None
    assert fake.grad.item() == pytest.approx(-1.0)


def test_wasserstein_is_a_difference_of_means() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 2.0])
    assert losses.wasserstein_d(real, fake).item() == pytest.approx(0.5 - 2.0)
    assert losses.wasserstein_g(fake).item() == pytest.approx(-0.5)


def test_the_objective_chooses_its_pair() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 2.0])
    critic, gan = Objective(name="wasserstein", clip=0.01), Objective(real_label=0.9)
    assert losses.discriminator_loss(critic, real, fake) == losses.wasserstein_d(real, fake)
    assert losses.generator_loss(critic, fake) == losses.wasserstein_g(fake)
    assert losses.discriminator_loss(gan, real, fake) == losses.non_saturating_d(real, fake, 0.9)
    assert losses.generator_loss(gan, fake) == losses.non_saturating_g(fake)


def test_r1_is_half_the_squared_norm_of_the_gradient() -> None:
    weights = torch.tensor([1.0, -2.0, 2.0])
    images = torch.randn(5, 3, 1, 1, requires_grad=True)
    penalty = losses.r1_penalty((images[:, :, 0, 0] * weights).sum(dim=1), images)
    assert penalty.item() == pytest.approx(9 / 2)


def test_r1_reaches_the_weights() -> None:
    weight = torch.tensor([3.0], requires_grad=True)
    images = torch.randn(4, 1, 1, 1, requires_grad=True)
    losses.r1_penalty((images.flatten() * weight).square(), images).backward()
    assert weight.grad is not None
    assert weight.grad.item() > 0
