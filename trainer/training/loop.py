"""The training algorithm: one iteration (the updates of D and G), and what happens once per tick.

Goodfellow et al. 2014, algorithm 1, with n_critic and clipping of Arjovsky et al. 2017.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trainer.augmentation.adaptive import WINDOW
from trainer.augmentation.policies import augment
from trainer.data import Batches
from trainer.errors import TrainingDiverged
from trainer.training import losses
from trainer.training.cuda_graph import CudaGraphStep
from trainer.training.state import RealBatches, TrainState, ema_decay, update_ema

Step = Callable[[TrainState, RealBatches], None]


class Callback:
    """What the loop calls as it progresses. This one does nothing; see logger.py."""

    def on_step(self, state: TrainState) -> None:
        """Called after each iteration."""

    def on_tick(self, state: TrainState, means: dict[str, float]) -> None:
        """Called after each tick with the means of its metrics."""


def train(
    state: TrainState,
    batches: Batches,
    callback: Callback,
    save: Callable[[TrainState], None],
    should_stop: Callable[[], bool] = lambda: False,
    measure: Callable[[TrainState], dict[str, float]] | None = None,
) -> bool:
    """Train until total_kimg, until patience_ticks without better quality, or until `should_stop` returns True.

    Args:
        state: The state to train.
        batches: The real images.
        callback: Called after each iteration and each tick.
        save: Writes a checkpoint: every `checkpoint_ticks` ticks, when quality is the best so far, at the end, and
            when stopped.
        should_stop: Called before each iteration.
        measure: Measures G_ema (proxy_metrics.py), every `quality_ticks` ticks and at the end.

    Returns:
        Whether the run reached its end.

    Raises:
        TrainingDiverged: If a loss or a gradient is NaN or infinite; nothing of it is saved.
    """
    run = state.config.run
    tick_images = run.tick_kimg * 1000
    step = CudaGraphStep(train_step) if run.cuda_graphs is True and state.group.size == 1 else train_step
    started, cpu_started = time.perf_counter() - state.seconds, time.process_time() - (state.cpu_seconds or 0.0)

    def update_times() -> None:
        state.seconds = time.perf_counter() - started
        if state.cpu_seconds is not None:
            state.cpu_seconds = time.process_time() - cpu_started

    while not state.finished:
        if should_stop():
            check_finite(state)
            save(state)
            return False
        train_iteration(state, batches, step)
        update_times()
        callback.on_step(state)
        if state.images_seen < (state.ticks + 1) * tick_images and not state.finished:
            continue

        check_finite(state)
        means = pop_means(state)
        before, state.ticks = state.ticks, int(state.images_seen // tick_images)
        is_best = False
        if measure is not None and is_due(before, state, run.quality_ticks):
            means |= measure(state)
            is_best = update_best(state, means["quality/frechet"])
        update_times()
        callback.on_tick(state, means)
        if is_best or is_due(before, state, run.checkpoint_ticks):
            save(state)
    return True


def train_iteration(state: TrainState, batches: Batches, step: Step | None = None) -> None:
    """Run one step on the next real batches, then update the average of G.

    Args:
        state: The state to train.
        batches: The real images.
        step: `train_step`, or a CUDA graph of it.
    """
    optim = state.config.optim
    reals = [batches.at(state.images_seen + update * optim.batch_size) for update in range(optim.n_critic)]
    (step or train_step)(state, reals)
    state.group.average_statistics(state.G, state.D)
    decay = ema_decay(state.config.ema, optim.batch_size * optim.n_critic, state.images_seen)
    update_ema(state.G_ema, state.G, decay)
    state.steps += 1
    state.summed_steps += 1
    if state.adaptive is not None and state.steps % WINDOW == 0:
        state.adaptive.adjust(WINDOW * optim.n_critic * optim.batch_size, state.group)


def train_step(state: TrainState, reals: RealBatches) -> None:
    """Update D n_critic times, each on a batch of real images, then G g_steps times.

    The last D update and the first G update share their fakes, one forward of G for both, if `optim.reuse_fakes`.
    """
    optim = state.config.optim
    for images, labels in reals[:-1]:
        with torch.no_grad():
            fakes, fake_labels = generate(state, labels)
        update_discriminator(state, images, labels, fakes, fake_labels)
        state.images_seen += optim.batch_size

    images, labels = reals[-1]
    with torch.set_grad_enabled(optim.reuse_fakes):
        fakes, fake_labels = generate(state, labels)
    update_discriminator(state, images, labels, fakes.detach(), fake_labels)
    state.images_seen += optim.batch_size
    if not optim.reuse_fakes:
        fakes, fake_labels = generate(state, labels)
    update_generator(state, fakes, fake_labels, images, labels)
    for _ in range(optim.g_steps - 1):
        update_generator(state, *generate(state, labels), images, labels)


def generate(state: TrainState, real_labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return a batch of fakes, float [B, C, H, W], and their labels: those of the reals for a loss of pairs."""
    z = draw_latents(state)
    labels = real_labels if state.loss.takes_pairs else draw_labels(state)
    with autocast(state):
        return state.G_forward(z, labels), labels


