"""The interface of a source of images: a description and batches of uint8 [N, H, W, C]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from artifacts.latents import NUM_SEEDS
from evaluation.errors import EvaluationError


@dataclass(frozen=True)
class ImageBatch:
    """Images uint8 [N, H, W, C], the digest of their model ('' for real images), labels int64 [N] or None."""

    images: np.ndarray
    digest: str = ""
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class SeedRange:
    """The `n` images of seeds first_seed … first_seed+n-1; `repetition` k is the k-th disjoint range after it.

    In a source without seeds `first_seed` fixes a random order of its images, and repetitions follow each other in it.
    """

    first_seed: int
    n: int
    repetition: int = 0

    def seed(self, index: int) -> int:
        """Return the seed of image `index` of this range."""
        return self.first_seed + self.repetition * self.n + index

    def check(self) -> None:
        """Raise EvaluationError for a seed outside 0 … 2^53 - 1."""
        if not 0 <= self.first_seed <= self.seed(self.n) <= NUM_SEEDS:
            raise EvaluationError(f"seeds are 0 to 2^53 - 1, and these are {self.seed(0)} to {self.seed(self.n) - 1}")


class ImageSource(Protocol):
    """Images to score: (height, width, channels) is the `shape` of each, and `description` goes into the report.

    `seeded`: image i depends only on seed i. `class_names` are those of labels, if any. `num_images` None: unlimited.
    """

    description: dict[str, Any]
    shape: tuple[int, int, int]
    seeded: bool
    class_names: tuple[str, ...]
    num_images: int | None

    def batches(self, seeds: SeedRange, start: int, stop: int, batch_size: int) -> Iterator[ImageBatch]:
        """Yield images start … stop-1 of a range, in order, at most `batch_size` at a time."""


@dataclass(frozen=True)
class SamplingOptions:
    """How a generator is sampled: normal latents are truncated to [-truncation, truncation], unless it is None.

    `labels` are "drawn" (by each seed, as a service does), "balanced" (seed modulo classes), or one class.
    """

    truncation: float | None = None
    labels: str = "drawn"

    def check(self, z_distribution: str, class_names: tuple[str, ...], model: str) -> None:
        """Raise EvaluationError for options that this generator cannot follow."""
        if self.truncation is not None and z_distribution != "normal":
            raise EvaluationError(f"--truncation needs normal latents; those of {model} are {z_distribution}")
        if self.labels != "drawn" and not class_names:
            raise EvaluationError(f"--labels {self.labels} needs a conditional generator; {model} has no classes")
        self.labels_for(0, 0, class_names)

    def labels_for(self, first_seed: int, n: int, class_names: tuple[str, ...]) -> np.ndarray | None:
        """Return labels int64 [n] for the seeds from `first_seed` on; None where each seed draws its own."""
        if self.labels == "drawn" or not class_names:
            return None
        if self.labels == "balanced":
            return np.arange(first_seed, first_seed + n, dtype=np.int64) % len(class_names)
        if self.labels not in class_names:
            known = ", ".join(class_names[:10]) + (", …" if len(class_names) > 10 else "")
            raise EvaluationError(f"--labels is drawn, balanced or a class ({known}), not {self.labels!r}")
        return np.full(n, class_names.index(self.labels), np.int64)


def random_subset(total: int, n: int, seed: int, repetition: int = 0) -> np.ndarray:
    """Return n of `total` indices, int64, ascending, without repetition.

    Repetition k is the k-th n of all indices in the order of their Philox draws, so repetitions are disjoint.
    """
    draws = np.random.Philox(key=seed).random_raw(total)
    return np.sort(np.argsort(draws, kind="stable")[repetition * n : (repetition + 1) * n])
