from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import trainer
from trainer.augmentation.adaptive import WINDOW, AdaptiveProbability
from trainer.config.schema import MAX_P, Config
from trainer.data import Batches
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import TrainerError
from trainer.training import checkpoint, loop, losses
from trainer.training.state import TrainState

Tiny = Callable[..., Config]
BatchesOf = Callable[[Config], Batches]

ADAPTIVE = {"augment": ["flip", "brightness"], "ada_target": 0.6, "ada_kimg": 0.5}
CPU = torch.device("cpu")


def adaptive(start: float = 0.0, kimg: float = 1.0) -> AdaptiveProbability:
    return AdaptiveProbability(start, 0.6, kimg, CPU)


def scores(share_positive: float, n: int = 20) -> torch.Tensor:
    return torch.where(torch.arange(n) < share_positive * n, 3.0, -0.1)


@pytest.mark.parametrize(
    ("share_positive", "change"), [(0.9, +0.1), (0.75, -0.1), (0.8, 0.0)], ids=["above", "below", "at the target"]
)
def test_adjust_moves_p_toward_the_target(share_positive: float, change: float) -> None:
    """0.9 of the signs positive is r_t = 0.8. 100 images of 1 kimg are a tenth."""
    steered = AdaptiveProbability(0.4, 0.6 if change else scores(0.8).sign().mean().item(), 1.0, CPU)
    steered.observe(scores(share_positive))
    steered.adjust(100, ProcessGroup())
    assert steered.p.item() == pytest.approx(0.4 + change)


def test_adjust_takes_one_kimg_setting_from_0_to_1() -> None:
    steered = adaptive(kimg=2.0)
    for _ in range(10):
        steered.observe(scores(1.0))
        steered.adjust(64, ProcessGroup())
    assert steered.p.item() == pytest.approx(10 * 64 / 2000)


@pytest.mark.parametrize(("share_positive", "end"), [(1.0, MAX_P), (0.0, 0.0)])
def test_adjust_never_leaves_the_bounds(share_positive: float, end: float) -> None:
    steered = adaptive(0.5)
    for _ in range(20):
        steered.observe(scores(share_positive))
        steered.adjust(100, ProcessGroup())
    assert steered.p.item() == pytest.approx(end)


def test_adjust_reads_all_batches_since_the_last_one() -> None:
    steered = adaptive(0.4)
    steered.observe(scores(1.0, n=40))
    steered.observe(scores(0.0, n=20))  # r_t = 1/3 of all, below the target
    steered.adjust(100, ProcessGroup())
    assert steered.p.item() == pytest.approx(0.3)
    steered.observe(scores(0.9))
    steered.adjust(100, ProcessGroup())
    assert steered.p.item() == pytest.approx(0.4)


def test_observe_returns_the_mean_sign() -> None:
    assert adaptive().observe(torch.tensor([5.0, 0.1, -2.0, 0.0])).item() == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("name", "labels", "undecided"),
    [
        ("non-saturating", (1.0, 0.0), 0.0),
        ("non-saturating", (0.9, 0.0), math.log(0.45 / 0.55)),
        ("minimax", (0.9, 0.1), 0.0),
        ("lsgan", (1.0, 0.0), 0.5),
        ("lsgan", (0.9, 0.2), 0.55),
    ],
)
def test_centered_is_zero_where_d_loses_least_on_equal_sets(
    name: str, labels: tuple[float, float], undecided: float
) -> None:
    """The best score of an image that is as likely real as fake, found by descent, is the undecided one."""
    loss = losses.get_loss(name, *labels)
    score = torch.zeros(1, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(loss.d(score, score), score)
        score = (score - gradient / 2).detach().requires_grad_()
    assert score.item() == pytest.approx(undecided, abs=1e-4)
    assert loss.centered(score.detach(), torch.tensor([7.0])).item() == pytest.approx(0, abs=1e-4)


def test_centered_of_pairs_ignores_a_constant() -> None:
    real, fake = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0])
    loss = losses.get_loss("relativistic")
    assert loss.centered(real, fake).sign().tolist() == loss.centered(real + 9, fake + 9).sign().tolist() == [1, -1]


