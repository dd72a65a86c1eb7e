"""Fréchet distance of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500, equation 6).

`FeatureStatistics` collects mean and covariance in O(d²) memory, `frechet_distance` compares two of them, and
`per_class_frechet` does so class by class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg

from artifacts.arrays import drop_page_cache

# If the smallest squared pivot is below this, treat the covariance as singular (its diagonal is scaled to about 1).
_SINGULAR = 1e-11
# Accept eigenvalues of MMᵀ (M = L₁ᵀL₂) if their estimated relative error of the trace is below this; otherwise use an
# SVD.
_TOLERANCE = 3e-13
# Asymmetry and negative eigenvalues, as a share of the largest value, that float32 and sums that were not centered
# leave in a covariance.
_ROUNDING = 1e-6
# Rows per update: of all rows, and of chosen ones. The sizes decide the rounding of the sums, so changing one would
# change the last digits of scores.
_BLOCK, _CHOSEN_BLOCK = 1024, 2048


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """Return the Fréchet distance ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2(Σ₁Σ₂)^½).

    The trace of the root is the sum of the singular values of L₁ᵀL₂ for any factors Σ = LLᵀ, so that no root of a
    matrix is taken. The factor of a singular covariance (fewer samples than features, a dead feature) has as many
    columns as its rank, which keeps rounding out of the distance.

    The error of the algorithm is below 1e-12 of ‖μ₁ - μ₂‖² + tr Σ₁ + tr Σ₂, for covariances of any condition and
    both orders of the arguments. A covariance with eigenvalues below 1e-16 of its largest has lost them to float64
    before this function sees it. Where the other covariance is not small in the same directions, that loss alone
    changes the distance by up to about 1e-8 of the traces for each lost eigenvalue.

    Args:
        mu1: Mean of the first set, float [d].
        sigma1: Covariance of the first set, float [d, d], symmetric positive semi-definite.
        mu2: Mean of the second set, float [d].
        sigma2: Covariance of the second set, float [d, d], symmetric positive semi-definite.

    Returns:
        The squared 2-Wasserstein distance, computed in float64, at least 0.

    Raises:
        ValueError: If shapes do not fit each other, or a mean or covariance is not finite.
    """
    mu1, mu2 = (np.asarray(mu, dtype=np.float64) for mu in (mu1, mu2))
    sigma1, sigma2 = (np.asarray(sigma, dtype=np.float64) for sigma in (sigma1, sigma2))
    d = mu1.shape[0] if mu1.ndim == 1 else -1
    if mu2.shape != (d,) or sigma1.shape != (d, d) or sigma2.shape != (d, d):
        shapes = ", ".join(str(list(array.shape)) for array in (mu1, sigma1, mu2, sigma2))
        raise ValueError(f"means and covariances do not fit each other: {shapes}")
    if not all(np.isfinite(array).all() for array in (mu1, sigma1, mu2, sigma2)):
        raise ValueError("a mean or covariance is not finite")
    difference = mu1 - mu2
    trace = np.trace(sigma1) + np.trace(sigma2) - 2.0 * _trace_of_root(sigma1, sigma2)
    # Rounding leaves about ±1e-14 of the traces, which would be a negative distance for equal inputs.
    return float(max(difference @ difference + trace, 0.0))


class _Factor(NamedTuple):
    """L [d, rank] with unit² LLᵀ = Σ, in two parts: L[order] = rows, and `order` is None where no row has moved.

    `rows` is lower triangular where it is square (`triangular`), and lower trapezoidal otherwise. `unit` keeps L
    near 1, so that no product of features overflows or vanishes.
    """

    rows: np.ndarray
    order: np.ndarray | None
    unit: float

    @property
    def triangular(self) -> bool:
        """Whether `rows` is a square lower triangle."""
        return bool(self.rows.shape[0] == self.rows.shape[1])

    def dense(self) -> np.ndarray:
        """Return L in Fortran order."""
        if self.order is None:
            return self.rows
        factor = np.empty_like(self.rows, order="F")
        factor[self.order] = self.rows
        return factor


def _trace_of_root(sigma1: np.ndarray, sigma2: np.ndarray) -> float:
    """Return tr((Σ₁Σ₂)^½)."""
    # A feature that is dead in one covariance adds nothing, whatever the other has there.
    alive = (np.diag(sigma1) > 0) & (np.diag(sigma2) > 0)
    if not alive.all():
        sigma1, sigma2 = (sigma[np.ix_(alive, alive)] for sigma in (sigma1, sigma2))
    if not sigma1.size:
        return 0.0
    first, second = _factor(sigma1), _factor(sigma2)
    return first.unit * second.unit * _nuclear_norm(_factor_product(first, second))


def _nuclear_norm(product: np.ndarray) -> float:
    """Return the sum of the singular values of M = L₁ᵀL₂; M is overwritten."""
    if not product.size:
        return 0.0
    # The eigenvalues of MMᵀ take a fifth of the time of M's singular values. Each is off by about the rounding of
    # the largest, so their roots serve unless small ones decide.
    squared = linalg.blas.dsyrk(1.0, product, trans=int(product.shape[0] > product.shape[1]), lower=1)
    values = linalg.eigvalsh(squared, lower=True, overwrite_a=True, check_finite=False, driver="evd")
    noise = np.finfo(np.float64).eps * values[-1]
    if values[0] > 1000 * noise:
        roots = np.sqrt(values)
        if np.linalg.norm(noise / (2 * roots)) <= _TOLERANCE * roots.sum():
            return float(roots.sum())
    return float(linalg.svdvals(product, overwrite_a=True, check_finite=False).sum())


def _factor_product(first: _Factor, second: _Factor) -> np.ndarray:
    """Return L₁ᵀL₂ [rank₁, rank₂], at half the work where L₁ is triangular up to a row permutation."""
    other = second.dense()
    product: np.ndarray
    if not first.triangular:
        product = first.dense().T @ other
        return product
    if first.order is not None:
        other = np.asfortranarray(other[first.order])
    product = linalg.blas.dtrmm(1.0, first.rows, other, side=0, lower=1, trans_a=1, overwrite_b=1)
    return product


def _factor(sigma: np.ndarray) -> _Factor:
    """Return a factor of a covariance [d, d] whose diagonal is positive.

    A factor of the true rank keeps rounding out: the root of an eigenvalue that should be 0 and is 1e-16 would be
    1e-8. So a singular Σ is factored by Cholesky's method with pivoting (Higham 1990; LAPACK's pstrf, its tolerance).
    """
    # Features of other scales than the rest are factored as exactly as the rest: what is small is judged by each
    # feature's own variance. Powers of 2 change no digit.
    scales = np.ldexp(1.0, np.frexp(np.sqrt(np.diag(sigma)))[1])
    scaled = sigma / scales[:, None]
    scaled /= scales
    unit = float(scales.max())
    # The transpose of a symmetric matrix in C's order is the same matrix in Fortran's, without a copy.
    factor, failed = linalg.lapack.dpotrf(scaled.T, lower=1, clean=1)
    if not failed and np.diag(factor).min() ** 2 > _SINGULAR:
        factor *= scales[:, None] / unit
        return _Factor(factor, None, unit)
    packed, order, rank, failed = linalg.lapack.dpstrf(scaled.T, lower=1, overwrite_a=1)
    if failed < 0:
        raise ValueError("a covariance could not be factored")
    order = order - 1
    rows = np.asfortranarray(np.tril(packed)[:, :rank])
    rows *= scales[order][:, None] / unit
    return _Factor(rows, order, unit)


class FeatureStatistics:
    """Running mean and covariance of rows in float64 (Chan, Golub and LeVeque 1979, pairwise update).

    The update is that of Σx and Σxxᵀ, taken about the running mean so that nothing cancels. Statistics of parts of
    the rows can be computed anywhere and merged.

    Attributes:
        dim: Number of features, d.
        n: Number of rows so far.
    """

    def __init__(self, dim: int) -> None:
        """Start without rows.

        Args:
            dim: Number of features, d.
        """
        self.dim = dim
        self.n = 0
        self._mean = np.zeros(dim)
        self._scatter = np.zeros((dim, dim))
        # Kept between updates: allocating a [d, d] array each time would cost more than the product.
        self._product: np.ndarray | None = None

    def update(self, features: np.ndarray) -> None:
        """Add rows.

        Args:
            features: float [N, dim].

        Raises:
            ValueError: If the width is different, or a value is not finite.
        """
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
        self._add(rows, mean, len(features))

    def merge(self, other: FeatureStatistics) -> None:
        """Add the rows of other statistics; ValueError for another width."""
        if other.dim != self.dim:
            raise ValueError(f"statistics of {other.dim} features cannot be merged with those of {self.dim}")
        if not other.n:
            return
        self._scatter += other._scatter
        self._add(np.empty((1, self.dim)), other._mean, other.n)

    def _add(self, centered: np.ndarray, mean: np.ndarray, n: int) -> None:
        """Add `n` rows of that mean; the last row of `centered` is overwritten with the difference of the means."""
        total, delta = self.n + n, mean - self._mean
        centered[-1] = delta * np.sqrt(self.n * n / total)
        if self._product is None:
            self._product = np.empty((self.dim, self.dim))
        self._scatter += np.matmul(centered.T, centered, out=self._product)
        self._mean += delta * (n / total)
        self.n = total

    @property
    def mu(self) -> np.ndarray:
        """Mean, float64 [dim]."""
        return self._mean.copy()

    @property
    def sigma(self) -> np.ndarray:
        """Covariance, float64 [dim, dim], divided by N - 1; ValueError when N < 2."""
        if self.n < 2:
            raise ValueError(f"a covariance needs 2 images or more, not {self.n}")
        return self._scatter / (self.n - 1)

    def state(self) -> dict[str, np.ndarray]:
        """Return n, mean [dim] and scatter [dim, dim], from which `from_state` continues to the last bit."""
        return {"n": np.array(self.n), "mean": self._mean, "scatter": self._scatter}

    @classmethod
    def from_state(cls, n: int, mean: np.ndarray, scatter: np.ndarray) -> FeatureStatistics:
        """Return the statistics of a `state`; ValueError for arrays of other shapes."""
        if mean.ndim != 1 or scatter.shape != (*mean.shape, *mean.shape) or n < 0:
            raise ValueError(f"not a state of statistics: n {n}, mean {mean.shape}, scatter {scatter.shape}")
        statistics = cls(len(mean))
        statistics.n = int(n)
        statistics._mean, statistics._scatter = mean.astype(np.float64), scatter.astype(np.float64)
        return statistics

    @classmethod
    def from_features(cls, features: np.ndarray, rows: np.ndarray | None = None) -> FeatureStatistics:
        """Return the statistics of features, read block by block.

        Args:
            features: float [N, dim], in memory or mapped from disk.
            rows: Indices of the rows to use, int [n]; default: all.
        """
        statistics = cls(features.shape[1])
        block = _BLOCK if rows is None else _CHOSEN_BLOCK
        for start in range(0, len(features if rows is None else rows), block):
            chosen = slice(start, start + block) if rows is None else rows[start : start + block]
            statistics.update(np.asarray(features[chosen]))
            drop_page_cache(features)
        return statistics


def invalid_statistics_reason(mu: np.ndarray, sigma: np.ndarray) -> str | None:
    """Return why a mean [d] and a matrix [d, d] cannot be those of any images; None if they can."""
    if not np.isfinite(mu).all() or not np.isfinite(sigma).all():
        return "its statistics are not finite"
    scale = float(np.abs(sigma).max(initial=0.0))
    if scale == 0.0:
        return None
    # Scaled, so that nothing overflows.
    sigma = sigma / scale
    if np.abs(sigma - sigma.T).max() > _ROUNDING:
        return "its sigma is not symmetric"
    shifted = sigma.copy()
    shifted[np.diag_indices_from(shifted)] += _ROUNDING * np.trace(sigma) / len(sigma)
    try:
        # Sufficient in nearly all cases, in a tenth of the time of the eigenvalues.
        linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
    except linalg.LinAlgError:
        values = linalg.eigvalsh(sigma, check_finite=False)
        if values[0] < -_ROUNDING * max(values[-1], 0.0):
            return f"its sigma is not a covariance: it has an eigenvalue of {values[0] * scale:.3g}"
    return None


class ClassDistance(NamedTuple):
    """Distance of one class, and the numbers of images and reference images that it was computed from."""

    value: float
    n: int
    n_reference: int


def per_class_frechet(
    fake: np.ndarray, fake_labels: np.ndarray, real: np.ndarray, real_labels: np.ndarray
) -> dict[int, ClassDistance]:
    """Return the Fréchet distance within each class (intra-FID: Miyato and Koyama 2018, arXiv:1802.05637).

    Each class has a fraction of the images, hence a larger bias than the whole set: compare distances of classes only
    at similar n.

    Args:
        fake: Features of generated images, float [N, d].
        fake_labels: Their labels, int [N].
        real: Features of real images, float [M, d].
        real_labels: Their labels, int [M].

    Returns:
        A distance for each label of the real images, in ascending order.

    Raises:
        ValueError: If a class has fewer than 2 images on a side (leaving it out would flatter a generator that never
            makes it), or the fakes have a class that the reals do not have.
    """
    for features, labels in ((fake, fake_labels), (real, real_labels)):
        if features.ndim != 2 or labels.shape != (len(features),):
            raise ValueError(f"labels {list(labels.shape)} do not fit features {list(features.shape)}")
    if unknown := sorted(set(np.unique(fake_labels).tolist()) - set(np.unique(real_labels).tolist())):
        raise ValueError(f"there are images of class {unknown[0]}, which the reference does not have")
    distances: dict[int, ClassDistance] = {}
    for label in np.unique(real_labels).tolist():
        rows = [np.flatnonzero(labels == label) for labels in (fake_labels, real_labels)]
        if min(map(len, rows)) < 2:
            raise ValueError(
                f"class {label} has {len(rows[0])} images and {len(rows[1])} reference images; a distance by class "
                "needs 2 or more of each"
            )
        ours, theirs = map(FeatureStatistics.from_features, (fake, real), rows)
        value = frechet_distance(ours.mu, ours.sigma, theirs.mu, theirs.sigma)
        distances[int(label)] = ClassDistance(value, ours.n, theirs.n)
    return distances
