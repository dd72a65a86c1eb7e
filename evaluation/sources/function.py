"""The images that a Python function returns."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.sources.base import ImageBatch, SeedRange


class FunctionSource:
    """Images of a Python function: `function(n)`, or `function(seeds)` if its first parameter has that name.

    `seeds` is int64 [n]; the function returns uint8 [n, H, W, C]. It is called once more, for one image, to learn the
    shape.
    """

    class_names: tuple[str, ...] = ()
    num_images: int | None = None

    def __init__(self, function: Callable[[Any], Any]) -> None:
        try:
            self.seeded = next(iter(inspect.signature(function).parameters), "") == "seeds"
        except (TypeError, ValueError):  # some callables of C extensions have no signature
            self.seeded = False
        self._function = function
        height, width, channels = self._call(0, 1).shape[1:]
        self.shape = (height, width, channels)
        self.description: dict[str, Any] = {
            "kind": "function",
            "name": getattr(function, "__qualname__", type(function).__qualname__),
            "shape": list(self.shape),
            "id": uuid.uuid4().hex,  # so that no other function's unfinished work is resumed
        }

    def batches(self, seeds: SeedRange, start: int, stop: int, batch_size: int) -> Iterator[ImageBatch]:
        """Yield what the function returns for each batch."""
        seeds.check()
        for first in range(start, stop, batch_size):
            yield ImageBatch(self._call(seeds.seed(first), min(batch_size, stop - first)))

    def _call(self, seed: int, n: int) -> np.ndarray:
        images = np.asarray(self._function(np.arange(seed, seed + n) if self.seeded else n))
        if images.ndim != 4 or len(images) != n:
            raise EvaluationError(f"the function returned {list(images.shape)}, not images [{n}, H, W, C]")
        return images
