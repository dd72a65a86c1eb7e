"""A recorded step on a stand-in for CUDA's recording: what is replayed, counted, compared and given up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.trainer.tiny_run import tensors
from trainer import devices
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.errors import TrainerError
from trainer.training import checkpoint, cuda_graph, loop
from trainer.training.cuda_graph import CudaGraphStep
from trainer.training.state import TrainState

Tiny = Callable[..., Config]
BatchesOf = Callable[[Config], Batches]


class StandIn:
    """As CUDA has it: recording changes nothing, and a replay writes to the tensors that were recorded.

    It also overwrites the results of the graphs that it shares memory with.
    """

    state: TrainState
    made: list[StandIn]

    def __init__(self) -> None:
        self.replayed: list[int] = []  # state.steps at each replay

    def capture(
        self, step: Callable[[], dict[str, Tensor]], generator: torch.Generator, other: StandIn | None
    ) -> dict[str, Tensor]:
        assert other is None or (other is not self and other in self.made)
        before, random = [tensor.clone() for tensor in cuda_graph.mutable_tensors(self.state)], generator.get_state()
        self.step, self.results = step, step()
        self.gradients = [weight.grad for weight in cuda_graph.weights(self.state)]
        self.norms = dict(self.state.gradient_norms)
        for tensor, value in zip(cuda_graph.mutable_tensors(self.state), before, strict=True):
            tensor.detach().copy_(value)
        generator.set_state(random)
        return self.results

    def memory(self) -> list[Tensor]:
        return [*self.results.values(), *self.norms.values(), *filter(lambda it: it is not None, self.gradients)]

    def replay(self) -> None:
        self.replayed.append(self.state.steps)
        weights, norms = cuda_graph.weights(self.state), self.state.gradient_norms
        kept = [weight.grad for weight in weights]
        with torch.enable_grad():
            again = self.step()
        new = [*again.values(), *self.state.gradient_norms.values()]
        new += [weight.grad for weight in weights if weight.grad is not None]
        for weight, gradient in zip(weights, kept, strict=True):
            weight.grad = gradient
        self.state.gradient_norms = norms
        for other in self.made:
            for value in other.memory() if other is not self else ():
                value.detach().fill_(float("nan"))
        for value, found in zip(self.memory(), new, strict=True):
            value.detach().copy_(found)


def recorded(
    config: Config, kind: type[StandIn] = StandIn, state: TrainState | None = None
) -> tuple[TrainState, loop.Step, list[StandIn]]:
    state, made = state or TrainState.create(config), []

    def make() -> StandIn:
        made.append(kind())
        made[-1].state, made[-1].made = state, made
        return made[-1]

    return state, CudaGraphStep(loop.train_step, make), made


def run(state: TrainState, batches: Batches, steps: int, step: loop.Step = loop.train_step) -> TrainState:
    for _ in range(steps):
        loop.train_iteration(state, batches, step)
    return state


CONFIGS = {
    "dcgan": {},
    "n_critic and g_steps": {"optim": {"n_critic": 2, "g_steps": 2}},
    "spectral norm, labels": {
        "model": {"d_spectral_norm": True, "d_norm": "none", "conditional": True},
        "data": {"class_names": ["a", "b"], "augment": ["color", "translation", "cutout"]},
    },
    "adaptive augmentation": {
        "data": {"augment": ["flip", "scale", "contrast"], "ada_target": 0.2, "ada_kimg": 0.1, "augment_p": 0.3},
        "optim": {"n_critic": 2},
    },
    "rmsprop": {
        "optim": {"algorithm": "rmsprop", "clip_grad_norm": 1.0},
        "objective": {"name": "wasserstein", "clip": 0.1},
    },
    "wgan-gp": {
        "objective": {"name": "wasserstein", "gradient_penalty": "wgan-gp"},
        "model": {"d_norm": "layer", "d_widths": [8, 8]},
        "optim": {"n_critic": 2},
    },
    "dragan, R1 in every step": {"objective": {"gradient_penalty": "dragan", "r1_gamma": 1.0, "r1_interval": 1}},
    "relativistic": {"objective": {"name": "relativistic"}, "optim": {"g_steps": 2}},
    "reconstruction": {
        "data": {"resolution": 16, "augment": ["cutout"]},
        "model": {"architecture": "fastgan", "g_widths": [8, 8, 8], "d_widths": [8, 8], "d_norm": "none"},
        "objective": {"name": "hinge", "r1_gamma": 1.0, "r1_interval": 1},
    },
    "frozen": {"model": {"d_spectral_norm": True, "d_norm": "none", "d_widths": [8, 8]}, "optim": {"d_freeze": 1}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_cuda_graph_replayed_run_equals_the_eager_one(name: str, tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(**CONFIGS[name])
    eager = run(TrainState.create(config), batches_of(config), 10)
    state, step, made = recorded(config)
    run(state, batches_of(config), 10, step)
    assert [recording.replayed for recording in made] == [[3, *range(3, 10)]]  # twice first, to be compared
    assert (state.images_seen, state.steps) == (eager.images_seen, eager.steps)
    theirs = tensors(eager)
    for key, ours in tensors(state).items():
        torch.testing.assert_close(ours, theirs[key], msg=key)
    means, expected = loop.pop_means(state), loop.pop_means(eager)
    assert means == pytest.approx(expected, rel=1e-4)


def test_cuda_graph_leaves_frozen_weights_as_they_are(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(**CONFIGS["frozen"])
    state, step, made = recorded(config)
    before = {name: tensor.clone() for name, tensor in state.D.state_dict().items() if name.startswith("net.0.")}
    run(state, batches_of(config), 8, step)
    assert made[0].replayed
    assert all(torch.equal(state.D.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(state.D.get_parameter(name).grad is None for name in before if not name.endswith(".u"))


def relative_means(state: TrainState) -> dict[str, float]:
    """Return the means since the last call; D's scores as their difference, as a relativistic loss fixes only that."""
    means = loop.pop_means(state)
    return {name: mean for name, mean in means.items() if not name.startswith("D/")} | {
        "D/real - D/fake": means["D/real"] - means["D/fake"]
    }


