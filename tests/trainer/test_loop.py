from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from trainer import loop
from trainer.batches import Batches
from trainer.config import Config
from trainer.errors import TrainingDiverged
from trainer.loop import State

Tiny = Callable[..., Config]
BatchesOf = Callable[[Config], Batches]


class Recorder:
    def __init__(self) -> None:
        self.ticks: list[tuple[int, dict[str, float]]] = []

    def stepped(self, state: State) -> None:
        pass

    def ticked(self, state: State, means: dict[str, float]) -> None:
        self.ticks.append((state.images_seen, means))


def snapshot(network: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def moved(network: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))


def test_the_discriminators_update_moves_only_it(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny()
    state = State.create(config)
    G, D = snapshot(state.G), snapshot(state.D)
    loop.update_discriminator(state, *batches_of(config).at(0), state.G(torch.randn(8, 4)).detach(), None)
    assert moved(state.D, D)
    assert not moved(state.G, G)


def test_the_generators_update_moves_only_it_and_costs_d_no_gradient(tiny: Tiny) -> None:
    state = State.create(tiny())
    G, D = snapshot(state.G), snapshot(state.D)
    loop.update_generator(state, state.G(torch.randn(8, 4)), None)
    assert moved(state.G, G)
    assert not moved(state.D, D)
    assert all(parameter.grad is None for parameter in state.D.parameters())
    assert all(parameter.requires_grad for parameter in state.D.parameters())


def test_a_discriminators_first_step_is_plain_adam_on_the_plain_loss(tiny: Tiny, batches_of: BatchesOf) -> None:
    """The fast step (logits, one backward, fused Adam) against the textbook's, written out."""
    config = tiny()
    state, plain = State.create(config), State.create(config)
    (reals, _), fakes = batches_of(config).at(0), state.G(torch.randn(8, 4)).detach()
    loop.update_discriminator(state, reals, None, fakes, None)

    optimizer = torch.optim.Adam(plain.D.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=False, foreach=False)
    bce = torch.nn.BCELoss()
    optimizer.zero_grad()
    bce(plain.D(reals).sigmoid(), torch.ones(8)).backward()
    bce(plain.D(fakes).sigmoid(), torch.zeros(8)).backward()
    optimizer.step()
    for ours, theirs in zip(state.D.parameters(), plain.D.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_critic_moves_n_critic_times_and_stays_clipped(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(
        objective={"name": "wasserstein", "clip": 0.01},
        optim={"algorithm": "rmsprop", "n_critic": 3, "g_lr": 5e-5, "d_lr": 5e-5},
    )
    state = State.create(config)
    loop.step(state, batches_of(config))
    assert state.images_seen == 3 * 8
    assert state.d_optimizer.state_dict()["state"][0]["step"] == 3
    assert state.g_optimizer.state_dict()["state"][0]["step"] == 1
    assert max(parameter.abs().max().item() for parameter in state.D.parameters()) <= 0.01 + 1e-9
    means = loop.take_means(state)
    assert means["loss/D"] == pytest.approx(means["D/fake"] - means["D/real"], abs=1e-6)


def test_g_steps_move_g_as_often(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(optim={"g_steps": 2})
    state = State.create(config)
    loop.step(state, batches_of(config))
    assert state.g_optimizer.state_dict()["state"][0]["step"] == 2
    assert state.d_optimizer.state_dict()["state"][0]["step"] == 1


def test_uniform_latents_stay_between_minus_one_and_one(tiny: Tiny) -> None:
    z = loop.draw_latents(State.create(tiny(model={"z_distribution": "uniform"}, optim={"batch_size": 1000})))
    assert z.abs().max() <= 1
    assert z.std().item() == pytest.approx(3**-0.5, rel=0.05)


def test_ticks_and_saves_come_when_they_are_due(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(run={"checkpoint_ticks": 2})
    recorder, saved = Recorder(), []
    finished = loop.train(
        State.create(config), batches_of(config), recorder, save=lambda state: saved.append(state.images_seen)
    )
    assert finished
    assert [images for images, _ in recorder.ticks] == [40, 80, 120, 160]
    assert saved == [80, 160]
    assert set(recorder.ticks[0][1]) == {"loss/D", "loss/G", "D/real", "D/fake"}


def test_a_stop_finishes_the_step_and_saves(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny()
    state, saved = State.create(config), []
    finished = loop.train(
        state,
        batches_of(config),
        Recorder(),
        save=lambda state: saved.append(state.images_seen),
        should_stop=lambda: state.steps == 3,
    )
    assert not finished
    assert saved == [24]


def test_a_run_that_diverges_stops_before_it_saves(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny()
    state = State.create(config)
    with torch.no_grad():
        next(state.G.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="lower"):
        loop.train(state, batches_of(config), Recorder(), save=lambda _: pytest.fail("saved a broken state"))


def test_an_interrupt_saves_no_broken_state_either(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny()
    state = State.create(config)
    with torch.no_grad():
        next(state.G.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingDiverged):
        loop.train(
            state,
            batches_of(config),
            Recorder(),
            save=lambda _: pytest.fail("saved a broken state"),
            should_stop=lambda: state.steps == 1,
        )


def test_every_family_trains_in_bfloat16(tiny: Tiny, batches_of: BatchesOf) -> None:
    for model in ({}, {"architecture": "mlp", "g_widths": [16], "d_widths": [16]}):
        config = tiny(model=model, run={"precision": "bf16"}, data={"augment": ["color", "translation", "cutout"]})
        recorder = Recorder()
        assert loop.train(State.create(config), batches_of(config), recorder, save=lambda _: None)
        assert recorder.ticks
