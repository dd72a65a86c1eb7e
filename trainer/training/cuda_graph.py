"""A step's updates as one CUDA graph: recorded once, then replayed, so that Python and launches cost nothing.

A small GAN's kernels end faster than they can be started one by one. A graph replays the same kernels on the same
memory; what changes from step to step is therefore kept in tensors that stay where they are: the batch, the learning
rates, the random numbers' offset (which the graph itself moves on). Where no graph can be recorded, or one that was
gives other numbers than the step it was made from, training goes on without. A learning rate that falls does so from
step to step; the updates of one step share it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainer.config.schema import Config
    from trainer.training.loop import Shown, State

WARM_UP = 3  # steps before it is recorded: libraries choose their kernels, optimizers make their averages
TOLERANCE = 0.1  # of a step's mean change of a weight; kernels that add in any order stay far below, a lost update is 1


def obstacle(config: Config) -> str | None:
    """Why a step of this config cannot be one graph, or None if it can (of one process; of several none can)."""
    if config.run.device != "cuda":
        return "graphs are of CUDA devices"
    if config.objective.gradient_penalty != "none" or config.objective.r1_gamma:
        return "gradient penalties are not recorded"
    if config.data.noise_kimg is not None:
        return "data.noise_kimg changes the noise from step to step"
    return None


class Recording(Protocol):
    """What CUDA records; a stand-in for it serves the tests."""

    def record(self, once: Callable[[], dict[str, Tensor]], generator: torch.Generator) -> dict[str, Tensor]:
        """Record what `once` launches, without running it; the tensors that hold its results after each replay."""
        ...

    def replay(self) -> None: ...


class CudaRecording:
    def record(self, once: Callable[[], dict[str, Tensor]], generator: torch.Generator) -> dict[str, Tensor]:
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            return once()

    def replay(self) -> None:
        self.graph.replay()


class Graph:
    """Stands in for loop.updates: eager for WARM_UP steps, then recorded, compared, and replayed ever after."""

    def __init__(
        self,
        updates: Callable[[State, Shown], None],
        learning_rate: Callable[[State, str], float],
        recording: Callable[[], Recording] = CudaRecording,
    ) -> None:
        """`learning_rate(state, "G" or "D")` is the one that is due."""
        self.updates, self.learning_rate, self.make_recording = updates, learning_rate, recording
        self.recording: Recording | None = None
        self.seen = 0
        self.given_up = False
        self.rates: dict[str, float] = {}  # the learning rates that the recording's tensors hold

    def __call__(self, state: State, shown: Shown) -> None:
        self.seen += 1
        if self.recording is None and not self.given_up and self.seen > WARM_UP:
            self._try_to_record(state, shown)
        if self.recording is None:
            self._eagerly(state, shown)
        else:
            self._replay(state, shown)

    def _eagerly(self, state: State, shown: Shown) -> None:
        if state.device.type != "cuda" or self.given_up:
            self.updates(state, shown)
            return
        side = torch.cuda.Stream()  # autograd remembers the stream it ran on, and recording cannot use the default one
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.updates(state, shown)
        torch.cuda.current_stream().wait_stream(side)

    def _try_to_record(self, state: State, shown: Shown) -> None:
        self.shown = [(reals.clone(), None if labels is None else labels.clone()) for reals, labels in shown]
        for group in (*state.g_optimizer.param_groups, *state.d_optimizer.param_groups):
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=state.device)
        self._set_learning_rates(state)
        recording = self.make_recording()
        try:
            self.results = recording.record(lambda: self._once(state), state.rng.generator)
            self.recording = recording
            difference = self._difference(state)
        except RuntimeError as error:
            self._give_up(state, str(error).strip().split("\n")[0])
            return
        if not difference <= TOLERANCE:
            self._give_up(state, f"its step is {difference:.2g} of a step away from the one it was made from")

    def _give_up(self, state: State, reason: str) -> None:
        self.recording, self.given_up = None, True
        for optimizer in (state.g_optimizer, state.d_optimizer):
            optimizer.zero_grad(set_to_none=True)  # gradients in the graph's memory
            for group in optimizer.param_groups:
                group["lr"] = float(group["lr"])
        warnings.warn(f"training goes on without a CUDA graph: {reason}", stacklevel=3)

    def _once(self, state: State) -> dict[str, Tensor]:
        """The updates on this graph's own batch → what they add to the sums. No counter moves, but those in tensors."""
        counters, sums = state.images_seen, state.sums
        state.sums = {}
        try:
            self.updates(state, self.shown)
            return state.sums
        finally:
            state.images_seen, state.sums = counters, sums

    def _replay(self, state: State, shown: Shown) -> None:
        assert self.recording is not None
        for (reals, labels), (new_reals, new_labels) in zip(self.shown, shown, strict=True):
            reals.copy_(new_reals)
            if labels is not None and new_labels is not None:
                labels.copy_(new_labels)
        self._set_learning_rates(state)
        self.recording.replay()
        state.images_seen += len(shown) * state.config.optim.batch_size
        if state.sums:
            torch._foreach_add_([state.sums[name] for name in self.results], list(self.results.values()))
        else:
            state.sums = {name: value.clone() for name, value in self.results.items()}

    def _set_learning_rates(self, state: State) -> None:
        for which, optimizer in (("G", state.g_optimizer), ("D", state.d_optimizer)):
            due = self.learning_rate(state, which)
            if self.rates.get(which) != due:
                for group in optimizer.param_groups:
                    group["lr"].fill_(due)
                self.rates[which] = due

    @torch.no_grad()
    def _difference(self, state: State) -> float:
        """How far a replay ends from the step itself, from the same state: 0 alike, 1 a whole step. It is as before."""
        assert self.recording is not None
        weights = [parameter for network in (state.G, state.D) for parameter in network.parameters()]
        gradients, norms = [weight.grad for weight in weights], dict(state.gradient_norms)  # that a replay writes
        before, random = [tensor.clone() for tensor in moving(state)], state.rng.get_state()
        old = [weight.clone() for weight in weights]

        def go_back() -> list[Tensor]:
            after = [weight.clone() for weight in weights]
            for tensor, value in zip(moving(state), before, strict=True):
                tensor.copy_(value)
            state.rng.set_state(random)
            return after

        with torch.enable_grad():
            self._once(state)
        stepped = go_back()
        self.recording.replay()
        replayed = go_back()
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        state.gradient_norms = norms
        off = sum(float((a - b).abs().sum()) for a, b in zip(stepped, replayed, strict=True))
        moved = sum(float((a - b).abs().sum()) for a, b in zip(stepped, old, strict=True))
        return off / moved if moved else float("inf")


def moving(state: State) -> Iterator[Tensor]:
    """Every tensor that the updates change in place."""
    for network in (state.G, state.D):
        yield from (tensor.detach() for tensor in network.parameters())
        yield from network.buffers()
    for optimizer in (state.g_optimizer, state.d_optimizer):
        for slots in optimizer.state.values():
            yield from (slot for slot in slots.values() if isinstance(slot, Tensor))
