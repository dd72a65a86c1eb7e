"""The algorithm: what a training step is, and what happens once a tick.

Goodfellow et al. 2014, algorithm 1, with Arjovsky et al. 2017's n_critic and clipping: `step` reads like it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trainer import networks
from trainer.config.agreement import PROBABILISTIC
from trainer.config.schema import Config, Optim
from trainer.data import Batches
from trainer.distributed.process_group import World
from trainer.distributed.sharded_rng import Draws
from trainer.errors import TrainingDiverged
from trainer.training import ema, losses
from trainer.training.cuda_graph import Graph
from trainer.training.diffaugment import augment

Shown = list[tuple[Tensor, Tensor | None]]  # the real batches of a step, with their labels


@dataclass
class State:
    """Everything that a checkpoint holds: two runs in the same state go on alike."""

    config: Config
    G: networks.Generator
    D: networks.Discriminator
    G_ema: networks.Generator
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    rng: Draws  # of training latents and augmentations
    device: torch.device
    world: World  # the processes that train together; a batch is theirs, this one has its share of it
    G_forward: nn.Module  # G and D as a step calls them, so that gradients are the whole batch's
    D_forward: nn.Module
    graph: Graph | None = None  # of the updates, where they are replayed as one
    steps: int = 0
    images_seen: int = 0  # real images shown to D
    ticks: int = 0
    seconds: float = 0.0  # spent training, over all its interruptions
    sums: dict[str, Tensor] = field(default_factory=dict)  # since the last tick, on the device
    summed_steps: int = 0
    gradient_norms: dict[str, Tensor] = field(default_factory=dict)  # before they were clipped, of the last step
    best: dict[str, float] = field(default_factory=dict)  # {"step", "frechet"} of the lowest Fréchet distance so far

    @classmethod
    def create(cls, config: Config, world: World | None = None) -> State:
        """A state at step 0. `config.run.device` and `precision` must be resolved (hardware.choose)."""
        run, world = config.run, world or World()
        device = world.device(run.device)
        torch.manual_seed(run.seed)
        G, D = networks.build(config)
        for network in (G, D):
            network.to(device)
            if config.model.architecture != "mlp":
                network.to(memory_format=torch.channels_last)
        G_ema = copy.deepcopy(G).eval().requires_grad_(False)
        penalized = config.objective.gradient_penalty != "none" or config.objective.r1_gamma > 0
        return cls(
            config=config,
            G=G,
            D=D,
            G_ema=G_ema,
            g_optimizer=make_optimizer(config, G, config.optim.g_lr),
            d_optimizer=make_optimizer(config, D, config.optim.d_lr),
            rng=Draws(torch.Generator(device).manual_seed(run.seed), world),
            device=device,
            world=world,
            G_forward=world.prepare(G),
            D_forward=world.prepare(D, twice=penalized),
            graph=Graph(updates, learning_rate) if run.cuda_graphs is True and world.size == 1 else None,
        )

    @property
    def batch_size(self) -> int:
        """Images of a batch that are this process's."""
        return self.config.optim.batch_size // self.world.size

    @property
    def kimg(self) -> float:
        return self.images_seen / 1000

    @property
    def finished(self) -> bool:
        return self.images_seen >= self.config.run.total_kimg * 1000


def make_optimizer(config: Config, network: nn.Module, lr: float) -> torch.optim.Optimizer:
    device = config.run.device
    capturable = device == "cuda"  # its counters are on the device, where a graph can count them on
    if config.optim.algorithm == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr=lr, capturable=capturable)
    fused = device in {"cpu", "cuda"}
    return torch.optim.Adam(network.parameters(), lr=lr, betas=config.optim.betas, fused=fused, capturable=capturable)


def draw_latents(state: State) -> Tensor:
    """A batch of training latents, float32 [B, z_dim], from the run's own random numbers."""
    shape = (state.batch_size, state.config.model.z_dim)
    if state.config.model.z_distribution == "uniform":
        return state.rng.rand(*shape).mul_(2).sub_(1)
    return state.rng.randn(*shape)


