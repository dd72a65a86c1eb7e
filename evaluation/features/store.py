"""Features of a set of images, kept on disk so that a killed extraction can resume from its last save.

The state holds the statistics to the last bit; rows are npy files that may hold more rows than the state counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.arrays import count_of, read_npy, read_npz
from artifacts.files import sync_file
from evaluation.errors import EvaluationError
from evaluation.metrics.frechet import FeatureStatistics
from evaluation.output_files import atomic_output, reraise_write_errors

ROWS = ("features", "logits", "labels", "samples")
SAMPLES = 64  # images kept for the report


@dataclass(frozen=True)
class FeatureSet:
    """Features of generated or real images: what a metric is computed from.

    Attributes:
        mu: Mean, float64 [d].
        sigma: Covariance, float64 [d, d].
        n: Number of images.
        features: float32 [n, d]; None, as the next two, if they were not kept.
        logits: Class logits, float32 [n, classes].
        labels: int64 [n].
    """

    mu: np.ndarray
    sigma: np.ndarray
    n: int
    features: np.ndarray | None = field(default=None, repr=False)
    logits: np.ndarray | None = field(default=None, repr=False)
    labels: np.ndarray | None = None


@dataclass
class Timing:
    """Where the time of an extraction went. Fetching images and extracting features run at the same time."""

    images: int = 0
    seconds: float = 0.0
    fetching_s: float = 0.0
    extracting_s: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Return the images per second in all, and of either side."""
        return {
            "seconds": round(self.seconds, 3),
            "images_per_s": round(self.images / max(self.seconds, 1e-9), 1),
            "generating_images_per_s": round(self.images / max(self.fetching_s, 1e-9), 1),
            "extracting_images_per_s": round(self.images / max(self.extracting_s, 1e-9), 1),
        }


@dataclass
class FeatureStore:
    """Features in a folder: statistics in `state.npz`, and one npy file for each of `ROWS` that is kept."""

    folder: Path
    statistics: FeatureStatistics
    digest: str = ""  # of the model
    timing: Timing = field(default_factory=Timing)
    _files: dict[str, RowsFile] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path, dim: int) -> FeatureStore:
        """Return what an earlier run left in a folder, or an empty store of features [n, dim]."""
        with reraise_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.partial"):  # of a process that was killed while it wrote
            leftover.unlink(missing_ok=True)
        path = folder / "state.npz"
        if not path.is_file():
            return cls(folder, FeatureStatistics(dim))
        try:
            store = cls(folder, *read_state(folder))
            if store.statistics.dim != dim:
                raise ValueError(f"of {store.statistics.dim} features, not {dim}")
            return store
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{path} is damaged ({str(error)[:100]}); remove {folder} and score again") from error

    @property
    def n(self) -> int:
        """Number of images."""
        return self.statistics.n

    def feature_set(self) -> FeatureSet:
        """Return the features of all images."""
        rows = {name: self.rows(name) for name in ROWS[:3]}
        return FeatureSet(self.statistics.mu, self.statistics.sigma, self.n, **rows)

    def rows(self, name: str) -> np.ndarray | None:
        """Return one of `ROWS`, memory-mapped, None if it was not kept; `samples` are uint8 [up to 64, H, W, C]."""
        return read_rows(self.folder / f"{name}.npy")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Save at the end of the block, whether it succeeds or not."""
        try:
            yield
        finally:
            try:
                self.save()
            finally:
                for file in self._files.values():
                    file.close()
                self._files.clear()

    def write(self, rows: dict[str, np.ndarray | None], total: int) -> None:
        """Write rows of the images after the first n; `total` is the number of images that the store will have."""
        for name, values in rows.items():
            limit = min(SAMPLES, total) if name == "samples" else total
            if values is not None and self.n < limit:
                values = values[: limit - self.n]
                if name not in self._files:
                    path = self.folder / f"{name}.npy"
                    self._files[name] = RowsFile(path, limit, values.shape[1:], values.dtype)
                self._files[name].write(self.n, values)

    def save(self) -> None:
        """Write the state."""
        for file in self._files.values():  # before the state, which must not count rows that are not on the disk
            file.sync()
        state: Any = self.statistics.state()
        with atomic_output(self.folder / "state.npz") as handle:
            np.savez(handle, digest=np.array(self.digest), **state)


class RowsFile:
    """A npy file of `total` rows of one shape and dtype, written a few rows at a time, and again when resuming."""

    def __init__(self, path: Path, total: int, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._row_bytes = int(np.prod(row_shape, dtype=np.int64)) * dtype.itemsize
        self._path, self._row_shape, self._dtype = path, row_shape, dtype
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (total, *row_shape)}
        with reraise_write_errors(path):
            self._file = path.open("r+b" if path.exists() else "w+b")
            np.lib.format.write_array_header_1_0(self._file, header)
            self._offset = self._file.tell()
            # The full length from the start: unwritten rows read as zeros, and a full disk fails here.
            self._file.truncate(self._offset + total * self._row_bytes)

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write rows from row `start` on; raise ValueError for rows of another shape, EvaluationError if it fails."""
        if rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows are {list(rows.shape[1:])}, not {list(self._row_shape)}")
        with reraise_write_errors(self._path):
            self._file.seek(self._offset + start * self._row_bytes)
            self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        with reraise_write_errors(self._path):
            self._file.flush()
            sync_file(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_rows(path: Path) -> np.ndarray | None:
    """Return the array of a npy file, memory-mapped, None if there is no file; EvaluationError if it is damaged."""
    try:
        return read_npy(path) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} is damaged ({error}); remove its folder and score again") from error


def count_images(folder: Path) -> int:
    """Return how many images' features a folder holds; 0 if its state is absent or damaged."""
    try:
        return read_state(folder)[0].n
    except (OSError, ValueError):
        return 0


def read_state(folder: Path) -> tuple[FeatureStatistics, str]:
    """Return the statistics saved in a folder and the model's digest; raise OSError or ValueError."""
    names = ("n", "mean", "scatter", "digest")
    state = read_npz(folder / "state.npz", names, text=("digest",))
    if missing := set(names) - set(state):
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    statistics = FeatureStatistics.from_state(count_of(state["n"]), state["mean"], state["scatter"])
    if not np.isfinite(statistics.mu).all() or not np.isfinite(state["scatter"]).all():
        raise ValueError("its statistics are not finite")
    return statistics, str(state["digest"])
