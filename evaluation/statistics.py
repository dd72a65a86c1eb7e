"""Mean and covariance of features, streamed in O(d²), and the reference file that keeps them."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.atomic import written_whole
from evaluation.errors import EvaluationError

FORMAT_VERSION = 1


class FeatureStatistics:
    """Running mean and covariance of rows, in float64 (Chan, Golub and LeVeque 1979, pairwise update).

    The update is that of Σx and Σxxᵀ, taken about the running mean so that nothing cancels.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.n = 0
        self._mean = np.zeros(dim)
        self._scatter = np.zeros((dim, dim))

    def update(self, features: np.ndarray) -> None:
        """Add rows, float [N, dim]. Raises ValueError for another width or a value that is not finite."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be [N, {self.dim}], not {list(features.shape)}")
        if not np.isfinite(features).all():
            raise ValueError("features are not finite")
        rows = features.astype(np.float64)
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        centred = rows - mean
        total, delta = self.n + len(rows), mean - self._mean
        self._scatter += centred.T @ centred + np.outer(delta, delta) * (self.n * len(rows) / total)
        self._mean += delta * (len(rows) / total)
        self.n = total

    @property
    def mu(self) -> np.ndarray:
        """Mean, float64 [dim]."""
        return self._mean.copy()

    @property
    def sigma(self) -> np.ndarray:
        """Covariance, float64 [dim, dim], divided by N - 1. Raises ValueError when N < 2."""
        if self.n < 2:
            raise ValueError(f"a covariance needs 2 images or more, not {self.n}")
        return self._scatter / (self.n - 1)


@dataclass(frozen=True)
class Reference:
    """Statistics of a real image set: mu [d], sigma [d, d], n, and where they come from."""

    mu: np.ndarray
    sigma: np.ndarray
    n: int
    provenance: dict[str, Any]


def save_reference(path: Path, statistics: FeatureStatistics, provenance: dict[str, Any]) -> None:
    """Write `.npz` with `mu` and `sigma` (as pytorch-fid reads them), `n` and `provenance` (JSON text)."""
    document = {"format_version": FORMAT_VERSION, **provenance}
    with written_whole(path) as handle:
        np.savez(
            handle,
            mu=statistics.mu,
            sigma=statistics.sigma,
            n=np.int64(statistics.n),
            provenance=np.array(json.dumps(document, ensure_ascii=False)),
        )


def load_reference(path: Path | str) -> Reference:
    """Read a reference file. Raises EvaluationError, in one line, if it is absent, damaged or foreign."""
    path = Path(path)
    if not path.is_file():
        raise EvaluationError(f"there are no reference statistics at {path}; `evaluation reference` makes them")
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("not an npz file")
            lacking = {"mu", "sigma", "n", "provenance"} - set(stored.files)
            if lacking:
                raise EvaluationError(
                    f"{path} lacks {', '.join(sorted(lacking))}: which extractor made it is not known, so "
                    "nothing can be compared with it; make it with `evaluation reference`"
                )
            mu, sigma, n = stored["mu"], stored["sigma"], int(stored["n"])
            provenance = json.loads(str(stored["provenance"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise EvaluationError(f"{path} is not a reference file, or is truncated ({str(error)[:100]})") from error
    fits = mu.ndim == 1 and sigma.shape == (*mu.shape, *mu.shape) and n >= 2
    if not fits or not np.isfinite(mu).all() or not np.isfinite(sigma).all() or not isinstance(provenance, dict):
        raise EvaluationError(f"{path} is not a sound reference file: mu {mu.shape}, sigma {sigma.shape}, n {n}")
    if provenance.get("format_version") != FORMAT_VERSION or not {"extractor", "image_set"} <= set(provenance):
        raise EvaluationError(f"{path} has another format; make it again with `evaluation reference`")
    return Reference(mu.astype(np.float64), sigma.astype(np.float64), n, provenance)
