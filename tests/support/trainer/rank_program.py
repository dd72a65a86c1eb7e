"""What two processes do that train together, started by torchrun: `rank_program.py OUTPUT`; rank 0 writes OUTPUT.

Many cases in one launch, because a launch costs seconds. test_fabric.py reads what they found.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.trainer.tiny_run import TINY, tensors
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.distributed.fabric import FabricProcessGroup
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import TrainingDiverged
from trainer.training import checkpoint, loop
from trainer.training.state import TrainState

Sections = dict[str, dict[str, Any]]

MLP: dict[str, Any] = {"architecture": "mlp", "g_widths": [16], "d_widths": [16], "init": "default"}
UNBIASED = {"bias": "none"}  # a critic's last bias has no gradient but rounding errors, which Adam makes whole steps of
FAST = {"g_lr": 5e-3, "d_lr": 5e-3}  # so that six steps go somewhere
LABELLED: Sections = {"model": {"conditional": True}, "data": {"class_names": ["a", "b", "c"]}}

# the losses of these, in float32, are one process's
AS_ONE: dict[str, Sections] = {
    "mlp": {"model": MLP},
    "mlp, uniform z, two G steps": {"model": MLP | {"z_distribution": "uniform"}, "optim": {"g_steps": 2}},
    "mlp, wgan-gp, three D steps": {
        "model": MLP | UNBIASED,
        "objective": {"name": "wasserstein", "gradient_penalty": "wgan-gp"},
        "optim": {"n_critic": 3},
    },
    "mlp, dragan": {"model": MLP, "objective": {"gradient_penalty": "dragan"}},
    "mlp, R1": {"model": MLP, "objective": {"r1_gamma": 1.0, "r1_interval": 2}},
    "mlp, pairs, R1 and R2": {
        "model": MLP | UNBIASED,
        "objective": {"name": "relativistic", "r1_gamma": 1.0, "r2_gamma": 0.5, "r1_interval": 2},
        "optim": {"g_steps": 2},
    },
    "mlp, finite differences": {
        "model": MLP,
        "objective": {"r1_gamma": 1.0, "r2_gamma": 0.5, "penalty_method": "finite-differences"},
    },
    "mlp, clipped critic": {
        "model": MLP,
        "objective": {"name": "wasserstein", "clip": 0.01},
        "optim": {"algorithm": "rmsprop", "n_critic": 2, "d_lr": 1e-3},
    },
    "mlp, everything random": {
        "model": MLP | UNBIASED | {"d_spectral_norm": True},
        "objective": {"name": "hinge"},
        "data": {"augment": ["color", "translation", "cutout"], "noise_std": 0.1, "flip": True},
        "optim": {"clip_grad_norm": 0.1},
    },
    "mlp, adaptive augmentation": {
        "model": MLP,
        "data": {
            "augment": ["flip", "rotate90", "scale", "brightness", "contrast"],
            "augment_p": 0.4,
            "ada_target": 0.6,
            "ada_kimg": 0.1,
        },
    },
}
# BatchNorm normalises by each process's share of the batch on a CPU: not one process's losses, but equal weights
OTHERS: dict[str, Sections] = {
    "dcgan": {},
    "dcgan, conditional, bf16": LABELLED | {"run": {"precision": "bf16"}},
    "dcgan, R1, augmented": {"objective": {"r1_gamma": 1.0, "r1_interval": 2}, "data": {"augment": ["color"]}},
    "dcgan, minibatch std": {"model": {"d_norm": "none", "d_minibatch_std": True}, "objective": {"r1_gamma": 1.0}},
    "dcgan, frozen": {
        "optim": {"d_freeze": 1},
        "model": {"d_widths": [8, 8], "d_spectral_norm": True},
        "objective": {"r1_gamma": 1.0, "r1_interval": 2},
    },
    "dcgan, dragan": {"objective": {"gradient_penalty": "dragan"}},
    "dcgan, wgan-gp": {
        "objective": {"name": "wasserstein", "gradient_penalty": "wgan-gp"},
        "model": {"d_norm": "layer"},
        "optim": {"n_critic": 2},
    },
    "sndcgan": {
        "objective": {"name": "hinge"},
        "model": {"architecture": "sndcgan", "d_norm": "none", "d_widths": [4, 8], "d_spectral_norm": True},
        "optim": {"n_critic": 2, "g_steps": 2},
    },
    "fastgan, R1, bf16": {
        "objective": {"name": "hinge", "r1_gamma": 1.0, "r1_interval": 2},
        "model": {"architecture": "fastgan", "g_widths": [8, 8, 8], "d_widths": [8, 8]},
        "data": {"resolution": 16, "augment": ["translation"]},
        "run": {"precision": "bf16"},
    },
    "resnet, conditional": {
        "objective": {"name": "hinge"},
        "model": {
            "architecture": "resnet",
            "g_widths": [8, 8],
            "d_widths": [8, 8],
            "conditional": True,
            "d_spectral_norm": True,
        },
        "data": {"class_names": ["a", "b", "c"]},
    },
}


def config_of(sections: Sections) -> Config:
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY.items()}
    merged["optim"] |= FAST
    for section, fields in sections.items():
        merged.setdefault(section, {}).update(fields)
    return loading.parse(merged)


def batches_of(config: Config, world: ProcessGroup) -> Batches:
    side = config.data.resolution
    images = np.random.default_rng(0).integers(0, 256, (50, side, side, 1), dtype=np.uint8)
    return Batches(
        images,
        config.optim.batch_size,
        seed=0,
        device=torch.device("cpu"),
        labels=np.arange(50) % 3 if config.model.conditional else None,
        flip=config.data.flip,
        share=world.share(config.optim.batch_size),
    )


def train(
    config: Config, world: ProcessGroup, steps: int = 6, state: TrainState | None = None
) -> tuple[TrainState, list[Any]]:
    """The state after some steps, and what a tick would tell after each."""
    state = state or TrainState.create(config, world)
    batches, result = batches_of(config, world), []
    for _ in range(steps):
        loop.train_iteration(state, batches)
        result.append(loop.pop_means(state))
    return state, result


def digest(state: TrainState) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors(state).items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def everyones(value: Any) -> list[Any]:
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found


def resumes(config: Config, ranks: FabricProcessGroup) -> dict[str, Any]:
    """Four steps, saved in the middle of a tick, two more: as six without a pause? And by one process alone?"""
    batches = batches_of(config, ranks)
    whole, paused = TrainState.create(config, ranks), TrainState.create(config, ranks)
    for _ in range(6):
        loop.train_iteration(whole, batches)
    for _ in range(4):
        loop.train_iteration(paused, batches)
    folder = Path(ranks.broadcast(tempfile.mkdtemp() if ranks.is_main else ""))
    path = checkpoint.save(paused, folder, keep=1)
    ranks.wait()
    payload = checkpoint.read(path)
    resumed = checkpoint.restore(payload, config, ranks)
    for _ in range(2):
        loop.train_iteration(resumed, batches)
    same = everyones(digest(resumed) == digest(whole))
    alone = checkpoint.restore(payload, config)
    means = {name: total.item() for name, total in ranks.mean(paused.sums).items()}
    return {
        "to the last bit": all(same),
        "processes": payload["processes"],
        "sums": means,
        "sums alone": {name: total.item() for name, total in alone.sums.items()},
        "weights alone": all(
            torch.equal(a, b) for a, b in zip(alone.G.parameters(), paused.G.parameters(), strict=True)
        ),
    }


def frozen_weights_stay(config: Config, ranks: FabricProcessGroup) -> list[bool]:
    """Whether D's frozen block, in each process, is the one it began with after six steps, and the others are not."""
    state = TrainState.create(config, ranks)
    before = {name: weight.detach().clone() for name, weight in state.D.named_parameters()}
    train(config, ranks, state=state)
    same = [
        name.startswith("net.0.") == torch.equal(weight, before[name]) for name, weight in state.D.named_parameters()
    ]
    return everyones(all(same))