@pytest.mark.parametrize("objective", ["non-saturating", "lsgan", "hinge", "relativistic"])
def test_iteration_adjusts_p_every_window(objective: str, tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(data=ADAPTIVE, objective={"name": objective}, optim={"n_critic": 2})
    state = TrainState.create(config)
    assert state.adaptive is not None
    seen = []
    for _ in range(2 * WINDOW):
        loop.train_iteration(state, batches_of(config))
        seen.append((state.adaptive.count.item(), state.adaptive.p.item()))
    assert [count for count, _ in seen] == [16, 32, 48, 0] * 2  # two batches of 8 per step
    step = WINDOW * 2 * 8 / 500
    assert all(p == 0 for _, p in seen[: WINDOW - 1])
    assert {round(p / step, 3) for _, p in seen} <= {0, 1, 2}


def test_tick_metrics_hold_p_and_r_t(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(data=ADAPTIVE | {"augment_p": 0.5})
    state = TrainState.create(config)
    logits: list[torch.Tensor] = []
    state.D.register_forward_hook(lambda _, inputs, output: logits.append(output.detach()))
    loop.train_iteration(state, batches_of(config))
    means = loop.pop_means(state)
    assert means["augment/p"] == 0.5
    assert means["augment/r_t"] == pytest.approx(logits[0][:8].sign().mean().item())  # the reals come first


def test_tick_metrics_without_steering_have_no_p(tiny: Tiny, batches_of: BatchesOf) -> None:
    state = TrainState.create(tiny(data={"augment": ["color"], "augment_p": 0.5}))
    loop.train_iteration(state, batches_of(state.config))
    assert not [name for name in loop.pop_means(state) if name.startswith("augment/")]


def test_run_records_p_in_metrics_tensorboard_and_curves(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *_, **__: titles.extend(axes.get_title() for axes in figure.axes)
    )
    config = tiny(data=ADAPTIVE, run={"quality_ticks": 0})
    run = trainer.train(config, runs=tmp_path, quiet=True)
    assert [tick["augment/p"] for tick in run.metrics][:1] == [0.0]
    assert all(-1 <= tick["augment/r_t"] <= 1 for tick in run.metrics)
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert {"augment/p", "augment/r_t"} <= set(events.Tags()["scalars"])
    assert "augmentation" in titles


def test_resume_continues_p_and_the_window(tiny: Tiny, batches_of: BatchesOf, tmp_path: Path) -> None:
    config = tiny(data=ADAPTIVE)
    state = TrainState.create(config)
    assert state.adaptive is not None
    for value, tensor in zip((0.25, 3.0, 16.0), state.adaptive.state_dict().values(), strict=True):
        tensor.fill_(value)
    resumed = checkpoint.restore(checkpoint.read(checkpoint.save(state, tmp_path, keep=1)), config)
    assert resumed.adaptive is not None
    assert {name: tensor.item() for name, tensor in resumed.adaptive.state_dict().items()} == {
        "p": 0.25,
        "signs": 3.0,
        "count": 16.0,
    }


def test_restore_without_the_steering_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(data=ADAPTIVE)
    content = checkpoint.read(checkpoint.save(TrainState.create(config), tmp_path, keep=1))
    del content["adaptive"]
    with pytest.raises(TrainerError, match="the checkpoint is damaged") as error:
        checkpoint.restore(content, config)
    assert "\n" not in str(error.value)


def test_checkpoint_without_steering_has_no_part_of_it(tiny: Tiny, tmp_path: Path) -> None:
    assert "adaptive" not in checkpoint.read(checkpoint.save(TrainState.create(tiny()), tmp_path, keep=1))


def test_state_with_a_users_loss_without_a_center_is_one_line(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = losses.AdversarialLoss(losses.hinge_d, losses.wasserstein_g)
    monkeypatch.setitem(losses.LOSSES, "hinge", bare)
    with pytest.raises(TrainerError, match=r"AdversarialLoss\.undecided") as error:
        TrainState.create(tiny(data=ADAPTIVE, objective={"name": "hinge"}))
    assert "\n" not in str(error.value)