def draw_latents(state: TrainState) -> Tensor:
    """Draw a batch of training latents, float32 [B, z_dim]."""
    shape = (state.batch_size, state.config.model.z_dim)
    if state.config.model.z_distribution == "uniform":
        return state.rng.rand(*shape).mul_(2).sub_(1)
    return state.rng.randn(*shape)


def draw_labels(state: TrainState) -> Tensor | None:
    """Draw a batch of labels uniformly, int64 [B]; None for an unconditional model."""
    classes = state.G.classes
    return state.rng.randint(0, classes, state.batch_size) if classes else None


def autocast(state: TrainState, enabled: bool = True) -> AbstractContextManager[Any]:
    """Return the context of mixed precision, if the run uses it and `enabled`."""
    enabled = enabled and state.config.run.precision == "bf16"
    return torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=enabled)


def update_discriminator(
    state: TrainState, reals: Tensor, real_labels: Tensor | None, fakes: Tensor, fake_labels: Tensor | None
) -> None:
    """Update D once on reals and detached fakes, both float [B, C, H, W]: one loss, one backward.

    R1 (of reals) and R2 (of fakes) are lazy: every r1_interval steps with r1_interval times their weight (Karras et al.
    2020, appendix B). Penalties are computed in float32; a critic's weights are clipped afterwards.
    """
    objective = state.config.objective
    exact = objective.penalty_method == "exact"
    inputs = []
    for images, labels, gamma in ((reals, real_labels, objective.r1_gamma), (fakes, fake_labels, objective.r2_gamma)):
        images, weight = augment_for_discriminator(state, images).detach(), gamma * state.lazy_weight
        if weight:
            images = images.float().requires_grad_(exact)
        inputs.append(DInput(images, labels, weight))
    penalized = [each for each in inputs if each.weight]
    moved = [] if exact else [each._replace(images=losses.move_images(each.images, state.rng)) for each in penalized]
    with parametrize.cached():  # spectral normalization: once for all of D's forwards
        (real_logits, fake_logits, *moved_logits), features = discriminator_logits(state, [*inputs, *moved])
        loss = total = state.loss.d(real_logits, fake_logits)
        if state.D.decoders is not None:
            with autocast(state):
                reconstruction = state.D.reconstruction_loss(inputs[0].images.detach(), features, state.rng)
            total = total + objective.reconstruction_weight * reconstruction
        if penalized:
            logits = [found for each, found in zip(inputs, (real_logits, fake_logits), strict=True) if each.weight]
            if exact:
                penalties = losses.zero_centered_penalties(logits, [each.images for each in penalized])
            else:
                penalties = list(map(losses.finite_difference_penalty, logits, moved_logits))
            total = total + sum(each.weight * found for each, found in zip(penalized, penalties, strict=True))
        if objective.gradient_penalty != "none":
            reals, fakes = (each.images.detach() for each in inputs)
            penalty = gradient_penalty(state, reals, real_labels, fakes)
            total = total + objective.gp_weight * penalty
    optimizer_step(state, "D", state.D, state.d_optimizer, total)
    if objective.clip is not None:
        with torch.no_grad():
            weights: list[Tensor] = [weight for weight in state.D.parameters() if weight.requires_grad]
            torch._foreach_clamp_min_(weights, -objective.clip)
            torch._foreach_clamp_max_(weights, objective.clip)
    share = 1.0 / state.config.optim.n_critic
    mean_real, mean_fake = mean_scores(state, real_logits, fake_logits)
    accumulate(state, {"loss/D": loss, "D/real": mean_real, "D/fake": mean_fake}, share)
    if state.adaptive is not None:
        scores = state.loss.centered(real_logits.detach(), fake_logits.detach())
        accumulate(state, {"augment/r_t": state.adaptive.observe(scores)}, share)
    if objective.gradient_penalty != "none":
        accumulate(state, {"loss/penalty": penalty}, share)
    if state.D.decoders is not None:
        accumulate(state, {"loss/reconstruction": reconstruction}, share)