def diverges(config: Config, ranks: FabricProcessGroup) -> list[str]:
    """What each process says when one of them alone meets a NaN."""
    state, _ = train(config, ranks, 1)
    loop.train_iteration(state, batches_of(config, ranks))
    if ranks.rank == 1:
        state.sums["loss/D"].fill_(float("nan"))
    try:
        loop.check_finite(state)
        said = ""
    except TrainingDiverged as error:
        said = str(error)
    return everyones(said)


def stops(ranks: FabricProcessGroup) -> list[list[bool]]:
    """What each process hears, call by call, when the second one asks at its third."""
    heard = [ranks.any(ranks.rank == 1 and call == 2) for call in range(4)]
    return everyones(heard)


def note_end(output: Path) -> None:
    """Record whether this process left the group; registered before it joins, so that it runs after it left."""
    left = not torch.distributed.is_initialized()
    output.with_name(f"left-{os.environ['RANK']}").write_text(str(left), encoding="utf-8")


def main(output: Path) -> None:
    torch.set_num_threads(1)
    atexit.register(note_end, output)
    ranks, _ = FabricProcessGroup.join(config_of({}), {})
    found: dict[str, Any] = {"equal": {}, "losses": {}}
    for name, sections in (AS_ONE | OTHERS).items():
        config = config_of(sections)
        state, result = train(config, ranks)
        digests = everyones(digest(state))
        found["equal"][name] = len(digests) == 2 and digests[0] == digests[1]
        if name in AS_ONE:
            found["losses"][name] = result, train(config, ProcessGroup())[1]
    found["resumed"] = {
        name: resumes(config_of((AS_ONE | OTHERS)[name]), ranks)
        for name in ("mlp", "mlp, adaptive augmentation", "dcgan, dragan")
    }
    found["frozen"] = frozen_weights_stay(config_of(OTHERS["dcgan, frozen"]), ranks)
    found["diverges"] = diverges(config_of({}), ranks)
    found["stops"] = stops(ranks)
    values = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    found["std"] = ranks.std(values[ranks.share(8)]).item(), values.std().item()
    if ranks.is_main:
        output.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
