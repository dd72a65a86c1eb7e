from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainer.config.schema import OBJECTIVES, SMOOTHABLE
from trainer.distributed.sharded_rng import ShardedRNG
from trainer.errors import TrainerError
from trainer.training import losses


def test_non_saturating_equals_binary_cross_entropy() -> None:
    real, fake = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for label in (1.0, 0.9):
        bce = F.binary_cross_entropy(real.sigmoid(), torch.full_like(real, label)) + F.binary_cross_entropy(
            fake.sigmoid(), torch.zeros_like(fake)
        )
        torch.testing.assert_close(losses.cross_entropy_d(real, fake, label), bce)
    torch.testing.assert_close(
        losses.non_saturating_g(fake), F.binary_cross_entropy(fake.sigmoid(), torch.ones_like(fake))
    )


def test_non_saturating_undecided_d_loss_is_two_log_two() -> None:
    zeros = torch.zeros(4)
    assert losses.cross_entropy_d(zeros, zeros).item() == pytest.approx(2 * 0.6931472)
    assert losses.non_saturating_g(zeros).item() == pytest.approx(0.6931472)


def test_non_saturating_extreme_logits_keep_their_gradient() -> None:
    fake = torch.tensor([-200.0], requires_grad=True)
    losses.non_saturating_g(fake).backward()
    assert fake.grad is not None
    assert fake.grad.item() == pytest.approx(-1.0)


def test_smoothing_two_sided_equals_binary_cross_entropy() -> None:
    real, fake = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bce = F.binary_cross_entropy(real.sigmoid(), torch.full_like(real, 0.9)) + F.binary_cross_entropy(
        fake.sigmoid(), torch.full_like(fake, 0.1)
    )
    torch.testing.assert_close(losses.cross_entropy_d(real, fake, 0.9, 0.1), bce)


def test_smoothing_of_g_equals_binary_cross_entropy() -> None:
    fake = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bce = F.binary_cross_entropy(fake.sigmoid(), torch.full_like(fake, 0.9))
    torch.testing.assert_close(losses.smoothed_non_saturating_g(fake, 0.9), bce)
    loss = losses.get_loss("non-saturating", 0.9, 0.0, 0.9)
    assert loss.g(fake) == losses.smoothed_non_saturating_g(fake, 0.9)
    assert loss.d(fake, fake) == losses.cross_entropy_d(fake, fake, 0.9)
    with pytest.raises(TrainerError, match=r"objective\.g_label smooths G's target; lsgan does not take it"):
        losses.get_loss("lsgan", g_label=0.9)


def test_smoothing_of_g_off_is_the_plain_loss() -> None:
    assert losses.get_loss("non-saturating", 0.9).g is losses.non_saturating_g


def test_minimax_gradient_vanishes_where_d_is_sure() -> None:
    def slope(loss: Callable[[torch.Tensor], torch.Tensor], logit: float) -> float:
        fake = torch.tensor([logit], requires_grad=True)
        loss(fake).backward()
        assert fake.grad is not None
        return fake.grad.item()

    assert slope(losses.minimax_g, 0.0) == pytest.approx(slope(losses.non_saturating_g, 0.0)) == pytest.approx(-0.5)
    assert abs(slope(losses.minimax_g, -20.0)) < 1e-8  # it saturates
    assert slope(losses.non_saturating_g, -20.0) == pytest.approx(-1.0)
    fake = torch.randn(9)
    torch.testing.assert_close(losses.minimax_g(fake), (1 - fake.sigmoid()).log().mean())


def test_least_squares_is_half_the_squared_distance() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])
    assert losses.least_squares_d(real, fake).item() == pytest.approx((0 + 4) / 4 + (0 + 4) / 4)
    assert losses.least_squares_d(real, fake, 0.9, 0.1).item() == pytest.approx((0.01 + 4.41) / 4 + (0.01 + 3.61) / 4)
    assert losses.least_squares_g(fake).item() == pytest.approx((1 + 1) / 4)