class DInput(NamedTuple):
    """A batch for D: images float [B, C, H, W], their labels, and the weight of a penalty on D's gradient there."""

    images: Tensor
    labels: Tensor | None
    weight: float


def discriminator_logits(state: TrainState, inputs: Sequence[DInput]) -> tuple[list[Tensor], Any]:
    """Return D's logits of each batch, float32 [B]; those of batches with a penalty without autocast.

    One forward serves all batches of a precision where D treats each image separately; BatchNorm would mix them. The
    features of the forward that begins with the first batch are returned too, where D reconstructs images of them.
    """
    numbers = range(len(inputs))
    if state.D.mixes_images:
        groups = [[number] for number in numbers]
    else:
        groups = [[number for number in numbers if bool(inputs[number].weight) is float32] for float32 in (True, False)]
    logits: dict[int, Tensor] = {}
    features: Any = None
    with autocast(state):  # one context, in which each of D's weights is cast once
        for group in filter(None, groups):
            batch = [inputs[number] for number in group]
            labels = [each.labels for each in batch if each.labels is not None]
            with autocast(state, enabled=not batch[0].weight):
                arguments = concatenate([each.images for each in batch]), concatenate(labels)
                if state.D.decoders is not None and group[0] == 0:
                    found, features = state.D_forward(*arguments, with_features=True)
                else:
                    found = state.D_forward(*arguments)
            logits |= zip(group, found.float().chunk(len(group)), strict=True)
    return [logits[number] for number in numbers], features


def concatenate(tensors: Sequence[Tensor]) -> Tensor | None:
    """Return the rows of all tensors, without a copy where there is one; None where there is none."""
    return torch.cat(list(tensors)) if len(tensors) > 1 else next(iter(tensors), None)


def gradient_penalty(state: TrainState, reals: Tensor, labels: Tensor | None, fakes: Tensor) -> Tensor:
    """Return how far |∇D| is from 1, between reals and fakes (wgan-gp) or around the reals (dragan), in float32."""
    if state.config.objective.gradient_penalty == "wgan-gp":
        points = losses.interpolate_pairs(reals, fakes.float(), state.rng)
    else:
        points = losses.perturb_reals(reals, state.group.std(reals), state.rng)
    points.requires_grad_()
    with autocast(state, enabled=False):
        return losses.unit_gradient_penalty(state.D_forward(points, labels), points)


def update_generator(
    state: TrainState,
    fakes: Tensor,
    labels: Tensor | None,
    reals: Tensor | None = None,
    real_labels: Tensor | None = None,
) -> None:
    """Update G once through D, whose weights take no gradient. A loss of pairs requires the reals."""
    trained = [weight for weight in state.D.parameters() if weight.requires_grad]  # the others are frozen
    set_requires_grad(trained, False)
    try:
        with autocast(state), parametrize.cached():
            logits = [state.D(augment_for_discriminator(state, fakes), labels).float()]
            if state.loss.takes_pairs:
                assert reals is not None
                with torch.no_grad():
                    reals = augment_for_discriminator(state, reals)
                    logits.insert(0, state.D(reals, real_labels).float())
        loss = state.loss.g(*logits)
        optimizer_step(state, "G", state.G, state.g_optimizer, loss)
    finally:  # training continues without a graph if its capture fails here
        set_requires_grad(trained, True)
    accumulate(state, {"loss/G": loss}, 1.0 / state.config.optim.g_steps)


def set_requires_grad(weights: Sequence[Tensor], flag: bool) -> None:
    """Set whether weights take a gradient."""
    for weight in weights:
        weight.requires_grad_(flag)


