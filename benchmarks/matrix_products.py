"""The matrix products of one training step, separately: the yardstick of the trainer on a processor.

A convolution is the products of its unfolded input (im2col): one forward, one for the gradient of its input, and one
for that of its weight. Everything else of a step (unfolding, normalization, activations, optimizers, data) takes time
without adding to its FLOPs, so the trainer's share of the products' speed is at most 1, unless its convolutions do
better than products of the same shapes.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.config.schema import Config
from trainer.data import Batches
from trainer.training.loop import train_iteration
from trainer.training.state import TrainState

CALLS = 3  # of a product in a row

aten = torch.ops.aten


class Product(NamedTuple):
    """A product of [m, k] and [k, n]."""

    m: int
    n: int
    k: int
    dtype: torch.dtype

    @property
    def flops(self) -> int:
        """Number of additions and multiplications."""
        return 2 * self.m * self.n * self.k


class ProductRecorder(TorchDispatchMode):
    """Records the products of the operators that run in its context, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.products += operator_products(func.overloadpacket, args, out)
        return out


def operator_products(operator: Any, args: Sequence[Any], out: Any) -> Iterator[Product]:
    """Yield the products of a call: linear layers and convolutions, transposed and grouped too, and their gradients."""
    if operator in (aten.mm, aten.bmm, aten.addmm, aten.baddbmm):
        a, b = args[-2:]
        for _ in range(math.prod(a.shape[:-2])):
            yield Product(a.shape[-2], b.shape[-1], a.shape[-1], a.dtype)
    elif operator == aten.convolution:
        transposed, groups = args[6], args[8]
        forward, backward, _ = convolution_products(args[0] if transposed else out, args[1], groups)
        yield from [backward if transposed else forward] * groups
    elif operator == aten.convolution_backward:
        grad, images, weight = args[:3]
        transposed, groups, mask = args[7], args[9], args[10]
        forward, backward, weights = convolution_products(images if transposed else grad, weight, groups)
        for product, needed in ((forward if transposed else backward, mask[0]), (weights, mask[1])):
            yield from [product] * (groups if needed else 0)


def convolution_products(features: Tensor, weight: Tensor, groups: int) -> tuple[Product, Product, Product]:
    """Return a group's products of a convolution: its output, the gradient of its input, and that of its weight.

    A transposed convolution is the same with its output and input exchanged.

    Args:
        features: The convolution's output, or a transposed convolution's input, [N, C, H, W].
        weight: Its weight [C, D, h, w].
        groups: The number of its groups.
    """
    positions, channels = features.numel() // features.shape[1], weight.shape[0] // groups
    window, dtype = math.prod(weight.shape[1:]), weight.dtype
    return (
        Product(positions, channels, window, dtype),
        Product(positions, window, channels, dtype),
        Product(channels, window, positions, dtype),
    )


def record_step(config: Config) -> list[Product]:
    """Return the products of one training step, on noise."""
    state = TrainState.create(config)
    data, images = config.data, config.optim.batch_size * config.optim.n_critic
    noise = np.random.default_rng(0).integers(0, 256, (images, data.height, data.width, data.channels), dtype=np.uint8)
    labels = np.zeros(images, np.int64) if config.model.conditional else None
    batches = Batches(noise, config.optim.batch_size, seed=0, device=state.device, labels=labels)
    with ProductRecorder() as recorder:
        train_iteration(state, batches)
    return recorder.products


def ways(product: Product) -> list[Callable[[], Tensor]]:
    """Return the ways to compute a product of random matrices: BLAS for each layout of both, and oneDNN."""
    m, n, k, dtype = product
    a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    columns_a, columns_b = a.t().contiguous().t(), b.t().contiguous().t()
    out = torch.empty(m, n, dtype=dtype)
    layouts = [(x, y) for x in (a, columns_a) for y in (b, columns_b)]
    found = [partial(torch.mm, x, y, out=out) for x, y in layouts]
    if torch.backends.mkldnn.is_available() and (
        dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()  # not on a processor with AVX2 only
    ):
        found.append(partial(linear, a.to_mkldnn(), b.t().contiguous().to_mkldnn()))
    return found


def time_calls(compute: Callable[[], Tensor]) -> list[float]:
    """Return the seconds of each of `CALLS` calls, after one that brings the matrices into the cache if they fit."""
    seconds = []
    for _ in range(CALLS + 1):
        started = time.perf_counter()
        compute()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


class StepProducts:
    """The products of one training step of a config, each in the fastest way for its shape."""

    def __init__(self, config: Config) -> None:
        self.counts = Counter(record_step(config))
        self.flops = sum(product.flops * count for product, count in self.counts.items())
        self.fastest = {product: min(ways(product), key=lambda way: min(time_calls(way))) for product in self.counts}

    def measure(self, seconds: float) -> float:
        """Return the FLOP/s of a turn of about `seconds`.

        The mean counts, not the fastest call: what other programs take of the machine slows the trainer's turn too.
        """
        calls: dict[Product, list[float]] = {product: [] for product in self.fastest}
        deadline = time.perf_counter() + seconds
        while not all(calls.values()) or time.perf_counter() < deadline:
            for product, compute in self.fastest.items():
                calls[product] += time_calls(compute)
        return self.flops / sum(statistics.mean(calls[product]) * count for product, count in self.counts.items())