LAZY = {
    "R1": {"objective": {"r1_gamma": 1.0, "r1_interval": 3}},
    "R1 and R2, clipped": {
        "objective": {"r1_gamma": 1.0, "r2_gamma": 0.5, "r1_interval": 3},
        "optim": {"clip_grad_norm": 0.1},
    },
    "finite differences": {
        "objective": {"name": "relativistic", "r1_gamma": 1.0, "r1_interval": 3}
        | {"penalty_method": "finite-differences"},
        "optim": {"n_critic": 2, "g_steps": 2},
    },
}


@pytest.mark.parametrize("name", LAZY)
def test_cuda_graph_of_each_kind_is_replayed_on_its_steps(name: str, tiny: Tiny, batches_of: BatchesOf) -> None:
    """A run that is interrupted after 13 steps, in the middle of an interval, with both graphs captured."""
    config = tiny(**LAZY[name])
    batches, eager = batches_of(config), TrainState.create(config)
    state, step, made = recorded(config)
    for number in range(14):
        run(eager, batches, 1)
        run(state, batches, 1, step)
        assert relative_means(state) == pytest.approx(relative_means(eager), rel=1e-3), number
    without, with_penalties = made
    assert without.replayed == [5, 5, 7, 8, 10, 11, 13]
    assert with_penalties.replayed == [9, 9, 12]
    theirs = tensors(eager)
    for key, ours in tensors(state).items():
        if config.objective.name != "relativistic" or "score.bias" not in key:  # its gradient is rounding
            torch.testing.assert_close(ours, theirs[key], msg=key)


def test_cuda_graph_run_resumed_between_penalties_equals_the_eager_one(
    tiny: Tiny, batches_of: BatchesOf, tmp_path: Path
) -> None:
    config = tiny(**LAZY["R1"])
    state, step, _ = recorded(config)
    path = checkpoint.save(run(state, batches_of(config), 13, step), tmp_path, keep=1)
    resumed = checkpoint.restore(checkpoint.read(path), config)
    state, step, made = recorded(config, state=resumed)
    run(state, batches_of(config), 13, step)
    assert [each.replayed for each in made] == [[17, 17, 19, 20, 22, 23, 25], [24, 24]]
    eager = run(TrainState.create(config), batches_of(config), 26)
    for ours, theirs in zip(cuda_graph.weights(state), cuda_graph.weights(eager), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", [{}, LAZY["R1"]["objective"]], ids=["one graph", "two"])
def test_cuda_graph_replay_uses_the_current_learning_rates(
    objective: dict[str, object], tiny: Tiny, batches_of: BatchesOf
) -> None:
    config = tiny(optim={"decay_kimg": [0.02, 0.2], "g_lr": 1e-3}, objective=objective)
    state, step, _ = recorded(config)
    for _ in range(10):
        due, before = state.learning_rate("G"), next(state.G.parameters()).detach().clone()
        run(state, batches_of(config), 1, step)
        farthest = (next(state.G.parameters()) - before).abs().max().item()
        assert farthest < 3 * due  # Adam's step
    assert state.g_optimizer.param_groups[0]["lr"].item() == pytest.approx(due)
    assert due < 0.8e-3


class WithoutD(StandIn):
    """A recording that lost D's update."""

    def replay(self) -> None:
        before = [parameter.detach().clone() for parameter in self.state.D.parameters()]
        super().replay()
        with torch.no_grad():
            for parameter, value in zip(self.state.D.parameters(), before, strict=True):
                parameter.copy_(value)


class Refused(StandIn):
    def capture(
        self, step: Callable[[], dict[str, Tensor]], generator: torch.Generator, other: StandIn | None
    ) -> dict[str, Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


class RefusedInG(StandIn):
    """What fails in the second half of a step, when D takes no gradient."""

    def capture(
        self, step: Callable[[], dict[str, Tensor]], generator: torch.Generator, other: StandIn | None
    ) -> dict[str, Tensor]:
        before, random = [tensor.clone() for tensor in cuda_graph.mutable_tensors(self.state)], generator.get_state()
        self.state.G.register_full_backward_pre_hook(refuse)
        try:
            return step()
        finally:
            self.state.G._backward_pre_hooks.clear()
            for tensor, value in zip(cuda_graph.mutable_tensors(self.state), before, strict=True):
                tensor.detach().copy_(value)
            generator.set_state(random)


def refuse(*_: object) -> None:
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (WithoutD, "of a step away"),
        (Refused, "when stream is capturing$"),
        (RefusedInG, "when stream is capturing$"),
    ],
)
def test_cuda_graph_failing_capture_is_reported_and_not_used(
    kind: type[StandIn], reason: str, tiny: Tiny, batches_of: BatchesOf
) -> None:
    config = tiny(optim={"decay_kimg": [0.02, 0.5]})
    state, step, made = recorded(config, kind)
    with pytest.warns(UserWarning, match=f"without a CUDA graph: .*{reason}"):
        run(state, batches_of(config), 8, step)
    assert len(made) == 1
    eager = run(TrainState.create(config), batches_of(config), 8)
    theirs = tensors(eager)
    for key, ours in tensors(state).items():
        assert torch.equal(ours, theirs[key]), key