def draw_labels(state: State) -> Tensor | None:
    """A batch of labels, int64 [B], each class as likely; None for an unconditional model."""
    classes = state.G.classes
    if not classes:
        return None
    return state.rng.randint(0, classes, state.batch_size)


def generate(state: State) -> tuple[Tensor, Tensor | None]:
    """A batch of fakes float [B, C, H, W] and their labels."""
    z, labels = draw_latents(state), draw_labels(state)
    with autocast(state):
        return state.G_forward(z, labels), labels


def autocast(state: State, allowed: bool = True) -> AbstractContextManager[Any]:
    enabled = allowed and state.config.run.precision == "bf16"
    return torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=enabled)


def step(state: State, batches: Batches) -> None:
    """One round of updates, then the average of G. The updates may be a CUDA graph's (graphs.py)."""
    optim = state.config.optim
    shown = [batches.at(state.images_seen + update * optim.batch_size) for update in range(optim.n_critic)]
    (state.graph or updates)(state, shown)
    state.world.average_statistics(state.G, state.D)
    keep = ema.decay(state.config.ema, optim.batch_size * optim.n_critic, state.images_seen)
    ema.update(state.G_ema, state.G, keep)
    state.steps += 1
    state.summed_steps += 1


def updates(state: State, shown: Shown) -> None:
    """n_critic updates of D, each on a batch of real images, then g_steps updates of G.

    The last D update and the first G update share their fakes: one forward of G serves both.
    """
    optim = state.config.optim
    for reals in shown[:-1]:
        with torch.no_grad():
            fakes, labels = generate(state)
        update_discriminator(state, *reals, fakes, labels)
        state.images_seen += optim.batch_size

    fakes, labels = generate(state)
    update_discriminator(state, *shown[-1], fakes.detach(), labels)
    state.images_seen += optim.batch_size
    update_generator(state, fakes, labels)
    for _ in range(optim.g_steps - 1):
        update_generator(state, *generate(state))


def update_discriminator(
    state: State, reals: Tensor, real_labels: Tensor | None, fakes: Tensor, fake_labels: Tensor | None
) -> None:
    """One step of D on reals and detached fakes, both float [B, C, H, W]: one loss, one backward.

    R1 is lazy: every r1_interval steps with r1_interval times its weight (Karras et al. 2020, appendix B). Penalties
    are computed in float32; a critic's weights are clipped afterwards.
    """
    objective = state.config.objective
    r1 = objective.r1_gamma > 0 and state.steps % objective.r1_interval == 0
    reals, fakes = seen(state, reals).requires_grad_(r1), seen(state, fakes)
    with parametrize.cached():  # spectral normalisation: once for all of D's forwards
        real_logits, fake_logits = judge(state, reals, real_labels, fakes, fake_labels, exactly=r1)
        loss = total = losses.discriminator_loss(objective, real_logits, fake_logits)
        if r1:
            total = total + objective.r1_gamma * objective.r1_interval * losses.r1_penalty(real_logits, reals)
        if objective.gradient_penalty != "none":
            penalty = gradient_penalty(state, reals.detach(), real_labels, fakes)
            total = total + objective.gp_weight * penalty
    move(state, "D", state.D, state.d_optimizer, total)
    if objective.clip is not None:
        with torch.no_grad():
            bounded: list[Tensor] = list(state.D.parameters())
            torch._foreach_clamp_min_(bounded, -objective.clip)
            torch._foreach_clamp_max_(bounded, objective.clip)
    share = 1.0 / state.config.optim.n_critic
    opinion = opinions(state, real_logits, fake_logits)
    add(state, {"loss/D": loss, "D/real": opinion[0], "D/fake": opinion[1]}, share)
    if objective.gradient_penalty != "none":
        add(state, {"loss/penalty": penalty}, share)


