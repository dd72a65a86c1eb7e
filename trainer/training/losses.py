"""Objectives: pure functions of D's logits (a critic's scores), float [N], to a scalar.

In each, D's loss takes the logits of real and of fake images, G's takes those of fake images alone. registry.py names
the pairs that a config may choose. The gradient penalties at the end are added to D's loss, whatever it is: one loss,
one backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import registry
from trainer.config.schema import Objective
from trainer.distributed.sharded_rng import Draws


def cross_entropy_d(real: Tensor, fake: Tensor, real_label: float = 1.0, fake_label: float = 0.0) -> Tensor:
    """D's binary cross-entropy, on logits (Goodfellow et al. 2014, equation 1): to tell reals from fakes.

    -[y·log D(x) + (1-y)·log(1 - D(x))] over reals with y = real_label, the same over fakes with y = fake_label. Labels
    of 0.9 and 0 are one-sided smoothing (Salimans et al. 2016), 0.9 and 0.1 two-sided. With s(·) = softplus,
    -log D = s(-logit) and -log(1 - D) = s(logit), which no sigmoid can overflow.
    """
    loss_real = real_label * F.softplus(-real) + (1.0 - real_label) * F.softplus(real)
    loss_fake = fake_label * F.softplus(-fake) + (1.0 - fake_label) * F.softplus(fake)
    return loss_real.mean() + loss_fake.mean()


def non_saturating_g(fake: Tensor) -> Tensor:
    """-log D(G(z)) (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake).mean()


def minimax_g(fake: Tensor) -> Tensor:
    """log(1 - D(G(z))), the game as it is first written (Goodfellow et al. 2014, equation 1); it saturates."""
    return -F.softplus(fake).mean()


def least_squares_d(real: Tensor, fake: Tensor, real_label: float = 1.0, fake_label: float = 0.0) -> Tensor:
    """½(D(x) - b)² + ½(D(G(z)) - a)² on scores, b and a the two labels (Mao et al. 2017, equation 2)."""
    return (real - real_label).square().mean() / 2 + (fake - fake_label).square().mean() / 2


def least_squares_g(fake: Tensor) -> Tensor:
    """½(D(G(z)) - 1)² (Mao et al. 2017, equation 9)."""
    return (fake - 1.0).square().mean() / 2


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) on scores (Lim and Ye 2017; Miyato et al. 2018, equation 16)."""
    return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """E[f(G(z))] - E[f(x)], to be minimised over bounded critics f (Arjovsky et al. 2017, algorithm 1)."""
    return fake.mean() - real.mean()


def wasserstein_g(fake: Tensor) -> Tensor:
    """-E[f(G(z))]; hinge's G minimises the same (Miyato et al. 2018, equation 17)."""
    return -fake.mean()


class Pair(NamedTuple):
    """An objective: D's loss of (real, fake), G's of (fake). `labels`: D's takes its two targets as well."""

    d: Callable[..., Tensor]
    g: Callable[[Tensor], Tensor]
    labels: bool = False


NON_SATURATING = Pair(cross_entropy_d, non_saturating_g, labels=True)
MINIMAX = Pair(cross_entropy_d, minimax_g, labels=True)
LSGAN = Pair(least_squares_d, least_squares_g, labels=True)
HINGE = Pair(hinge_d, wasserstein_g)
WASSERSTEIN = Pair(wasserstein_d, wasserstein_g)


def discriminator_loss(objective: Objective, real: Tensor, fake: Tensor) -> Tensor:
    pair = registry.objective(objective.name)
    return pair.d(real, fake, objective.real_label, objective.fake_label) if pair.labels else pair.d(real, fake)


def generator_loss(objective: Objective, fake: Tensor) -> Tensor:
    return registry.objective(objective.name).g(fake)


def r1_penalty(real: Tensor, images: Tensor) -> Tensor:
    """E[|∇ D(x)|²] / 2 over the reals (Mescheder et al. 2018, equation 9), to be weighted by γ.

    `images` float [N, C, H, W] require a gradient and `real` are their logits. Part of D's own loss, not a backward
    of its own: data-parallel training counts on one backward a step.
    """
    (gradient,) = torch.autograd.grad(real.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2


def unit_gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """E[(|∇ D(x̂)| - 1)²] (Gulrajani et al. 2017, equation 3), to be weighted by λ.

    `images` x̂ float [N, C, H, W] require a gradient and `logits` are theirs; the norm is each image's own.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    # the root's slope is infinite at 0, which a D without any gradient yet would meet
    norms = (gradient.square().sum(dim=(1, 2, 3)) + 1e-12).sqrt()
    return (norms - 1.0).square().mean()


def between(reals: Tensor, fakes: Tensor, rng: Draws) -> Tensor:
    """x̂ = ε·x + (1 - ε)·G(z), with ε ~ U(0, 1) one an image (Gulrajani et al. 2017): wgan-gp's points."""
    epsilon = rng.rand(len(reals), 1, 1, 1)
    return fakes + epsilon * (reals - fakes)


def around(reals: Tensor, std: Tensor, rng: Draws) -> Tensor:
    """x̂ = x + α·½·std(x)·δ, α ~ U(0, 1) an image, δ ~ U(0, 1) a pixel (Kodali et al. 2017): dragan's points.

    `std` is a scalar, of the whole batch of reals.
    """
    alpha = rng.rand(len(reals), 1, 1, 1)
    delta = rng.rand(*reals.shape)
    return reals + alpha * (0.5 * std * delta)