def test_hinge_is_zero_beyond_a_margin_of_one() -> None:
    assert losses.hinge_d(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, -9.0])).item() == 0
    assert losses.hinge_d(torch.tensor([0.0]), torch.tensor([0.5])).item() == pytest.approx(1 + 1.5)


def test_wasserstein_is_the_difference_of_means() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 2.0])
    assert losses.wasserstein_d(real, fake).item() == pytest.approx(0.5 - 2.0)
    assert losses.wasserstein_g(fake).item() == pytest.approx(-0.5)


def test_relativistic_compares_pairs_in_both_directions() -> None:
    real, fake = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([1.0, -1.0, -4.0])
    d_loss, g_loss = losses.relativistic_d(real, fake), losses.relativistic_g(real, fake)
    ones = torch.ones(3)
    torch.testing.assert_close(d_loss, F.binary_cross_entropy_with_logits(real - fake, ones))
    torch.testing.assert_close(g_loss, F.binary_cross_entropy_with_logits(fake - real, ones))
    assert losses.relativistic_d(real + 9, fake + 9).item() == pytest.approx(d_loss.item())  # only differences count


@pytest.mark.parametrize(
    ("name", "labels", "d_loss", "g_loss"),
    [
        ("non-saturating", (0.9, 0.0), lambda r, f: losses.cross_entropy_d(r, f, 0.9), losses.non_saturating_g),
        ("minimax", (), losses.cross_entropy_d, losses.minimax_g),
        ("lsgan", (1.0, 0.1), lambda r, f: losses.least_squares_d(r, f, 1, 0.1), losses.least_squares_g),
        ("hinge", (), losses.hinge_d, losses.wasserstein_g),
        ("wasserstein", (), losses.wasserstein_d, losses.wasserstein_g),
    ],
)
def test_get_loss_name_returns_its_pair(
    name: str,
    labels: tuple[float, ...],
    d_loss: Callable[..., torch.Tensor],
    g_loss: Callable[..., torch.Tensor],
) -> None:
    real, fake = torch.tensor([1.0, 0.3]), torch.tensor([-0.5, 2.0])
    loss = losses.get_loss(name, *labels)
    assert loss.d(real, fake) == d_loss(real, fake)
    assert loss.g(fake) == g_loss(fake)


def test_get_loss_relativistic_takes_pairs_and_no_labels() -> None:
    loss = losses.get_loss("relativistic")
    assert (loss.takes_pairs, loss.takes_labels, loss.probabilistic) == (True, False, False)
    with pytest.raises(TrainerError, match="relativistic does not take them"):
        losses.get_loss("relativistic", 0.9)


def test_names_of_the_schema_are_those_of_the_losses() -> None:
    assert tuple(losses.LOSSES) == OBJECTIVES
    assert tuple(name for name, loss in losses.LOSSES.items() if loss.takes_labels) == SMOOTHABLE


def test_r1_is_half_the_squared_gradient_norm() -> None:
    weights = torch.tensor([1.0, -2.0, 2.0])
    images = torch.randn(5, 3, 1, 1, requires_grad=True)
    penalty = losses.zero_centered_penalties([(images[:, :, 0, 0] * weights).sum(dim=1)], [images])[0]
    assert penalty.item() == pytest.approx(9 / 2)


def test_r1_reaches_the_weights() -> None:
    weight = torch.tensor([3.0], requires_grad=True)
    images = torch.randn(4, 1, 1, 1, requires_grad=True)
    losses.zero_centered_penalties([(images.flatten() * weight).square()], [images])[0].backward()
    assert weight.grad is not None
    assert weight.grad.item() > 0


def test_zero_centered_penalties_of_two_batches_are_their_own() -> None:
    images = [torch.randn(4, 3, 1, 1, requires_grad=True) for _ in range(2)]
    logits = [scale * each.sum(dim=(1, 2, 3)) for scale, each in zip((1.0, 2.0), images, strict=True)]
    r1, r2 = losses.zero_centered_penalties(logits, images)
    assert (r1.item(), r2.item()) == pytest.approx((3 / 2, 12 / 2))


