"""Objectives: pure functions of D's logits (a critic's scores), float [N], to a scalar.

In each, D's loss takes the logits of real and of fake images, G's takes those of fake images alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import Objective


def non_saturating_d(real: Tensor, fake: Tensor, real_label: float = 1.0) -> Tensor:
    """-[y·log D(x) + (1-y)·log(1 - D(x))] - log(1 - D(G(z))), on logits (Goodfellow et al. 2014).

    `real_label` y below 1 is one-sided label smoothing (Salimans et al. 2016). With s(·) = softplus,
    -log D = s(-logit) and -log(1 - D) = s(logit), which no sigmoid can overflow.
    """
    loss_real = real_label * F.softplus(-real) + (1.0 - real_label) * F.softplus(real)
    return loss_real.mean() + F.softplus(fake).mean()


def non_saturating_g(fake: Tensor) -> Tensor:
    """-log D(G(z)) (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake).mean()


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """E[f(G(z))] - E[f(x)], to be minimised over clipped critics f (Arjovsky et al. 2017, algorithm 1)."""
    return fake.mean() - real.mean()


def wasserstein_g(fake: Tensor) -> Tensor:
    """-E[f(G(z))]."""
    return -fake.mean()


def r1_penalty(real: Tensor, images: Tensor) -> Tensor:
    """E[|∇ D(x)|²] / 2 over the reals (Mescheder et al. 2018, equation 9), to be weighted by γ.

    `images` float [N, C, H, W] require a gradient and `real` are their logits. Part of D's own loss, not a backward
    of its own: data-parallel training counts on one backward a step.
    """
    (gradient,) = torch.autograd.grad(real.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2


def discriminator_loss(objective: Objective, real: Tensor, fake: Tensor) -> Tensor:
    if objective.name == "wasserstein":
        return wasserstein_d(real, fake)
    return non_saturating_d(real, fake, objective.real_label)


def generator_loss(objective: Objective, fake: Tensor) -> Tensor:
    if objective.name == "wasserstein":
        return wasserstein_g(fake)
    return non_saturating_g(fake)
