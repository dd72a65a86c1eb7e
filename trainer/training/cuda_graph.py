"""Training steps as CUDA graphs: captured once, then replayed without Python and kernel launches.

The kernels of a small GAN end faster than they can be launched one by one. A graph replays the same kernels on the same
memory; what changes from step to step is therefore kept in tensors of fixed addresses: the batch, the learning rates,
the probability of augmentations, the random numbers' offset (which the graph itself advances). Steps with the lazy
penalties R1 and R2 have other kernels than those between them, so a run with them has two graphs. Where no graph can be
captured, or its results differ from the step it was captured from, steps of that kind run without. The updates of one
step share a learning rate.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config.schema import Config
from trainer.training.state import RealBatches, TrainState

WARM_UP = 3  # steps of a kind before the capture, in which libraries choose kernels and optimizers allocate their state
# Share of a step's mean change of a weight. Kernels that add in any order stay far below it; a lost update is 1.
TOLERANCE = 0.1


def unsupported_reason(config: Config) -> str | None:
    """Return why the steps of this config cannot be graphs, or None if they can in a run of one process."""
    if config.run.device != "cuda":
        return "graphs are of CUDA devices"
    if config.data.noise_kimg is not None:
        return "data.noise_kimg changes the noise from step to step"
    return None


class CapturedGraph:
    """A `torch.cuda.CUDAGraph`."""

    def capture(
        self, step: Callable[[], dict[str, Tensor]], generator: torch.Generator, other: CapturedGraph | None
    ) -> dict[str, Tensor]:
        """Capture what `step` launches, without running it; return the tensors with its results after each replay.

        Args:
            step: Runs a step.
            generator: The random numbers that it draws.
            other: A graph to share memory with. Either may then overwrite the other's results and gradients.
        """
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph, pool=None if other is None else other.graph.pool()):
            return step()

    def replay(self) -> None:
        """Run the captured kernels."""
        self.graph.replay()


@dataclass
class Recording:
    """A graph, and the tensors that hold a step's results after each replay of it.

    Attributes:
        sums: The step's metrics, as `TrainState.sums` has them.
        gradients: The gradients of all weights.
        norms: Their norms before clipping, as `TrainState.gradient_norms` has them.
    """

    graph: CapturedGraph
    sums: dict[str, Tensor]
    gradients: list[Tensor | None]
    norms: dict[str, Tensor]


class CudaGraphStep:
    """A training step: eager for WARM_UP steps of its kind, then captured, compared with the eager one, and replayed.

    Attributes:
        recordings: By whether R1 and R2 are due: the graph of such a step, or None if it has been given up.
    """

    def __init__(
        self,
        step: Callable[[TrainState, RealBatches], None],
        make_graph: Callable[[], CapturedGraph] = CapturedGraph,
    ) -> None:
        """Wrap the eager `step`."""
        self.step, self.make_graph = step, make_graph
        self.recordings: dict[bool, Recording | None] = {}
        self.counts = Counter[bool]()
        self.reals: RealBatches = []  # the graphs' batches
        self.rates: dict[str, float] = {}  # the learning rates in the graphs' tensors
        self.side: torch.cuda.Stream | None = None

    def __call__(self, state: TrainState, reals: RealBatches) -> None:
        """Run one step."""
        penalized = state.lazy_weight > 0
        self.counts[penalized] += 1
        if penalized not in self.recordings and self.counts[penalized] > WARM_UP:
            self.recordings[penalized] = self._try_capture(state, reals)
        recording = self.recordings.get(penalized)
        if self.rates:
            self._set_learning_rates(state)
        if recording is None:
            self._run_eagerly(state, reals)
        else:
            self._replay(state, reals, recording)

    def _run_eagerly(self, state: TrainState, reals: RealBatches) -> None:
        if state.device.type != "cuda":
            self.step(state, reals)
            return
        # Autograd remembers the stream it ran on, and a capture cannot use the default one.
        self.side = self.side or torch.cuda.Stream()
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            self.step(state, reals)
        torch.cuda.current_stream().wait_stream(self.side)

    def _try_capture(self, state: TrainState, reals: RealBatches) -> Recording | None:
        self._set_reals(reals)
        for group in (*state.g_optimizer.param_groups, *state.d_optimizer.param_groups):
            if not isinstance(group["lr"], Tensor):
                group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=state.device)
        self._set_learning_rates(state)
        graph, other = self.make_graph(), next(filter(None, self.recordings.values()), None)
        try:
            sums = graph.capture(
                lambda: self._step_once(state, self.step), state.rng.generator, None if other is None else other.graph
            )
            gradients = [weight.grad for weight in weights(state)]
            recording = Recording(graph, sums, gradients, dict(state.gradient_norms))
            difference = self._difference(state, recording)
        except RuntimeError as error:
            self._give_up(state, str(error).strip().split("\n")[0])
            return None
        if not difference <= TOLERANCE:
            self._give_up(state, f"its step is {difference:.2g} of a step away from the one it was made from")
            return None
        return recording

    def _give_up(self, state: TrainState, reason: str) -> None:
        for optimizer in (state.g_optimizer, state.d_optimizer):
            optimizer.zero_grad(set_to_none=True)  # gradients in the graph's memory
        if not any(self.recordings.values()):
            for group in (*state.g_optimizer.param_groups, *state.d_optimizer.param_groups):
                group["lr"] = float(group["lr"])
            self.rates.clear()
        objective = state.config.objective
        what = "training continues"
        if objective.r1_interval > 1 and (objective.r1_gamma or objective.r2_gamma):
            what = f"steps {'with' if state.lazy_weight else 'without'} R1 or R2 continue"
        warnings.warn(f"{what} without a CUDA graph: {reason}", stacklevel=3)

    def _step_once(self, state: TrainState, step: Callable[[TrainState, RealBatches], None]) -> dict[str, Tensor]:
        """Run a step on the graphs' batch and return its metrics. Only counters in tensors advance."""
        counters, sums = state.images_seen, state.sums
        state.sums = {}
        try:
            step(state, self.reals)
            return state.sums
        finally:
            state.images_seen, state.sums = counters, sums

    def _replay(self, state: TrainState, reals: RealBatches, recording: Recording) -> None:
        self._set_reals(reals)
        for weight, gradient in zip(weights(state), recording.gradients, strict=True):
            weight.grad = gradient
        state.gradient_norms = dict(recording.norms)
        recording.graph.replay()
        state.images_seen += len(reals) * state.config.optim.batch_size
        if state.sums:
            torch._foreach_add_([state.sums[name] for name in recording.sums], list(recording.sums.values()))
        else:
            state.sums = {name: value.clone() for name, value in recording.sums.items()}

    def _set_reals(self, reals: RealBatches) -> None:
        if not self.reals:
            self.reals = [(images.clone(), None if labels is None else labels.clone()) for images, labels in reals]
        for (images, labels), (new_images, new_labels) in zip(self.reals, reals, strict=True):
            images.copy_(new_images)
            if labels is not None and new_labels is not None:
                labels.copy_(new_labels)

    def _set_learning_rates(self, state: TrainState) -> None:
        for which, optimizer in (("G", state.g_optimizer), ("D", state.d_optimizer)):
            rate = state.learning_rate(which)
            if self.rates.get(which) != rate:
                for group in optimizer.param_groups:
                    group["lr"].fill_(rate)
                self.rates[which] = rate

    @torch.no_grad()
    def _difference(self, state: TrainState, recording: Recording) -> float:
        """Return how far a replay ends from an eager step: 0 is equal, 1 a whole step. The state is unchanged."""
        before, random = [tensor.clone() for tensor in mutable_tensors(state)], state.rng.get_state()
        old = [weight.clone() for weight in weights(state)]

        def rewind() -> list[Tensor]:
            after = [weight.clone() for weight in weights(state)]
            for tensor, value in zip(mutable_tensors(state), before, strict=True):
                tensor.copy_(value)
            state.rng.set_state(random)
            return after

        with torch.enable_grad():
            self._step_once(state, self._run_eagerly)
        stepped = rewind()
        recording.graph.replay()
        replayed = rewind()
        off = sum(float((a - b).abs().sum()) for a, b in zip(stepped, replayed, strict=True))
        moved = sum(float((a - b).abs().sum()) for a, b in zip(stepped, old, strict=True))
        return off / moved if moved else float("inf")


def weights(state: TrainState) -> list[nn.Parameter]:
    """Return the weights of both networks."""
    return [*state.G.parameters(), *state.D.parameters()]


def mutable_tensors(state: TrainState) -> Iterator[Tensor]:
    """Yield every tensor that a step changes in place."""
    for network in (state.G, state.D):
        yield from (tensor.detach() for tensor in network.parameters())
        yield from network.buffers()
    for optimizer in (state.g_optimizer, state.d_optimizer):
        for slots in optimizer.state.values():
            yield from (slot for slot in slots.values() if isinstance(slot, Tensor))
    if state.adaptive is not None:
        yield from state.adaptive.state_dict().values()
