"""A pass whose results are on the disk as it goes, so that it can be killed at any moment and taken up again.

The state holds the statistics to the last bit, and a job that is taken up again goes through the same batches: its
numbers are those of a job that was never stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.arrays import count_of, read_npz
from evaluation.atomic import cannot_write, written_whole
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.metrics.frechet import FeatureStatistics
from evaluation.progress import progress
from evaluation.rows import RowsFile, mapped
from evaluation.scoring.features import Timing, batch_size, extracted
from evaluation.sources import Draw, ImageSource

SAMPLES = 64  # images kept to be shown
KEPT = ("features", "logits", "labels", "samples")
_SAVE_EVERY_S = 1.0
_SAVE_SHARE = 0.05  # of the time, at most: a state of 2048 features is 32 MB


@dataclass
class Collected:
    """What a pass over images start … stop-1 of a draw left: statistics, and rows in npy files if they were kept."""

    folder: Path
    statistics: FeatureStatistics
    digest: str = ""
    timing: Timing = field(default_factory=Timing)

    def rows(self, what: str) -> np.ndarray | None:
        """`features` float32 [n, d], `logits` float32 [n, classes], `labels` int64 [n] or `samples` uint8, mapped."""
        return mapped(self.folder / f"{what}.npy")


def collect(
    source: ImageSource,
    extractor: Extractor,
    draw: Draw,
    folder: Path,
    *,
    keep: frozenset[str] = frozenset(),
    start: int = 0,
    stop: int | None = None,
    description: str = "scoring",
) -> Collected:
    """Features of images start … stop-1 of a draw, taken up where `folder` says a former run of this stopped.

    `keep` names the rows to keep: features, logits, labels, samples. The folder must be of this very pass. Raises
    EvaluationError as `extracted` does, or when the model changed; what is collected by then is kept.
    """
    stop = draw.n if stop is None else stop
    total = stop - start
    with cannot_write(folder):
        folder.mkdir(parents=True, exist_ok=True)
    done = _restored(folder, extractor.dim)
    if done.statistics.n > total:
        raise EvaluationError(f"{folder} holds {done.statistics.n} images of {total}; remove it and score again")
    with contextlib.ExitStack() as stack:
        files: dict[str, RowsFile] = {}

        def write(what: str, at: int, rows: np.ndarray | None, limit: int) -> None:
            if what in keep and rows is not None and at < limit:
                rows = rows[: limit - at]
                if what not in files:
                    files[what] = RowsFile(folder / f"{what}.npy", limit, rows.shape[1:], rows.dtype)
                    stack.callback(files[what].close)
                files[what].write(at, rows)

        advance = stack.enter_context(progress(description, total, done.statistics.n))
        saved, cost = time.monotonic(), 0.0
        begun = start + done.statistics.n
        with _saving(done, files):
            for batch, got in extracted(source, extractor, draw, begun, stop, done.timing) if begun < stop else ():
                if done.digest and batch.digest != done.digest:
                    raise EvaluationError(
                        f"the model changed: {done.statistics.n} images are of {done.digest[:12]}, the next of "
                        f"{batch.digest[:12]}; one score is of one model"
                    )
                done.digest = batch.digest
                at = done.statistics.n
                write("features", at, got.features, total)
                write("logits", at, got.logits, total)
                write("labels", at, batch.labels, total)
                write("samples", at, batch.images, min(SAMPLES, total))
                done.statistics.update(got.features)
                advance(len(batch.images))
                if time.monotonic() - saved > max(_SAVE_EVERY_S, cost / _SAVE_SHARE):
                    saved = time.monotonic()
                    _save(done, files)
                    cost = time.monotonic() - saved
                    saved = time.monotonic()
    return done


@contextlib.contextmanager
def _saving(done: Collected, files: dict[str, RowsFile]) -> Iterator[None]:
    """Save at the end, whatever the end was."""
    try:
        yield
    finally:
        _save(done, files)


def _save(done: Collected, files: dict[str, RowsFile]) -> None:
    for file in files.values():  # the rows first: a state must not tell of rows that are not there
        file.sync()
    state: Any = done.statistics.state()
    with written_whole(done.folder / "state.npz") as handle:
        np.savez(handle, digest=np.array(done.digest), **state)


def _restored(folder: Path, dim: int) -> Collected:
    for left_over in folder.glob(".*.partial"):  # of a job that was killed while it wrote
        left_over.unlink(missing_ok=True)
    path = folder / "state.npz"
    if not path.is_file():
        return Collected(folder, FeatureStatistics(dim))
    try:
        done = Collected(folder, *read_state(folder))
        if done.statistics.dim != dim:
            raise ValueError(f"of {done.statistics.dim} features, not {dim}")
        return done
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} is damaged ({str(error)[:100]}); remove {folder} and score again") from error


def state_of(folder: Path) -> int:
    """How many images a folder's state is of; 0 if there is none."""
    try:
        return read_state(folder)[0].n
    except (OSError, ValueError):
        return 0


def read_state(folder: Path) -> tuple[FeatureStatistics, str]:
    """The statistics that a pass saved in a folder, and the model's digest. Raises OSError or ValueError."""
    names = ("n", "mean", "scatter", "digest")
    state = read_npz(folder / "state.npz", names, text=("digest",))
    if lacking := set(names) - set(state):
        raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
    statistics = FeatureStatistics.from_state(count_of(state["n"]), state["mean"], state["scatter"])
    if not np.isfinite(statistics.mu).all() or not np.isfinite(state["scatter"]).all():
        raise ValueError("its statistics are not finite")
    return statistics, str(state["digest"])


__all__ = ["KEPT", "SAMPLES", "Collected", "batch_size", "collect", "read_state", "state_of"]