def smooth_d() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.Softplus(), nn.Linear(16, 1), nn.Flatten(0))


def test_finite_differences_average_to_the_exact_penalty() -> None:
    """Over 4,000 draws per image: the mean is within four standard errors, and these within 1% of the penalty."""
    D, rng = smooth_d(), ShardedRNG(torch.Generator().manual_seed(0))
    images = torch.randn(8, 2, 4, 4, requires_grad=True)
    exact = losses.zero_centered_penalties([D(images)], [images])[0].item()
    with torch.no_grad():
        logits = D(images)
        draws = [losses.finite_difference_penalty(logits, D(losses.move_images(images, rng))) for _ in range(4000)]
    mean, error = torch.stack(draws).mean().item(), torch.stack(draws).std().item() / len(draws) ** 0.5
    assert error < 0.01 * exact
    assert abs(mean - exact) < 4 * error


def test_finite_differences_move_the_weights_as_the_exact_penalty() -> None:
    D, rng = smooth_d(), ShardedRNG(torch.Generator().manual_seed(0))
    images = torch.randn(8, 2, 4, 4, requires_grad=True)

    def slopes(penalty: torch.Tensor) -> torch.Tensor:
        weights = [D[1].weight, D[1].bias, D[3].weight]  # a penalty on a gradient has no slope in the last bias
        return torch.cat([slope.flatten() for slope in torch.autograd.grad(penalty, weights)])

    exact = slopes(losses.zero_centered_penalties([D(images)], [images])[0])
    many = images.detach().repeat(500, 1, 1, 1)
    estimate = slopes(losses.finite_difference_penalty(D(many), D(losses.move_images(many, rng))))
    assert F.cosine_similarity(exact, estimate, dim=0).item() > 0.99
    assert estimate.norm().item() == pytest.approx(exact.norm().item(), rel=0.05)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_gradient_penalty_is_per_image(channels: int) -> None:
    """D(x) = c·|x| of image i has a gradient of norm cᵢ, so the penalty is the mean of (cᵢ - 1)²."""
    slopes = torch.tensor([0.0, 1.0, 3.0])
    images = torch.randn(3, channels, 4, 4, requires_grad=True)
    logits = slopes * images.flatten(1).norm(dim=1)
    assert losses.unit_gradient_penalty(logits, images).item() == pytest.approx((1 + 0 + 4) / 3, rel=1e-4)


def test_gradient_penalty_without_gradient_is_finite() -> None:
    weight = torch.zeros(1, requires_grad=True)
    images = torch.randn(2, 1, 2, 2, requires_grad=True)
    losses.unit_gradient_penalty((images.flatten(1).sum(dim=1) * weight), images).backward()
    assert weight.grad is not None
    assert weight.grad.isfinite()


@pytest.mark.parametrize("channels", [1, 3])
def test_interpolate_pairs_draws_a_point_per_pair(channels: int) -> None:
    reals, fakes = torch.ones(200, channels, 2, 2), -torch.ones(200, channels, 2, 2)
    points = losses.interpolate_pairs(reals, fakes, ShardedRNG(torch.Generator().manual_seed(0)))
    assert points.flatten(1).std(dim=1).max() < 1e-6  # one ε an image
    places = points[:, 0, 0, 0]
    assert places.min() >= -1
    assert places.max() <= 1
    assert places.std().item() == pytest.approx(2 / 12**0.5, rel=0.1)  # U(-1, 1)


def test_perturb_reals_moves_by_up_to_half_the_spread() -> None:
    reals = torch.randn(100, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    moved = losses.perturb_reals(reals, reals.std(), ShardedRNG(torch.Generator().manual_seed(0))) - reals
    assert moved.min() >= 0
    assert moved.max() <= 0.5 * reals.std() + 1e-6
    assert moved.flatten(1).amax(dim=1).std() > 0.05  # α is an image's own
