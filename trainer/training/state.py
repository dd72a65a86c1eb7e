"""The state of a training: networks, their average, optimizers, random numbers and counters."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainer import networks
from trainer.augmentation.adaptive import AdaptiveProbability
from trainer.config.schema import Config, Ema
from trainer.distributed.process_group import ProcessGroup
from trainer.distributed.sharded_rng import ShardedRNG
from trainer.errors import TrainerError
from trainer.networks.freezing import freeze_blocks
from trainer.quality import patience
from trainer.training.losses import AdversarialLoss, get_loss

RealBatches = list[tuple[Tensor, Tensor | None]]  # the real images of one step's batches, with their labels


@dataclass
class TrainState:
    """Everything that a checkpoint holds: two runs in the same state continue alike.

    Attributes:
        G_forward: G as a step calls it, so that gradients are means over the processes.
        D_forward: The same of D.
        rng: Random numbers of training latents and augmentations.
        images_seen: Real images shown to D.
        seconds: Time spent in training, over all interruptions.
        cpu_seconds: CPU time that this process spent in training, over all interruptions; None after resuming from a
            checkpoint that does not have it.
        sums: Sums of metrics since the last tick, on the device.
        gradient_norms: Norms of the last step's gradients before clipping; empty without clipping.
        best: {"step", "frechet"} of the lowest Fréchet distance so far.
        parent: What the weights started from, as finetune.Parent.record has it; None for a run from random weights.
        adaptive: The probability of augmentations, if `data.ada_target` steers it.
    """

    config: Config
    loss: AdversarialLoss
    G: networks.Generator
    D: networks.Discriminator
    G_ema: networks.Generator
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    rng: ShardedRNG
    device: torch.device
    group: ProcessGroup
    G_forward: nn.Module
    D_forward: nn.Module
    steps: int = 0
    images_seen: int = 0
    ticks: int = 0
    seconds: float = 0.0
    cpu_seconds: float | None = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    summed_steps: int = 0
    gradient_norms: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    parent: dict[str, Any] | None = None
    adaptive: AdaptiveProbability | None = None

    @classmethod
    def create(cls, config: Config, group: ProcessGroup | None = None) -> TrainState:
        """Return a state at step 0.

        Args:
            config: A config without `auto` (devices.resolve_auto).
            group: The processes that train together; this one has its share of each batch.

        Raises:
            TrainerError: If the networks or the loss from a user module cannot be loaded or do not fit the config, or
                D has fewer blocks than are to be frozen.
        """
        run, objective, group = config.run, config.objective, group or ProcessGroup()
        device = group.device(run.device)
        loss = get_loss(objective.name, objective.real_label, objective.fake_label, objective.g_label)
        torch.manual_seed(run.seed)
        G, D = networks.build(config)
        for network in (G, D):
            network.to(device).to(memory_format=torch.channels_last)
        freeze_blocks(D, config.optim.d_freeze)
        lazy = objective.r1_gamma > 0 or objective.r2_gamma > 0
        penalized = objective.gradient_penalty != "none" or (lazy and objective.penalty_method == "exact")
        return cls(
            config=config,
            loss=loss,
            G=G,
            D=D,
            G_ema=copy.deepcopy(G).eval().requires_grad_(False),
            g_optimizer=make_optimizer(config, G, config.optim.g_lr),
            d_optimizer=make_optimizer(config, D, config.optim.d_lr),
            rng=ShardedRNG(torch.Generator(device).manual_seed(run.seed), group),
            device=device,
            group=group,
            G_forward=group.prepare(G),
            D_forward=group.prepare(D, double_backward=penalized),
            adaptive=make_adaptive(config, loss, device),
        )

    @property
    def batch_size(self) -> int:
        """Number of a batch's images in this process."""
        return self.config.optim.batch_size // self.group.size

    @property
    def kimg(self) -> float:
        """Thousands of real images shown to D."""
        return self.images_seen / 1000

    @property
    def finished(self) -> bool:
        """Whether the run has reached its length, or used up its patience."""
        at_length = self.images_seen >= self.config.run.total_kimg * 1000
        return at_length or patience.is_exhausted(self.config, self.best, self.images_seen)

    @property
    def augment_p(self) -> float | Tensor:
        """Probability of each augmentation."""
        if self.adaptive is not None:
            return self.adaptive.p
        p = self.config.data.augment_p
        return 1.0 if p is None else p

    @property
    def lazy_weight(self) -> int:
        """Weight of γ in this step: `r1_interval` where R1 and R2 are due, and 0 elsewhere or without them."""
        objective = self.config.objective
        due = (objective.r1_gamma > 0 or objective.r2_gamma > 0) and self.steps % objective.r1_interval == 0
        return objective.r1_interval if due else 0

    def learning_rate(self, network: str) -> float:
        """Return the present learning rate of "G" or "D".

        It falls linearly, or along half a cosine (Loshchilov and Hutter 2017, equation 5, without restarts).
        """
        optim = self.config.optim
        rate = optim.g_lr if network == "G" else optim.d_lr
        if optim.decay_kimg is None:
            return rate
        start, end = optim.decay_kimg
        left = min(1.0, max(0.0, (end - self.kimg) / (end - start)))
        return rate * (left if optim.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2)


def make_adaptive(config: Config, loss: AdversarialLoss, device: torch.device) -> AdaptiveProbability | None:
    """Return the steering of the probability of augmentations, or None without `data.ada_target`.

    Raises:
        TrainerError: If the loss does not say which score is that of an undecided D.
    """
    data = config.data
    if data.ada_target is None:
        return None
    if loss.undecided is None:
        raise TrainerError(
            f"data.ada_target needs a loss under which an undecided D has a known score; {config.objective.name} does "
            "not name it (AdversarialLoss.undecided); use data.augment_p instead"
        )
    return AdaptiveProbability(data.augment_p or 0.0, data.ada_target, data.ada_kimg, device)


def make_optimizer(config: Config, network: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Return the optimizer of a network's weights that are not frozen, in its fastest form for the device."""
    device = config.run.device
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    capturable = device == "cuda"  # its counters are on the device, where a CUDA graph can advance them
    if config.optim.algorithm == "rmsprop":
        return torch.optim.RMSprop(weights, lr=lr, capturable=capturable)
    fused = device in {"cpu", "cuda"}
    return torch.optim.Adam(weights, lr=lr, betas=config.optim.betas, fused=fused, capturable=capturable)


def ema_decay(ema: Ema, batch_size: int, images_seen: int) -> float:
    """Return the share of the old average to keep after a batch: 0.5 ** (batch / half-life), both in images.

    Early on the half-life is at most `warmup` of the images seen, so that the initial weights are forgotten
    (Karras et al. 2021, appendix B).
    """
    halflife = ema.halflife_kimg * 1000
    if ema.warmup > 0:
        halflife = min(halflife, images_seen * ema.warmup)
    return 0.5 ** (batch_size / halflife) if halflife > 0 else 0.0


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Set average ← decay · average + (1 - decay) · network, over parameters and floating-point buffers.

    BatchNorm's running statistics are averaged with the weights they belong to; counters are copied.
    """
    ours, theirs = average.state_dict(), network.state_dict()
    floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], 1.0 - decay)
    for name in ours.keys() - set(floating):
        ours[name].copy_(theirs[name])
