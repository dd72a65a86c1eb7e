"""The plain loops of the notebooks' manner train both networks, at the presets' own settings but for the widths."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import training, training_loops
from benchmarks.training_loops import LOOPS
from trainer.config import loading
from trainer.config.schema import Config

SMALL = ("model.g_widths=[8,8,8,8]", "model.d_widths=[4,4,8,8]", "optim.batch_size=4", "run.device=cpu")
ENLARGING = [name for name, case in training.CASES.items() if case.stored]


def test_default_cases_have_a_loop_of_every_source() -> None:
    styles = {training.CASES[name].style for name in training.DEFAULT}
    assert styles == {"documents", "examples", "dcgan_notebook", "wgan_notebook", "digits_notebook"}
    assert styles < set(LOOPS)
    assert set(ENLARGING) == {"cifar10-dcgan", "cifar10-wgan", "mnist-dcgan-64"}


@pytest.mark.parametrize("name", ENLARGING)
def test_loop_changes_both_networks_at_every_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = training.CASES[name]
    assert case.stored is not None
    config = loading.resolve(case.preset, (*case.sets, *SMALL))
    shape = (8, case.stored, case.stored, config.data.channels)
    stored = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    training.write_images({"images": stored, "stored": stored}, tmp_path, case.style)
    assert len(training_loops.Stored(tmp_path, 64)) == 8
    assert training_loops.Stored(tmp_path, 64)[0][0].shape == (config.data.channels, 64, 64)

    made: list[nn.Module] = []
    plain_networks = training_loops.plain_networks

    def recorded(config: Config) -> tuple[nn.Module, nn.Module]:
        made.extend(networks := plain_networks(config))
        return networks

    monkeypatch.setattr(training_loops, "plain_networks", recorded)
    torch.manual_seed(0)
    loop = LOOPS[case.style](config, tmp_path, torch.device("cpu"))
    before: list[torch.Tensor] = []
    for _ in itertools.islice(loop, 3):
        now = [nn.utils.parameters_to_vector(network.parameters()).detach().clone() for network in made]
        assert all(vector.isfinite().all() for vector in now)
        if before:
            assert all(not torch.equal(*pair) for pair in zip(before, now, strict=True))
        before = now
    if config.objective.clip is not None:
        assert before[1].abs().max() <= config.objective.clip