def optimizer_step(
    state: TrainState, which: str, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor
) -> None:
    """Run the backward and a step of the optimizer, at the present learning rate."""
    optim = state.config.optim
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if optim.clip_grad_norm is not None:
        state.gradient_norms[which] = nn.utils.clip_grad_norm_(network.parameters(), optim.clip_grad_norm)
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], Tensor):  # a CUDA graph's is set between its replays
            group["lr"] = state.learning_rate(which)
    optimizer.step()


def augment_for_discriminator(state: TrainState, images: Tensor) -> Tensor:
    """Return images, real or fake, augmented and with instance noise (Sønderby et al. 2017)."""
    data = state.config.data
    images = augment(images, data.augment, state.rng, state.augment_p)
    if data.noise_std:
        strength = 1.0 if data.noise_kimg is None else max(0.0, 1.0 - state.kimg / data.noise_kimg)
        images = images + data.noise_std * strength * state.rng.randn(*images.shape)
    return images


def mean_scores(state: TrainState, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean D(x) and D(G(z)): probabilities where D's loss defines them, else scores."""
    reals, fakes = real_logits.detach(), fake_logits.detach()
    if state.loss.probabilistic:
        reals, fakes = reals.sigmoid(), fakes.sigmoid()
    return reals.mean(), fakes.mean()


def accumulate(state: TrainState, values: dict[str, Tensor], share: float) -> None:
    """Add metrics to the tick's sums, on the device: reading a value waits for it, so that happens once per tick."""
    for name, value in values.items():
        total = state.sums.get(name)
        value = value.detach() * share
        state.sums[name] = value if total is None else total + value


def pop_means(state: TrainState) -> dict[str, float]:
    """Return the means per step since the last tick, the last gradient norms and the present p; reset the sums."""
    means = {name: (total / max(state.summed_steps, 1)).item() for name, total in state.group.mean(state.sums).items()}
    state.sums, state.summed_steps = {}, 0
    if state.adaptive is not None:
        means["augment/p"] = state.adaptive.p.item()
    return means | {name: float(norm) for name, norm in gradient_norms(state).items()}


def gradient_norms(state: TrainState) -> dict[str, Tensor]:
    """Return the norms of the last step's gradients before clipping, under the names that metrics have."""
    found = {}
    for which, network in (("G", state.G), ("D", state.D)):
        norm = state.gradient_norms.get(which)
        found[f"gradient/{which}"] = gradient_norm(network) if norm is None else norm
    return found


def gradient_norm(network: nn.Module) -> Tensor:
    """Return the Euclidean norm of the last step's gradients, a scalar."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm() if gradients else torch.zeros(())


def check_finite(state: TrainState) -> None:
    """Raise TrainingDiverged if a loss since the last tick, or a gradient of the last step, is NaN or infinite.

    A gradient that overflows breaks the weights, which the losses show only one step later.
    """
    values = {name: value.to(state.device) for name, value in (state.sums | gradient_norms(state)).items()}
    broken = [name for name, value in state.group.mean(values).items() if not value.isfinite()]
    if broken:
        raise TrainingDiverged(
            f"{' and '.join(broken)} became NaN or infinite before {state.kimg:.1f} kimg; the last checkpoint is kept; "
            f"try a lower optim.g_lr and optim.d_lr{_penalty_weights(state)}, or run.precision=fp32"
        )


def _penalty_weights(state: TrainState) -> str:
    """Return the weights of the penalties that are on, each after a comma."""
    objective = state.config.objective
    weights = {"r1_gamma": objective.r1_gamma > 0, "r2_gamma": objective.r2_gamma > 0}
    weights["gp_weight"] = objective.gradient_penalty != "none"
    return "".join(f", a lower objective.{name}" for name, on in weights.items() if on)


def is_due(ticks_before: int, state: TrainState, every: int) -> bool:
    """Return whether a multiple of `every` ticks was reached since, or the end; never where `every` is 0."""
    return every > 0 and (ticks_before // every != state.ticks // every or state.finished)


def update_best(state: TrainState, frechet: float) -> bool:
    """Record this step if no earlier Fréchet distance was lower, and return whether it was recorded."""
    if frechet >= state.best.get("frechet", float("inf")):
        return False
    state.best = {"step": state.steps, "frechet": frechet}
    return True
