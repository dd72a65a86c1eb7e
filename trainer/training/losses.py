"""Losses: pure functions of D's logits (a critic's scores), float [N], to a scalar.

D's loss takes the logits of real and of fake images, G's those of fake images, or of pairs of both. The gradient
penalties at the end are added to D's loss: one loss, one backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.distributed.sharded_rng import ShardedRNG
from trainer.errors import TrainerError
from trainer.plugins import load_plugin

# σ of finite differences; see finite_difference_penalty.
SIGMA = 0.01


def cross_entropy_d(real: Tensor, fake: Tensor, real_label: float = 1.0, fake_label: float = 0.0) -> Tensor:
    """Return D's binary cross-entropy on logits (Goodfellow et al. 2014, equation 1).

    -[y·log D(x) + (1-y)·log(1 - D(x))] over reals with y = real_label, the same over fakes with y = fake_label. Labels
    of 0.9 and 0 are one-sided smoothing (Salimans et al. 2016), 0.9 and 0.1 two-sided. With s(·) = softplus,
    -log D = s(-logit) and -log(1 - D) = s(logit), which does not overflow as a sigmoid does.
    """
    loss_real = real_label * F.softplus(-real) + (1.0 - real_label) * F.softplus(real)
    loss_fake = fake_label * F.softplus(-fake) + (1.0 - fake_label) * F.softplus(fake)
    return loss_real.mean() + loss_fake.mean()


def non_saturating_g(fake: Tensor) -> Tensor:
    """Return -log D(G(z)) (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake).mean()


def smoothed_non_saturating_g(fake: Tensor, g_label: float) -> Tensor:
    """Return -[y·log D(G(z)) + (1-y)·log(1 - D(G(z)))] with y = g_label: G no longer gains once D(G(z)) is above y."""
    return (g_label * F.softplus(-fake) + (1.0 - g_label) * F.softplus(fake)).mean()


def minimax_g(fake: Tensor) -> Tensor:
    """Return log(1 - D(G(z))), G's part of the minimax game (Goodfellow et al. 2014, equation 1); it saturates."""
    return -F.softplus(fake).mean()


def least_squares_d(real: Tensor, fake: Tensor, real_label: float = 1.0, fake_label: float = 0.0) -> Tensor:
    """Return ½(D(x) - b)² + ½(D(G(z)) - a)² on scores with labels b and a (Mao et al. 2017, equation 2)."""
    return (real - real_label).square().mean() / 2 + (fake - fake_label).square().mean() / 2


def least_squares_g(fake: Tensor) -> Tensor:
    """Return ½(D(G(z)) - 1)² (Mao et al. 2017, equation 9)."""
    return (fake - 1.0).square().mean() / 2


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """Return max(0, 1 - D(x)) + max(0, 1 + D(G(z))) on scores (Lim and Ye 2017; Miyato et al. 2018, equation 16)."""
    return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """Return E[f(G(z))] - E[f(x)], minimized over bounded critics f (Arjovsky et al. 2017, algorithm 1)."""
    return fake.mean() - real.mean()


def wasserstein_g(fake: Tensor) -> Tensor:
    """Return -E[f(G(z))]; hinge's G minimizes the same (Miyato et al. 2018, equation 17)."""
    return -fake.mean()


def relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """Return -log σ(D(x) - D(G(z))) over pairs of a real and a fake image (Jolicoeur-Martineau 2019, RSGAN).

    R3GAN trains with it, and R1 and R2 (Huang et al. 2024, equation 2).
    """
    return F.softplus(fake - real).mean()


def relativistic_g(real: Tensor, fake: Tensor) -> Tensor:
    """Return -log σ(D(G(z)) - D(x)) over the same pairs, the reverse of D's loss."""
    return F.softplus(real - fake).mean()