def judge(
    state: State, reals: Tensor, real_labels: Tensor | None, fakes: Tensor, fake_labels: Tensor | None, exactly: bool
) -> tuple[Tensor, Tensor]:
    """D's logits of reals and of fakes, float32 [B] each; those of reals computed in float32 if `exactly`.

    One forward serves both where D looks at each image by itself; BatchNorm would mix reals with fakes.
    """
    with autocast(state):  # one context, in which each of D's weights is cast once
        if state.D.mixes_images or exactly:
            with autocast(state, allowed=not exactly):
                real_logits = state.D_forward(reals, real_labels)
            fake_logits = state.D_forward(fakes, fake_labels)
        else:
            labels = None if real_labels is None or fake_labels is None else torch.cat([real_labels, fake_labels])
            real_logits, fake_logits = state.D_forward(torch.cat([reals, fakes]), labels).chunk(2)
    return real_logits.float(), fake_logits.float()


def gradient_penalty(state: State, reals: Tensor, labels: Tensor | None, fakes: Tensor) -> Tensor:
    """How far |∇D| is from 1, between reals and fakes (wgan-gp) or around the reals (dragan), in float32."""
    if state.config.objective.gradient_penalty == "wgan-gp":
        points = losses.between(reals, fakes.float(), state.rng)
    else:
        points = losses.around(reals, state.world.std(reals), state.rng)
    points.requires_grad_()
    with autocast(state, allowed=False):
        return losses.unit_gradient_penalty(state.D_forward(points, labels), points)


def update_generator(state: State, fakes: Tensor, labels: Tensor | None) -> None:
    """One step of G through D, whose weights take no gradient meanwhile."""
    state.D.requires_grad_(False)
    try:
        with autocast(state):
            logits = state.D(seen(state, fakes), labels)
        loss = losses.generator_loss(state.config.objective, logits.float())
        move(state, "G", state.G, state.g_optimizer, loss)
    finally:  # a recording that fails here goes on without a graph
        state.D.requires_grad_(True)
    add(state, {"loss/G": loss}, 1.0 / state.config.optim.g_steps)


