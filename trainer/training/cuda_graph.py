"""A training step as one CUDA graph: captured once, then replayed without Python and kernel launches.

The kernels of a small GAN end faster than they can be launched one by one. A graph replays the same kernels on the same
memory; what changes from step to step is therefore kept in tensors of fixed addresses: the batch, the learning rates,
the random numbers' offset (which the graph itself advances). Where no graph can be captured, or its results differ from
the step it was captured from, training continues without. The updates of one step share a learning rate.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from trainer.config.schema import Config
from trainer.training.state import RealBatches, TrainState

WARM_UP = 3  # steps before the capture, in which libraries choose kernels and optimizers allocate their state
# Share of a step's mean change of a weight. Kernels that add in any order stay far below it; a lost update is 1.
TOLERANCE = 0.1


def unsupported_reason(config: Config) -> str | None:
    """Return why a step of this config cannot be one graph, or None if it can in a run of one process."""
    if config.run.device != "cuda":
        return "graphs are of CUDA devices"
    if config.objective.gradient_penalty != "none" or config.objective.r1_gamma:
        return "gradient penalties cannot be captured"
    if config.data.noise_kimg is not None:
        return "data.noise_kimg changes the noise from step to step"
    return None


class CapturedGraph:
    """A `torch.cuda.CUDAGraph`."""

    def capture(self, step: Callable[[], dict[str, Tensor]], generator: torch.Generator) -> dict[str, Tensor]:
        """Capture what `step` launches, without running it; return the tensors with its results after each replay."""
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            return step()

    def replay(self) -> None:
        """Run the captured kernels."""
        self.graph.replay()


class CudaGraphStep:
    """A training step: eager for WARM_UP steps, then captured, compared with the eager one, and replayed."""

    def __init__(
        self,
        step: Callable[[TrainState, RealBatches], None],
        make_graph: Callable[[], CapturedGraph] = CapturedGraph,
    ) -> None:
        """Wrap the eager `step`."""
        self.step, self.make_graph = step, make_graph
        self.graph: CapturedGraph | None = None
        self.count = 0
        self.given_up = False
        self.rates: dict[str, float] = {}  # the learning rates in the graph's tensors

    def __call__(self, state: TrainState, reals: RealBatches) -> None:
        """Run one step."""
        self.count += 1
        if self.graph is None and not self.given_up and self.count > WARM_UP:
            self._try_capture(state, reals)
        if self.graph is None:
            self._run_eagerly(state, reals)
        else:
            self._replay(state, reals)

    def _run_eagerly(self, state: TrainState, reals: RealBatches) -> None:
        if state.device.type != "cuda" or self.given_up:
            self.step(state, reals)
            return
        # Autograd remembers the stream it ran on, and a capture cannot use the default one.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.step(state, reals)
        torch.cuda.current_stream().wait_stream(side)

    def _try_capture(self, state: TrainState, reals: RealBatches) -> None:
        self.reals = [(images.clone(), None if labels is None else labels.clone()) for images, labels in reals]
        for group in (*state.g_optimizer.param_groups, *state.d_optimizer.param_groups):
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=state.device)
        self._set_learning_rates(state)
        graph = self.make_graph()
        try:
            self.results = graph.capture(lambda: self._step_once(state), state.rng.generator)
            self.graph = graph
            difference = self._difference(state)
        except RuntimeError as error:
            self._give_up(state, str(error).strip().split("\n")[0])
            return
        if not difference <= TOLERANCE:
            self._give_up(state, f"its step is {difference:.2g} of a step away from the one it was made from")

    def _give_up(self, state: TrainState, reason: str) -> None:
        self.graph, self.given_up = None, True
        for optimizer in (state.g_optimizer, state.d_optimizer):
            optimizer.zero_grad(set_to_none=True)  # gradients in the graph's memory
            for group in optimizer.param_groups:
                group["lr"] = float(group["lr"])
        warnings.warn(f"training continues without a CUDA graph: {reason}", stacklevel=3)

    def _step_once(self, state: TrainState) -> dict[str, Tensor]:
        """Run the step on the graph's batch and return its metrics. Only counters in tensors advance."""
        counters, sums = state.images_seen, state.sums
        state.sums = {}
        try:
            self.step(state, self.reals)
            return state.sums
        finally:
            state.images_seen, state.sums = counters, sums

    def _replay(self, state: TrainState, reals: RealBatches) -> None:
        assert self.graph is not None
        for (images, labels), (new_images, new_labels) in zip(self.reals, reals, strict=True):
            images.copy_(new_images)
            if labels is not None and new_labels is not None:
                labels.copy_(new_labels)
        self._set_learning_rates(state)
        self.graph.replay()
        state.images_seen += len(reals) * state.config.optim.batch_size
        if state.sums:
            torch._foreach_add_([state.sums[name] for name in self.results], list(self.results.values()))
        else:
            state.sums = {name: value.clone() for name, value in self.results.items()}

    def _set_learning_rates(self, state: TrainState) -> None:
        for which, optimizer in (("G", state.g_optimizer), ("D", state.d_optimizer)):
            rate = state.learning_rate(which)
            if self.rates.get(which) != rate:
                for group in optimizer.param_groups:
                    group["lr"].fill_(rate)
                self.rates[which] = rate

    @torch.no_grad()
    def _difference(self, state: TrainState) -> float:
        """Return how far a replay ends from an eager step: 0 is equal, 1 a whole step. The state is unchanged."""
        assert self.graph is not None
        weights = [parameter for network in (state.G, state.D) for parameter in network.parameters()]
        gradients, norms = [weight.grad for weight in weights], dict(state.gradient_norms)  # a replay overwrites them
        before, random = [tensor.clone() for tensor in mutable_tensors(state)], state.rng.get_state()
        old = [weight.clone() for weight in weights]

        def rewind() -> list[Tensor]:
            after = [weight.clone() for weight in weights]
            for tensor, value in zip(mutable_tensors(state), before, strict=True):
                tensor.copy_(value)
            state.rng.set_state(random)
            return after

        with torch.enable_grad():
            self._step_once(state)
        stepped = rewind()
        self.graph.replay()
        replayed = rewind()
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        state.gradient_norms = norms
        off = sum(float((a - b).abs().sum()) for a, b in zip(stepped, replayed, strict=True))
        moved = sum(float((a - b).abs().sum()) for a, b in zip(stepped, old, strict=True))
        return off / moved if moved else float("inf")


def mutable_tensors(state: TrainState) -> Iterator[Tensor]:
    """Yield every tensor that a step changes in place."""
    for network in (state.G, state.D):
        yield from (tensor.detach() for tensor in network.parameters())
        yield from network.buffers()
    for optimizer in (state.g_optimizer, state.d_optimizer):
        for slots in optimizer.state.values():
            yield from (slot for slot in slots.values() if isinstance(slot, Tensor))