@dataclass(frozen=True)
class AdversarialLoss:
    """The losses of D and G that `objective.name` can name.

    Attributes:
        d: (real logits, fake logits) → D's loss; with `takes_labels` also the two targets (real_label, fake_label).
        g: (fake logits) → G's loss; with `takes_pairs` (real logits, fake logits).
        takes_labels: Whether `objective.real_label` and `fake_label` apply.
        probabilistic: Whether the sigmoid of a logit is D's probability that an image is real.
        takes_pairs: Whether G's loss compares each fake with the real image in its place, of the same class.
        undecided: The score that D gives at best to an image that is as likely real as fake (with `takes_pairs`, the
            difference of a pair's scores); None where there is no such score. `data.ada_target` needs it.
    """

    d: Callable[..., Tensor]
    g: Callable[..., Tensor]
    takes_labels: bool = False
    probabilistic: bool = False
    takes_pairs: bool = False
    undecided: float | None = None

    def centered(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return how sure D is of each real image, float [N]: 0 where it is undecided, positive where it is right."""
        scores = real - fake if self.takes_pairs else real
        return scores - (self.undecided or 0.0)


# `objective.name`, as trainer.config.schema.OBJECTIVES lists them
LOSSES = {
    "non-saturating": AdversarialLoss(
        cross_entropy_d, non_saturating_g, takes_labels=True, probabilistic=True, undecided=0.0
    ),
    "minimax": AdversarialLoss(cross_entropy_d, minimax_g, takes_labels=True, probabilistic=True, undecided=0.0),
    "lsgan": AdversarialLoss(least_squares_d, least_squares_g, takes_labels=True, undecided=0.5),
    "hinge": AdversarialLoss(hinge_d, wasserstein_g, undecided=0.0),
    "wasserstein": AdversarialLoss(wasserstein_d, wasserstein_g),  # a critic is only defined up to a constant
    "relativistic": AdversarialLoss(relativistic_d, relativistic_g, takes_pairs=True, undecided=0.0),
}


def get_loss(name: str, real_label: float = 1.0, fake_label: float = 0.0, g_label: float = 1.0) -> AdversarialLoss:
    """Return the losses of `objective.name`, whose `d` takes (real logits, fake logits) for the given targets.

    Args:
        name: A key of LOSSES, or "module:NAME", an AdversarialLoss from a user module.
        real_label: D's target for real images.
        fake_label: D's target for fake images.
        g_label: G's target; only that of "non-saturating" can be smoothed.

    Raises:
        TrainerError: If the user's module cannot be imported, or its loss has no targets to smooth.
    """
    loss = LOSSES[name] if name in LOSSES else _load_loss(name)
    if g_label != 1.0:
        if name != "non-saturating":
            raise TrainerError(f"objective.g_label smooths G's target; {name} does not take it")
        loss = replace(loss, g=partial(smoothed_non_saturating_g, g_label=g_label))
    if loss.takes_labels:
        loss = replace(loss, d=partial(loss.d, real_label=real_label, fake_label=fake_label))
        if loss.undecided is not None and (real_label, fake_label) != (1.0, 0.0):
            # Where both are equally likely, the best D gives the mean of the targets.
            middle = (real_label + fake_label) / 2
            loss = replace(loss, undecided=math.log(middle / (1 - middle)) if loss.probabilistic else middle)
        return loss
    if (real_label, fake_label) != (1.0, 0.0):
        raise TrainerError(f"objective.real_label and fake_label smooth D's targets; {name} does not take them")
    return loss


def _load_loss(name: str) -> AdversarialLoss:
    """Return the losses "module:NAME", which reject a result that is not a scalar."""
    loss = load_plugin("objective.name", name, AdversarialLoss)
    d, g = (partial(_scalar, f"{name}'s {part}", getattr(loss, part)) for part in ("d", "g"))
    return replace(loss, d=d, g=g)


def _scalar(what: str, function: Callable[..., Tensor], *arguments: Tensor, **targets: float) -> Tensor:
    """Return what a user's loss returns; raise TrainerError if it is not a scalar tensor."""
    value = function(*arguments, **targets)
    if isinstance(value, Tensor) and value.dim() == 0:
        return value
    found = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"
    raise TrainerError(f"objective.name={what} must return a scalar tensor, such as a mean; its result is {found}")


def zero_centered_penalties(logits: Sequence[Tensor], images: Sequence[Tensor]) -> list[Tensor]:
    """Return E[|∇ D(x)|²] / 2 of each batch: R1 of reals, R2 of fakes (Mescheder et al. 2018, equation 9 and after).

    The weights are γ. They are added to D's loss, not in a separate backward: data-parallel training needs one
    backward per step.

    Args:
        logits: Logits of each batch, float [N].
        images: The batches, float [N, C, H, W], that require a gradient.
    """
    gradients = torch.autograd.grad([each.sum() for each in logits], list(images), create_graph=True)
    return [gradient.square().sum(dim=(1, 2, 3)).mean() / 2 for gradient in gradients]


def finite_difference_penalty(logits: Tensor, moved: Tensor) -> Tensor:
    """Return E[((D(x + σu) - D(x)) / σ)²] / 2, u ~ N(0, I): an estimate of E[|∇ D(x)|²] / 2 without double backward.

    E[(u·∇D)²] = |∇D|², so it is unbiased but for terms of order σ (Pang et al. 2020; the approximated R1 of Lin et al.
    2025, equation 3). A larger σ adds bias, from D's curvature. With a smaller one the difference drowns in rounding
    where a GPU's convolutions round their factors to TF32. σ = 0.01 lies between the two.

    Where D mixes images, a logit's difference also has what the other images moved: the estimate is then of the sum of
    the squares of all logits' gradients.

    Args:
        logits: Logits of the images, float32 [N], computed without autocast.
        moved: Logits of the images after `move_images`, alike.
    """
    return ((moved - logits) / SIGMA).square().mean() / 2


def move_images(images: Tensor, rng: ShardedRNG) -> Tensor:
    """Return x + σu, u ~ N(0, 1) per pixel, for images float [N, C, H, W]."""
    return images + SIGMA * rng.randn(*images.shape)


def unit_gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Return E[(|∇ D(x̂)| - 1)²], with a norm per image (Gulrajani et al. 2017, equation 3); its weight is λ.

    Args:
        logits: Logits of the images, float [N].
        images: Points x̂, float [N, C, H, W], that require a gradient.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    # The root's slope is infinite at 0, where a D without any gradient is.
    norms = (gradient.square().sum(dim=(1, 2, 3)) + 1e-12).sqrt()
    return (norms - 1.0).square().mean()


def interpolate_pairs(reals: Tensor, fakes: Tensor, rng: ShardedRNG) -> Tensor:
    """Return wgan-gp's points x̂ = ε·x + (1 - ε)·G(z), ε ~ U(0, 1) per image (Gulrajani et al. 2017)."""
    epsilon = rng.rand(len(reals), 1, 1, 1)
    return fakes + epsilon * (reals - fakes)


def perturb_reals(reals: Tensor, std: Tensor, rng: ShardedRNG) -> Tensor:
    """Return dragan's points x̂ = x + α·½·std(x)·δ (Kodali et al. 2017).

    α ~ U(0, 1) is drawn per image and δ ~ U(0, 1) per pixel; `std` is a scalar, of the whole batch of reals.
    """
    alpha = rng.rand(len(reals), 1, 1, 1)
    delta = rng.rand(*reals.shape)
    return reals + alpha * (0.5 * std * delta)
