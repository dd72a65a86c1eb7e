from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from trainer import networks
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.errors import TrainingDiverged
from trainer.training import loop, losses
from trainer.training.state import TrainState

Tiny = Callable[..., Config]
BatchesOf = Callable[[Config], Batches]


class Recorder:
    def __init__(self) -> None:
        self.ticks: list[tuple[int, dict[str, float]]] = []

    def on_step(self, state: TrainState) -> None:
        pass

    def on_tick(self, state: TrainState, means: dict[str, float]) -> None:
        self.ticks.append((state.images_seen, means))


def snapshot(network: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def moved(network: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))


def test_d_update_moves_only_d(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny()
    state = TrainState.create(config)
    G, D = snapshot(state.G), snapshot(state.D)
    loop.update_discriminator(state, *batches_of(config).at(0), state.G(torch.randn(8, 4)).detach(), None)
    assert moved(state.D, D)
    assert not moved(state.G, G)


def test_g_update_moves_only_g(tiny: Tiny) -> None:
    state = TrainState.create(tiny())
    G, D = snapshot(state.G), snapshot(state.D)
    loop.update_generator(state, state.G(torch.randn(8, 4)), None)
    assert moved(state.G, G)
    assert not moved(state.D, D)
    assert all(parameter.grad is None for parameter in state.D.parameters())
    assert all(parameter.requires_grad for parameter in state.D.parameters())


MLP = {"architecture": "mlp", "g_widths": [16], "d_widths": [16, 8]}


@pytest.mark.parametrize("model", [{}, {"d_widths": [8, 8]}, MLP], ids=["dcgan", "batchnorm", "mlp"])
def test_d_first_step_is_adam_on_the_loss(model: dict[str, object], tiny: Tiny, batches_of: BatchesOf) -> None:
    """The fast step (logits, one backward, one forward where it can be, fused Adam) against the textbook's."""
    config = tiny(model=model)
    state, plain = TrainState.create(config), TrainState.create(config)
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


def test_d_forward_is_shared_unless_it_has_batchnorm(tiny: Tiny, batches_of: BatchesOf) -> None:
    def sizes(**sections: dict[str, object]) -> list[int]:
        config = tiny(**sections)
        state, seen = TrainState.create(config), []
        state.D.net.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
        loop.update_discriminator(state, *batches_of(config).at(0), state.G(torch.randn(8, 4)).detach(), None)
        return seen

    assert sizes(model={"d_norm": "batch", "d_widths": [8, 8]}) == [8, 8]
    assert sizes(model={"d_norm": "layer", "d_widths": [8, 8]}) == [16]
    assert sizes(model={"d_norm": "none", "d_minibatch_std": True}) == [8, 8]
    assert sizes(model=MLP) == [16]
    assert sizes(model=MLP, objective={"r1_gamma": 1.0}) == [8, 8]  # the reals' gradient is theirs alone
    both = {"r1_gamma": 1.0, "r2_gamma": 1.0}
    assert sizes(model=MLP, objective=both) == [16]
    differences = {"penalty_method": "finite-differences"}
    assert sizes(model=MLP, objective={"r1_gamma": 1.0, **differences}) == [16, 8]
    assert sizes(model=MLP, objective=both | differences) == [32]
    assert sizes(model={"d_norm": "batch", "d_widths": [8, 8]}, objective=both | differences) == [8] * 4


@pytest.mark.parametrize("model", [MLP, {"d_widths": [8, 8]}], ids=["mlp", "batchnorm"])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_d_loss_contains_lazy_r1_and_r2(model: dict[str, object], step: int, tiny: Tiny, batches_of: BatchesOf) -> None:
    """D's gradient against that of loss + interval * (γ1 R1 + γ2 R2), each with a forward and a backward apart."""
    objective = {"r1_gamma": 3.0, "r2_gamma": 0.5, "r1_interval": 2}
    config = tiny(model=model, objective=objective)
    state, plain = TrainState.create(config), TrainState.create(config)
    state.steps = step
    (reals, _), fakes = batches_of(config).at(0), state.G(torch.randn(8, 4)).detach()
    loop.update_discriminator(state, reals, None, fakes, None)

    plain.loss.d(plain.D(reals), plain.D(fakes)).backward()
    for images, gamma in ((reals, 3.0), (fakes, 0.5)) if step % 2 == 0 else ():
        images = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(plain.D(images).sum(), images, create_graph=True)
        (2 * gamma * gradient.square().sum() / 8 / 2).backward()
    for ours, theirs in zip(state.D.parameters(), plain.D.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    assert not reals.requires_grad


def test_d_penalty_by_finite_differences_has_no_double_backward(
    tiny: Tiny, batches_of: BatchesOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the images moved as the test moves them, D's loss is the formula's, in float32 also in a bfloat16 run."""
    objective = {"r1_gamma": 2.0, "r2_gamma": 1.0, "r1_interval": 4, "penalty_method": "finite-differences"}
    config = tiny(model=MLP, objective=objective, run={"precision": "bf16"})
    state, plain = TrainState.create(config), TrainState.create(config)
    (reals, _), fakes = batches_of(config).at(0), state.G(torch.randn(8, 4)).detach()
    monkeypatch.setattr(losses, "zero_centered_penalties", lambda *_: pytest.fail("a second backward"))
    loop.update_discriminator(state, reals, None, fakes, None)

    moved = [losses.move_images(images, plain.rng) for images in (reals, fakes)]
    total = plain.loss.d(plain.D(reals), plain.D(fakes))
    for gamma, before, after in zip((2.0, 1.0), (reals, fakes), moved, strict=True):
        total = total + 4 * gamma * losses.finite_difference_penalty(plain.D(before), plain.D(after))
    total.backward()
    for ours, theirs in zip(state.D.parameters(), plain.D.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_g_update_of_a_pairing_loss_compares_with_the_reals(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(
        objective={"name": "relativistic"},
        model={"conditional": True, "d_spectral_norm": True, "d_norm": "none"},
        data={"class_names": ["a", "b"]},
    )
    state, plain = TrainState.create(config), TrainState.create(config)
    reals, labels = batches_of(config).at(0)
    assert labels is not None
    with torch.no_grad():
        for D in (state.D, plain.D):  # until spectral normalization's estimate no longer moves
            for _ in range(100):
                D(reals, labels)
    fakes, fake_labels = loop.generate(state, labels)
    assert fake_labels is labels  # pairs of one class
    loop.update_generator(state, fakes, fake_labels, reals, labels)

    z = loop.draw_latents(plain)
    plain.D.eval()  # spectral normalization by the same iteration for both forwards
    with torch.no_grad():
        real_logits = plain.D(reals, labels)
    losses.relativistic_g(real_logits, plain.D(plain.G(z, labels), labels)).backward()
    for ours, theirs in zip(state.G.parameters(), plain.G.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-2, atol=1e-6)
    assert all(parameter.grad is None for parameter in state.D.parameters())


def test_n_critic_updates_the_clipped_critic_n_times(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(
        objective={"name": "wasserstein", "clip": 0.01},
        optim={"algorithm": "rmsprop", "n_critic": 3, "g_lr": 5e-5, "d_lr": 5e-5},
    )
    state = TrainState.create(config)
    loop.train_iteration(state, batches_of(config))
    assert state.images_seen == 3 * 8
    assert state.d_optimizer.state_dict()["state"][0]["step"] == 3
    assert state.g_optimizer.state_dict()["state"][0]["step"] == 1
    assert max(parameter.abs().max().item() for parameter in state.D.parameters()) <= 0.01 + 1e-9
    means = loop.pop_means(state)
    assert means["loss/D"] == pytest.approx(means["D/fake"] - means["D/real"], abs=1e-6)


def test_g_steps_update_g_as_often(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(optim={"g_steps": 2})
    state = TrainState.create(config)
    loop.train_iteration(state, batches_of(config))
    assert state.g_optimizer.state_dict()["state"][0]["step"] == 2
    assert state.d_optimizer.state_dict()["state"][0]["step"] == 1


@pytest.mark.parametrize(("reuse_fakes", "forwards"), [(True, [False, True, True]), (False, [False] * 2 + [True] * 2)])
def test_reuse_fakes_false_draws_new_latents_for_g(
    reuse_fakes: bool, forwards: list[bool], tiny: Tiny, batches_of: BatchesOf
) -> None:
    config = tiny(optim={"reuse_fakes": reuse_fakes, "n_critic": 2, "g_steps": 2})
    state, latents, graded = TrainState.create(config), [], []
    state.G.register_forward_pre_hook(lambda _, inputs: latents.append(inputs[0]))
    state.G.register_forward_pre_hook(lambda *_: graded.append(torch.is_grad_enabled()))
    loop.train_iteration(state, batches_of(config))
    assert graded == forwards
    assert len(torch.stack(latents).unique(dim=0)) == len(forwards)
    assert state.images_seen == 2 * 8
    assert state.d_optimizer.state_dict()["state"][0]["step"] == 2
    assert state.g_optimizer.state_dict()["state"][0]["step"] == 2


def test_draw_latents_uniform_are_between_minus_one_and_one(tiny: Tiny) -> None:
    z = loop.draw_latents(TrainState.create(tiny(model={"z_distribution": "uniform"}, optim={"batch_size": 1000})))
    assert z.abs().max() <= 1
    assert z.std().item() == pytest.approx(3**-0.5, rel=0.05)


def test_train_ticks_and_saves_when_due(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(run={"checkpoint_ticks": 2})
    recorder, saved = Recorder(), []
    finished = loop.train(
        TrainState.create(config), batches_of(config), recorder, save=lambda state: saved.append(state.images_seen)
    )
    assert finished
    assert [images for images, _ in recorder.ticks] == [40, 80, 120, 160]
    assert saved == [80, 160]
    assert set(recorder.ticks[0][1]) == {"loss/D", "loss/G", "D/real", "D/fake", "gradient/D", "gradient/G"}


def test_train_stopped_finishes_the_step_and_saves(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny()
    state, saved = TrainState.create(config), []
    finished = loop.train(
        state,
        batches_of(config),
        Recorder(),
        save=lambda state: saved.append(state.images_seen),
        should_stop=lambda: state.steps == 3,
    )
    assert not finished
    assert saved == [24]


def test_train_diverged_stops_without_saving(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny()
    state = TrainState.create(config)
    with torch.no_grad():
        next(state.G.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"lower optim\.g_lr and optim\.d_lr, or run\.precision=fp32$"):
        loop.train(state, batches_of(config), Recorder(), save=lambda _: pytest.fail("saved a broken state"))


def test_train_diverged_with_penalties_names_their_weights(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(objective={"r1_gamma": 1e6, "gradient_penalty": "dragan"})
    state = TrainState.create(config)
    with torch.no_grad():
        next(state.D.parameters()).mul_(1e30)  # its gradient's square overflows
    advice = r"d_lr, a lower objective\.r1_gamma, a lower objective\.gp_weight, or"
    with pytest.raises(TrainingDiverged, match=f"became NaN or infinite.*{advice}"):
        loop.train(state, batches_of(config), Recorder(), save=lambda _: pytest.fail("saved a broken state"))


def test_train_shorter_than_a_tick_ends_with_one(tiny: Tiny, batches_of: BatchesOf) -> None:
    config, recorder, saved = tiny(run={"total_kimg": 0.012, "tick_kimg": 0.04}), Recorder(), []
    assert loop.train(TrainState.create(config), batches_of(config), recorder, saved.append)
    assert [images for images, _ in recorder.ticks] == [16]
    assert len(saved) == 1


def test_train_interrupted_after_divergence_saves_nothing(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny()
    state = TrainState.create(config)
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


@pytest.mark.parametrize("which", ["G", "D"])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("stopped", [False, True])
def test_train_gradient_overflow_before_a_save_saves_nothing(
    which: str, clip: float | None, stopped: bool, tiny: Tiny, batches_of: BatchesOf
) -> None:
    config = tiny(optim={"clip_grad_norm": clip})
    state, recorder = TrainState.create(config), Recorder()
    last = 3 if stopped else 5  # the first tick comes after five steps of 8 images

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        return torch.full_like(gradient, float("inf")) if state.steps == last - 1 else gradient

    next(getattr(state, which).parameters()).register_hook(overflow)
    with pytest.raises(TrainingDiverged, match=f"gradient/{which}.* became NaN or infinite"):
        loop.train(
            state,
            batches_of(config),
            recorder,
            save=lambda _: pytest.fail("saved a broken state"),
            should_stop=lambda: stopped and state.steps == last,
        )
    assert state.steps == last
    assert not recorder.ticks


def test_train_every_family_in_bfloat16(tiny: Tiny, batches_of: BatchesOf) -> None:
    for model in ({}, {"architecture": "mlp", "g_widths": [16], "d_widths": [16]}):
        config = tiny(model=model, run={"precision": "bf16"}, data={"augment": ["color", "translation", "cutout"]})
        recorder = Recorder()
        assert loop.train(TrainState.create(config), batches_of(config), recorder, save=lambda _: None)
        assert recorder.ticks


OBJECTIVES = {
    "minimax": {},
    "lsgan": {"objective": {"real_label": 0.9, "fake_label": 0.1}},
    "hinge": {"model": {"d_spectral_norm": True, "d_minibatch_std": True}, "objective": {"r1_gamma": 1.0}},
    "wasserstein": {"objective": {"gradient_penalty": "wgan-gp"}, "model": {"d_norm": "none"}},
    "non-saturating": {"objective": {"gradient_penalty": "dragan", "r1_gamma": 1.0, "r2_gamma": 1.0}},
    "relativistic": {
        "objective": {"r1_gamma": 1.0, "r2_gamma": 0.1, "penalty_method": "finite-differences"},
        "model": {"conditional": True},
        "data": {"class_names": ["a", "b"]},
        "optim": {"g_steps": 2},
    },
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_train_every_objective(name: str, channels: int, precision: str, tiny: Tiny, batches_of: BatchesOf) -> None:
    sections = {key: dict(value) for key, value in OBJECTIVES[name].items()}
    sections["objective"] = {"name": name, **sections.get("objective", {})}
    sections["data"] = {"channels": channels, **sections.get("data", {})}
    config = tiny(**sections, run={"precision": precision})
    recorder = Recorder()
    state = TrainState.create(config)
    G, D = snapshot(state.G), snapshot(state.D)
    assert loop.train(state, batches_of(config), recorder, save=lambda _: None)
    assert moved(state.G, G)
    assert moved(state.D, D)
    penalized = "gradient_penalty" in sections["objective"]
    assert ("loss/penalty" in recorder.ticks[0][1]) == penalized


def test_d_loss_contains_the_gradient_penalty(tiny: Tiny, batches_of: BatchesOf) -> None:
    """With a weight that drowns all else, D's gradient towards unit norm is what is left: the penalty falls."""
    config = tiny(
        objective={"name": "wasserstein", "gradient_penalty": "wgan-gp", "gp_weight": 1e4},
        model={"d_norm": "none"},
        optim={"d_lr": 1e-2, "g_lr": 1e-9},
        run={"total_kimg": 0.8, "tick_kimg": 0.08},
    )
    recorder = Recorder()
    loop.train(TrainState.create(config), batches_of(config), recorder, save=lambda _: None)
    assert recorder.ticks[-1][1]["loss/penalty"] < recorder.ticks[0][1]["loss/penalty"] / 3


FASTGAN = {
    "data": {"resolution": 16, "augment": ["cutout"]},
    "model": {"architecture": "fastgan", "g_widths": [8, 8, 8], "d_widths": [8, 8]},
}


@pytest.mark.parametrize(
    ("norm", "r1_gamma", "precision"),
    [("batch", 0.0, "fp32"), ("batch", 1.0, "bf16"), ("none", 1.0, "fp32"), ("none", 0.0, "bf16")],
)
def test_d_of_a_fastgan_learns_to_reconstruct(norm: str, r1_gamma: float, precision: str, tiny: Tiny) -> None:
    sections = {key: dict(value) for key, value in FASTGAN.items()}
    sections["model"]["d_norm"] = norm
    config = tiny(
        **sections,
        objective={"name": "hinge", "r1_gamma": r1_gamma, "r1_interval": 2, "reconstruction_weight": 100.0},
        optim={"d_lr": 5e-3, "g_lr": 1e-9},
        run={"total_kimg": 0.8, "tick_kimg": 0.08, "precision": precision},
    )
    grays = np.random.default_rng(0).integers(0, 256, (50, 1, 1, 1), dtype=np.uint8)
    batches = Batches(grays.repeat(16, 1).repeat(16, 2), 8, seed=0, device=torch.device("cpu"))
    recorder = Recorder()
    loop.train(TrainState.create(config), batches, recorder, save=lambda _: None)
    errors = [means["loss/reconstruction"] for _, means in recorder.ticks]
    assert errors[-1] < 0.7 * errors[0]


def test_reconstruction_weight_scales_the_decoders_gradient(tiny: Tiny, batches_of: BatchesOf) -> None:
    gradients = []
    for weight in (1.0, 3.0):
        config = tiny(**FASTGAN, objective={"reconstruction_weight": weight})
        state = TrainState.create(config)
        loop.train_iteration(state, batches_of(config))
        assert state.D.decoders is not None
        gradients.append(torch.cat([weight.grad.flatten() for weight in state.D.decoders.parameters()]))
    torch.testing.assert_close(gradients[1], 3 * gradients[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("sections", [{}, FASTGAN | {"objective": {"reconstruction_weight": 0}}], ids=["dcgan", "off"])
def test_reconstruction_loss_is_not_recorded_without_decoders(
    sections: dict[str, Any], tiny: Tiny, batches_of: BatchesOf
) -> None:
    config = tiny(**sections)
    recorder = Recorder()
    loop.train(TrainState.create(config), batches_of(config), recorder, save=lambda _: None)
    assert "loss/reconstruction" not in recorder.ticks[0][1]


def test_learning_rate_decays_linearly(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(optim={"decay_kimg": [0.08, 0.16], "g_lr": 1e-3, "d_lr": 4e-3})
    state = TrainState.create(config)
    rates = []
    while not state.finished:
        loop.train_iteration(state, batches_of(config))
        rates.append((state.g_optimizer.param_groups[0]["lr"], state.d_optimizer.param_groups[0]["lr"]))
    assert rates[0] == pytest.approx((1e-3, 4e-3))
    at = []
    for state.images_seen in (0, 80, 100, 160, 1000):
        at.append(state.learning_rate("G"))
    assert at == pytest.approx([1e-3, 1e-3, 0.75e-3, 0, 0])
    assert rates[-1][0] == pytest.approx(0.0)
    assert all(later[0] <= before[0] for before, later in itertools.pairwise(rates))


def test_learning_rate_decays_along_a_cosine(tiny: Tiny) -> None:
    state = TrainState.create(tiny(optim={"decay_kimg": [0.08, 0.16], "schedule": "cosine", "g_lr": 1e-3}))
    found = []
    for state.images_seen in (0, 80, 100, 120, 160, 1000):
        found.append(state.learning_rate("G"))
    assert found == pytest.approx([1e-3, 1e-3, 1e-3 * (1 + 0.5**0.5) / 2, 0.5e-3, 0, 0])


def test_clip_grad_norm_clips_and_logs_the_unclipped_norm(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(optim={"clip_grad_norm": 1e-3})
    state = TrainState.create(config)
    loop.train_iteration(state, batches_of(config))
    assert loop.gradient_norm(state.D).item() == pytest.approx(1e-3, rel=1e-3)
    assert loop.pop_means(state)["gradient/D"] > 0.01


def test_instance_noise_decays_to_zero(tiny: Tiny) -> None:
    state = TrainState.create(tiny(data={"noise_std": 0.5, "noise_kimg": 0.1}))
    blank = torch.zeros(64, 1, 8, 8)
    assert loop.augment_for_discriminator(state, blank).std().item() == pytest.approx(0.5, rel=0.05)
    state.images_seen = 50
    assert loop.augment_for_discriminator(state, blank).std().item() == pytest.approx(0.25, rel=0.05)
    state.images_seen = 100
    assert torch.equal(loop.augment_for_discriminator(state, blank), blank)


def test_d_normalizes_its_weights_once_per_update(tiny: Tiny, batches_of: BatchesOf) -> None:
    state = TrainState.create(tiny(model={"d_spectral_norm": True, "d_norm": "none"}))
    calls = []
    norm = next(module for module in state.D.modules() if isinstance(module, networks.SpectralNorm))
    norm.register_forward_hook(lambda *_: calls.append(1))
    loop.update_discriminator(state, *batches_of(state.config).at(0), state.G(torch.randn(8, 4)).detach(), None)
    assert len(calls) == 1