class RefusedWithPenalties(StandIn):
    penalized = True

    def capture(
        self, step: Callable[[], dict[str, Tensor]], generator: torch.Generator, other: StandIn | None
    ) -> dict[str, Tensor]:
        if (self.state.lazy_weight > 0) is self.penalized:
            self.made.remove(self)
            raise RuntimeError("operation not permitted when stream is capturing")
        return super().capture(step, generator, other)


class RefusedWithout(RefusedWithPenalties):
    penalized = False


@pytest.mark.parametrize(
    ("kind", "refused", "replayed"),
    [
        (RefusedWithPenalties, "with", [5, 5, 7, 8, 10, 11, 13]),
        (RefusedWithout, "without", [9, 9, 12]),
    ],
)
def test_cuda_graph_refused_for_one_kind_serves_the_other(
    kind: type[StandIn], refused: str, replayed: list[int], tiny: Tiny, batches_of: BatchesOf
) -> None:
    config = tiny(**LAZY["R1 and R2, clipped"])
    state, step, made = recorded(config, kind)
    with pytest.warns(UserWarning, match=f"^steps {refused} R1 or R2 continue without a CUDA graph: operation not"):
        run(state, batches_of(config), 14, step)
    assert [each.replayed for each in made] == [replayed]
    eager = run(TrainState.create(config), batches_of(config), 14)
    theirs = tensors(eager)
    for key, ours in tensors(state).items():
        torch.testing.assert_close(ours, theirs[key], msg=key)
    assert loop.pop_means(state) == pytest.approx(loop.pop_means(eager), rel=1e-3)


def test_cuda_graph_run_is_saved_and_resumes_without_it(tiny: Tiny, batches_of: BatchesOf, tmp_path: Path) -> None:
    config = tiny()
    state, step, _ = recorded(config)
    run(state, batches_of(config), 6, step)
    assert isinstance(state.g_optimizer.param_groups[0]["lr"], Tensor)
    path = checkpoint.save(state, tmp_path, keep=1)
    resumed = checkpoint.restore(checkpoint.read(path), config)
    assert resumed.g_optimizer.param_groups[0]["lr"] == pytest.approx(2e-4)
    run(resumed, batches_of(config), 4)
    eager = run(TrainState.create(config), batches_of(config), 10)
    for ours, theirs in zip(resumed.G.parameters(), eager.G.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_cuda_graph_captures_only_supported_steps(tiny: Tiny) -> None:
    on_cuda = {"device": "cuda"}
    assert cuda_graph.unsupported_reason(tiny(run=on_cuda)) is None
    penalties = {"r1_gamma": 1.0, "r2_gamma": 1.0, "gradient_penalty": "dragan"}
    assert cuda_graph.unsupported_reason(tiny(run=on_cuda, objective=penalties)) is None
    assert "noise" in str(cuda_graph.unsupported_reason(tiny(run=on_cuda, data={"noise_std": 0.1, "noise_kimg": 1.0})))
    assert loading.resolve("digits-dcgan", ["run.cuda_graphs=off"]).run.cuda_graphs is False  # YAML's word
    assert devices.resolve_auto(tiny()).run.cuda_graphs is False
    with pytest.raises(TrainerError, match=r"run\.cuda_graphs=true, but graphs are of CUDA devices"):
        devices.resolve_auto(tiny(run={"cuda_graphs": True}))
