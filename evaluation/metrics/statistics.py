"""Mean and covariance of features, streamed in O(d²); they add, so that parts of the work can be done anywhere."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from artifacts.arrays import drop_page_cache

_ROUNDING = 1e-6  # of the largest: what float32 and sums that were not centred leave of asymmetry and below 0


def fault_of(mu: np.ndarray, sigma: np.ndarray) -> str | None:
    """Why a mean [d] and a matrix [d, d] of real numbers are not those of any images; None if they can be."""
    if not np.isfinite(mu).all() or not np.isfinite(sigma).all():
        return "its statistics are not finite"
    scale = float(np.abs(sigma).max(initial=0.0))
    if scale == 0.0:
        return None
    sigma = sigma / scale  # so that nothing overflows
    if np.abs(sigma - sigma.T).max() > _ROUNDING:
        return "its sigma is not symmetric"
    shifted = sigma.copy()
    shifted[np.diag_indices_from(shifted)] += _ROUNDING * np.trace(sigma) / len(sigma)
    try:  # enough in nearly all cases, and a tenth of the eigenvalues' time
        linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
    except linalg.LinAlgError:
        values = linalg.eigvalsh(sigma, check_finite=False)
        if values[0] < -_ROUNDING * max(values[-1], 0.0):
            return f"its sigma is no covariance: it has an eigenvalue of {values[0] * scale:.3g}"
    return None


class FeatureStatistics:
    """Running mean and covariance of rows, in float64 (Chan, Golub and LeVeque 1979, pairwise update).

    The update is that of Σx and Σxxᵀ, taken about the running mean so that nothing cancels.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.n = 0
        self._mean = np.zeros(dim)
        self._scatter = np.zeros((dim, dim))
        self._product: np.ndarray | None = None  # kept between updates: a new [d, d] each time would cost more

    def update(self, features: np.ndarray) -> None:
        """Add rows, float [N, dim]. Raises ValueError for another width or a value that is not finite."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be [N, {self.dim}], not {list(features.shape)}")
        if not np.isfinite(features).all():
            raise ValueError("features are not finite")
        if not len(features):
            return
        rows = np.empty((len(features) + 1, self.dim))
        rows[:-1] = features
        mean = rows[:-1].mean(axis=0)
        rows[:-1] -= mean
        self._absorb(rows, mean, len(features))

    def merge(self, other: FeatureStatistics) -> None:
        """Add the rows that another has seen. Raises ValueError for another width."""
        if other.dim != self.dim:
            raise ValueError(f"statistics of {other.dim} features do not add to those of {self.dim}")
        if not other.n:
            return
        self._scatter += other._scatter
        self._absorb(np.empty((1, self.dim)), other._mean, other.n)

    def _absorb(self, rows: np.ndarray, mean: np.ndarray, n: int) -> None:
        """Add `n` rows of that mean: their scatter is that of all `rows` but the last, which is room for the means'."""
        total, delta = self.n + n, mean - self._mean
        rows[-1] = delta * np.sqrt(self.n * n / total)
        if self._product is None:
            self._product = np.empty((self.dim, self.dim))
        self._scatter += np.matmul(rows.T, rows, out=self._product)
        self._mean += delta * (n / total)
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

    def state(self) -> dict[str, np.ndarray]:
        """What `restored` takes up again, to the last bit: n, mean [dim], scatter [dim, dim]."""
        return {"n": np.array(self.n), "mean": self._mean, "scatter": self._scatter}

    @classmethod
    def restored(cls, n: int, mean: np.ndarray, scatter: np.ndarray) -> FeatureStatistics:
        """Statistics from their state. Raises ValueError for arrays that cannot be one."""
        if mean.ndim != 1 or scatter.shape != (*mean.shape, *mean.shape) or n < 0:
            raise ValueError(f"no state of statistics: n {n}, mean {mean.shape}, scatter {scatter.shape}")
        made = cls(len(mean))
        made.n, made._mean, made._scatter = int(n), mean.astype(np.float64), scatter.astype(np.float64)
        return made

    @classmethod
    def of(cls, features: np.ndarray) -> FeatureStatistics:
        """Those of rows in memory or mapped from disk, float [N, dim], read a block at a time."""
        made = cls(features.shape[1])
        for start in range(0, len(features), 1024):
            made.update(np.asarray(features[start : start + 1024]))
            drop_page_cache(features)
        return made
