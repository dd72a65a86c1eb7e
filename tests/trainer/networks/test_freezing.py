"""Frozen blocks of D: which they are, and that their weights never change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainer import networks
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.errors import TrainerError
from trainer.networks.freezing import d_blocks, freeze_blocks
from trainer.training import loop
from trainer.training.state import TrainState

Tiny = Callable[..., Config]
BatchesOf = Callable[[Config], Batches]

BLOCKS: dict[str, tuple[dict[str, Any], list[list[str]]]] = {
    "mlp": (
        {"architecture": "mlp", "g_widths": [8], "d_widths": [8, 9]},
        [["net.1", "net.2"], ["net.3", "net.4"]],
    ),
    "dcgan": ({"d_widths": [8, 8]}, [["net.0", "net.1"], ["net.2", "net.3", "net.4"]]),
    "sndcgan": (
        {"architecture": "sndcgan", "d_widths": [4, 8], "d_norm": "none"},
        [["net.0", "net.1"], ["net.2", "net.3"], ["net.4", "net.5"]],
    ),
    "resnet": (
        {"architecture": "resnet", "g_widths": [8, 8], "d_widths": [8, 8]},
        [["net.0"], ["net.1", "net.2"]],
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_d_blocks_begin_at_the_image(name: str, tiny: Tiny) -> None:
    model, expected = BLOCKS[name]
    D = networks.build(tiny(model=model))[1]
    assert [list(block) for block in d_blocks(D)] == expected


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_freeze_blocks_leaves_the_others_trainable(name: str, spectral_norm: bool, tiny: Tiny) -> None:
    model, blocks = BLOCKS[name]
    for count in range(len(blocks) + 1):
        state = TrainState.create(tiny(model=model | {"d_spectral_norm": spectral_norm}, optim={"d_freeze": count}))
        inside = tuple(f"{module}." for block in blocks[:count] for module in block)
        for parameter, weight in state.D.named_parameters():
            assert weight.requires_grad != parameter.startswith(inside or ("none",)), parameter
        trained = sum(weight.requires_grad for weight in state.D.parameters())
        assert len(state.d_optimizer.param_groups[0]["params"]) == trained > 0


@pytest.mark.parametrize("name", BLOCKS)
def test_freeze_blocks_beyond_the_last_names_the_maximum(name: str, tiny: Tiny) -> None:
    model, blocks = BLOCKS[name]
    with pytest.raises(TrainerError, match=f"is too high: the maximum is {len(blocks)}, "):
        TrainState.create(tiny(model=model, optim={"d_freeze": len(blocks) + 1}))


FREEZE = {"d_freeze": 1}
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "BatchNorm's scale and shift": {"model": {"d_widths": [8, 8]}, "optim": {"d_freeze": 2}},
    "LayerNorm's": {"model": {"d_widths": [8, 8], "d_norm": "layer"}, "optim": {"d_freeze": 2}},
    "spectral norm": {"model": {"d_spectral_norm": True, "d_norm": "none"}},
    "spectral norm of residual blocks": {
        "model": {"architecture": "resnet", "g_widths": [8, 8], "d_widths": [8, 8], "d_spectral_norm": True},
        "objective": {"name": "hinge"},
    },
    "R1 and R2": {"objective": {"r1_gamma": 1.0, "r2_gamma": 1.0, "r1_interval": 2}, "model": {"d_norm": "none"}},
    "finite differences": {"objective": {"r1_gamma": 1.0, "penalty_method": "finite-differences"}},
    "clipped critic": {
        "objective": {"name": "wasserstein", "clip": 0.001},
        "optim": {"algorithm": "rmsprop", "n_critic": 2, "d_freeze": 1},
    },
    "wgan-gp": {"objective": {"name": "wasserstein", "gradient_penalty": "wgan-gp"}, "model": {"d_norm": "layer"}},
    "relativistic, clipped gradients": {
        "objective": {"name": "relativistic"},
        "optim": {"clip_grad_norm": 0.1, "g_steps": 2, "d_freeze": 1},
    },
    "bf16, by class": {
        "run": {"precision": "bf16"},
        "model": {"conditional": True, "d_spectral_norm": True, "d_norm": "none"},
        "data": {"class_names": ["a", "b"], "augment": ["color"]},
    },
    "mlp": {"model": {"architecture": "mlp", "g_widths": [8], "d_widths": [8, 8]}},
    "reconstruction": {
        "data": {"resolution": 16},
        "model": {"architecture": "fastgan", "g_widths": [8, 8, 8], "d_widths": [8, 8], "d_spectral_norm": True},
    },
}


@pytest.mark.parametrize("name", CASES)
def test_frozen_weights_never_change(name: str, tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(**{"optim": FREEZE, **CASES[name]})
    state = TrainState.create(config)
    blocks = d_blocks(state.D)[: config.optim.d_freeze]
    frozen = {name for name, weight in state.D.named_parameters() if not weight.requires_grad}
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    modules = [module for block in blocks for child in block.values() for module in child.modules()]
    layers = [module for module in modules if isinstance(module, kinds)]
    before = {name: weight.detach().clone() for name, weight in state.D.named_parameters()}
    effective = [layer.weight.detach().clone() for layer in layers]  # divided by its norm with spectral norm
    for _ in range(6):
        loop.train_iteration(state, batches_of(config))
    after = dict(state.D.named_parameters())
    assert frozen
    unchanged = {name for name in after if torch.equal(after[name], before[name])}
    assert unchanged - {"score.bias"} == frozen  # a difference of scores does not depend on it
    assert {name for name, weight in after.items() if not weight.requires_grad} == frozen
    assert all(after[name].grad is None for name in frozen)
    assert layers
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(layers, effective, strict=True))


def test_d_of_another_structure_is_one_block(tiny: Tiny) -> None:
    D = networks.build(tiny())[1]
    D.net = torch.nn.Conv2d(1, 8, 4)
    assert [list(block) for block in d_blocks(D)] == [["net"]]
    assert freeze_blocks(D, 1) == ["net.weight", "net.bias"]