def move(state: State, which: str, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Backward and a step of the optimizer, at the learning rate that is due."""
    optim = state.config.optim
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if optim.clip_grad_norm is not None:
        state.gradient_norms[which] = nn.utils.clip_grad_norm_(network.parameters(), optim.clip_grad_norm)
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], Tensor):  # a graph's is set between its replays
            group["lr"] = learning_rate(state, which)
    optimizer.step()


def learning_rate(state: State, which: str) -> float:
    """The one that is due, of "G" or "D"."""
    optim = state.config.optim
    return (optim.g_lr if which == "G" else optim.d_lr) * learning_rate_share(optim, state.kimg)


def learning_rate_share(optim: Optim, kimg: float) -> float:
    """1 before decay_kimg's first number, 0 from its second on, a straight line between."""
    if optim.decay_kimg is None:
        return 1.0
    start, end = optim.decay_kimg
    return min(1.0, max(0.0, (end - kimg) / (end - start)))


def seen(state: State, images: Tensor) -> Tensor:
    """What D sees of images, real or fake: augmented, and under instance noise (Sønderby et al. 2017)."""
    data = state.config.data
    images = augment(images, data.augment, state.rng)
    if data.noise_std:
        left = 1.0 if data.noise_kimg is None else max(0.0, 1.0 - state.kimg / data.noise_kimg)
        noise = state.rng.randn(*images.shape)
        images = images + data.noise_std * left * noise
    return images


def opinions(state: State, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean D(x) and D(G(z)): probabilities where D gives some, else scores."""
    reals, fakes = real_logits.detach(), fake_logits.detach()
    if state.config.objective.name in PROBABILISTIC:
        reals, fakes = reals.sigmoid(), fakes.sigmoid()
    return reals.mean(), fakes.mean()


def add(state: State, values: dict[str, Tensor], share: float) -> None:
    """Sum on the device; reading a value there would wait for it, so that happens once a tick."""
    for name, value in values.items():
        total = state.sums.get(name)
        value = value.detach() * share
        state.sums[name] = value if total is None else total + value


def take_means(state: State) -> dict[str, float]:
    """Means a step since the last tick, and the last step's gradient norms; the sums start again at nothing."""
    means = {name: (total / max(state.summed_steps, 1)).item() for name, total in state.world.mean(state.sums).items()}
    state.sums, state.summed_steps = {}, 0
    return means | {name: float(norm) for name, norm in gradient_norms(state).items()}


def gradient_norms(state: State) -> dict[str, Tensor]:
    """Of the last step, before they were clipped, by the names that metrics have."""
    networks = {"G": state.G, "D": state.D}
    norms = {which: state.gradient_norms.get(which) for which in networks}
    return {
        f"gradient/{which}": gradient_norm(networks[which]) if norm is None else norm for which, norm in norms.items()
    }


def gradient_norm(network: nn.Module) -> Tensor:
    """Euclidean norm of all the gradients that the last step left behind, a scalar."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm() if gradients else torch.zeros(())


def check_finite(state: State) -> None:
    """Raises TrainingDiverged when a loss since the last tick was NaN or infinite, or a gradient of the last step is.

    A gradient that overflows breaks the weights, which the losses show only a step later.
    """
    told = {name: value.to(state.device) for name, value in (state.sums | gradient_norms(state)).items()}
    broken = [name for name, value in state.world.mean(told).items() if not value.isfinite()]
    if broken:
        raise TrainingDiverged(
            f"{' and '.join(broken)} became NaN or infinite before {state.kimg:.1f} kimg; the last checkpoint is kept; "
            "try a lower optim.g_lr and optim.d_lr, or run.precision=fp32"
        )


class Watcher(Protocol):
    """What the loop tells of its progress; see monitor.py."""

    def stepped(self, state: State) -> None: ...

    def ticked(self, state: State, means: dict[str, float]) -> None: ...


def train(
    state: State,
    batches: Batches,
    watcher: Watcher,
    save: Callable[[State], None],
    should_stop: Callable[[], bool] = lambda: False,
    measure: Callable[[State], dict[str, float]] | None = None,
) -> bool:
    """Train until total_kimg, or until `should_stop` after a step; True when it reached the end.

    `measure` tells the quality of G_ema (quality.py), every `quality_ticks` ticks and at the end. `save` writes a
    checkpoint: every `checkpoint_ticks` ticks, when quality is the best so far, at the end, and when stopped.
    Raises TrainingDiverged when a loss or a gradient is NaN or infinite, before anything of it is saved.
    """
    run = state.config.run
    tick_images = run.tick_kimg * 1000
    started = time.perf_counter() - state.seconds
    while not state.finished:
        if should_stop():
            check_finite(state)
            save(state)
            return False
        step(state, batches)
        state.seconds = time.perf_counter() - started
        watcher.stepped(state)
        if state.images_seen < (state.ticks + 1) * tick_images and not state.finished:
            continue

        check_finite(state)
        means = take_means(state)
        before, state.ticks = state.ticks, int(state.images_seen // tick_images)
        best = False
        if measure is not None and due(before, state, run.quality_ticks):
            means |= measure(state)
            best = note_if_best(state, means["quality/frechet"])
        state.seconds = time.perf_counter() - started
        watcher.ticked(state, means)
        if best or due(before, state, run.checkpoint_ticks):
            save(state)
    return True


def due(ticks_before: int, state: State, every: int) -> bool:
    """Whether a multiple of `every` ticks was reached since, or the end; never where `every` is 0."""
    return every > 0 and (ticks_before // every != state.ticks // every or state.finished)


def note_if_best(state: State, frechet: float) -> bool:
    """Remember this step if no Fréchet distance before it was lower; True if so."""
    if frechet >= state.best.get("frechet", float("inf")):
        return False
    state.best = {"step": state.steps, "frechet": frechet}
    return True
