"""A recorded step on a stand-in for CUDA's recording: what is replayed, counted, compared and given up."""

from __future__ import annotations

from collections.abc import Callable

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
    """As CUDA has it: recording changes nothing, and a replay writes to the tensors that were recorded."""

    state: TrainState
    replays = 0

    def capture(self, step: Callable[[], dict[str, Tensor]], generator: torch.Generator) -> dict[str, Tensor]:
        before, random = [tensor.clone() for tensor in cuda_graph.mutable_tensors(self.state)], generator.get_state()
        self.step, self.results = step, step()
        for tensor, value in zip(cuda_graph.mutable_tensors(self.state), before, strict=True):
            tensor.detach().copy_(value)
        generator.set_state(random)
        return self.results

    def replay(self) -> None:
        self.replays += 1
        with torch.enable_grad():
            again = self.step()
        for name, value in self.results.items():
            value.copy_(again[name])


def recorded(config: Config, kind: type[StandIn] = StandIn) -> tuple[TrainState, loop.Step, list[StandIn]]:
    state, made = TrainState.create(config), []

    def make() -> StandIn:
        made.append(kind())
        made[-1].state = state
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
    "rmsprop": {
        "optim": {"algorithm": "rmsprop", "clip_grad_norm": 1.0},
        "objective": {"name": "wasserstein", "clip": 0.1},
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_cuda_graph_replayed_run_equals_the_eager_one(name: str, tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(**CONFIGS[name])
    eager = run(TrainState.create(config), batches_of(config), 10)
    state, step, made = recorded(config)
    run(state, batches_of(config), 10, step)
    assert [recording.replays for recording in made] == [1 + 10 - cuda_graph.WARM_UP]  # one to be compared
    assert (state.images_seen, state.steps) == (eager.images_seen, eager.steps)
    theirs = tensors(eager)
    for key, ours in tensors(state).items():
        torch.testing.assert_close(ours, theirs[key], msg=key)
    means, expected = loop.pop_means(state), loop.pop_means(eager)
    assert means == pytest.approx(expected, rel=1e-4)


def test_cuda_graph_replay_uses_the_current_learning_rates(tiny: Tiny, batches_of: BatchesOf) -> None:
    config = tiny(optim={"decay_kimg": [0.02, 0.2], "g_lr": 1e-3})
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
    def capture(self, step: Callable[[], dict[str, Tensor]], generator: torch.Generator) -> dict[str, Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


class RefusedInG(StandIn):
    """What fails in the second half of a step, when D takes no gradient."""

    def capture(self, step: Callable[[], dict[str, Tensor]], generator: torch.Generator) -> dict[str, Tensor]:
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


def test_cuda_graph_run_is_saved_and_resumes_without_it(tiny: Tiny, batches_of: BatchesOf, tmp_path: object) -> None:
    config = tiny()
    state, step, _ = recorded(config)
    run(state, batches_of(config), 6, step)
    assert isinstance(state.g_optimizer.param_groups[0]["lr"], Tensor)
    path = checkpoint.save(state, tmp_path, keep=1)  # type: ignore[arg-type]
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
    assert "penalties" in str(cuda_graph.unsupported_reason(tiny(run=on_cuda, objective={"r1_gamma": 1.0})))
    assert "penalties" in str(
        cuda_graph.unsupported_reason(tiny(run=on_cuda, objective={"gradient_penalty": "dragan"}))
    )
    assert "noise" in str(cuda_graph.unsupported_reason(tiny(run=on_cuda, data={"noise_std": 0.1, "noise_kimg": 1.0})))
    assert loading.resolve("digits-dcgan", ["run.cuda_graphs=off"]).run.cuda_graphs is False  # YAML's word
    assert devices.resolve_auto(tiny()).run.cuda_graphs is False
    with pytest.raises(TrainerError, match=r"run\.cuda_graphs=true, but graphs are of CUDA devices"):
        devices.resolve_auto(tiny(run={"cuda_graphs": True}))
