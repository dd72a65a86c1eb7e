"""What every source of images gives: a description, and batches of uint8 [N, H, W, C]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from artifacts.latents import NUM_SEEDS
from evaluation.errors import EvaluationError


@dataclass(frozen=True)
class ImageBatch:
    """uint8 [N, H, W, C], the digest of the model that made them ('' for real images), labels int64 [N] or None."""

    images: np.ndarray
    digest: str = ""
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Draw:
    """Which images: n of them, of seeds first_seed … first_seed+n-1. `part` k is the k-th disjoint draw of n after it.

    Where a source has no seeds, `first_seed` fixes a random order of its images, and parts follow one another in it.
    """

    first_seed: int
    n: int
    part: int = 0

    def seed(self, index: int) -> int:
        """The seed of image `index` of this draw."""
        return self.first_seed + self.part * self.n + index

    def check(self) -> None:
        """Raise EvaluationError unless every seed is one."""
        last = self.seed(self.n)
        if not 0 <= self.first_seed <= last <= NUM_SEEDS:
            raise EvaluationError(f"seeds lie in 0 … 2^53 - 1, not at {self.first_seed} and the {self.n} from it")


class ImageSource(Protocol):
    """`description` goes into the report; (height, width, channels) is `shape`; `seeded`: one seed, one image.

    `class_names` are of the labels in its batches, () when it has none.
    """

    description: dict[str, Any]
    shape: tuple[int, int, int]
    seeded: bool
    class_names: tuple[str, ...]

    def limit(self) -> int | None:
        """How many images there are; None when there is no end to them."""

    def batches(self, draw: Draw, start: int, stop: int, batch: int) -> Iterator[ImageBatch]:
        """Images start … stop-1 of a draw, in order, at most `batch` at a time."""


@dataclass(frozen=True)
class Conditions:
    """How images of a generator are asked for: truncation at t (None: none), and which labels.

    `labels`: "drawn" by each seed, as a service does by itself; "balanced", seed modulo classes; or one class.
    """

    truncation: float | None = None
    labels: str = "drawn"

    def check(self, z_distribution: str, class_names: tuple[str, ...], what: str) -> None:
        """Raise EvaluationError for conditions that this generator cannot keep."""
        if self.truncation is not None and z_distribution != "normal":
            raise EvaluationError(f"--truncation is of normal latents; those of {what} are {z_distribution}")
        if self.labels != "drawn" and not class_names:
            raise EvaluationError(f"--labels {self.labels} is for a conditional generator; {what} has no classes")
        if self.labels not in ("drawn", "balanced"):
            self._fixed(class_names)

    def labels_of(self, first_seed: int, n: int, class_names: tuple[str, ...]) -> np.ndarray | None:
        """Labels int64 [n] of the seeds from `first_seed`; None where each seed draws its own."""
        if self.labels == "drawn" or not class_names:
            return None
        if self.labels == "balanced":
            return np.arange(first_seed, first_seed + n, dtype=np.int64) % len(class_names)
        return np.full(n, self._fixed(class_names), np.int64)

    def _fixed(self, class_names: tuple[str, ...]) -> int:
        if self.labels in class_names:
            return class_names.index(self.labels)
        known = ", ".join(class_names[:10]) + (", …" if len(class_names) > 10 else "")
        raise EvaluationError(f"--labels is drawn, balanced or a class ({known}), not {self.labels!r}")

    def told(self) -> dict[str, Any]:
        """For a description: the conditions, whether or not they are the ordinary ones."""
        return {"truncation": self.truncation, "labels": self.labels}


def choice(total: int, n: int, seed: int, part: int = 0) -> np.ndarray:
    """n of `total` indices, int64, ascending, without repetition: part k is the k-th n in order of Philox draws."""
    draws = np.random.Philox(key=seed).random_raw(total)
    return np.sort(np.argsort(draws, kind="stable")[part * n : (part + 1) * n])


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
