"""Fréchet distance of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500, eq. 6)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg

# Below this smallest squared pivot, of a covariance whose diagonal is near 1, the plain Cholesky factor may hold
# noise where the covariance is singular.
_SINGULAR = 1e-11
# Largest error of the root's trace, as a share of that trace, that the eigenvalues of MMᵀ may be expected to leave.
_TOLERANCE = 3e-13


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """Return the Fréchet distance ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2(Σ₁Σ₂)^½).

    The trace of the root is the sum of the singular values of L₁ᵀL₂ for any factors Σ = LLᵀ, so that no root of a
    matrix is taken. The factor of a singular covariance (fewer samples than features, a dead feature) has as many
    columns as the covariance has ranks, which keeps rounding out of the distance.

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
        return self.rows.shape[0] == self.rows.shape[1]

    def whole(self) -> np.ndarray:
        """Return L, in Fortran's order."""
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
    return first.unit * second.unit * _nuclear_norm(_between(first, second))


def _nuclear_norm(between: np.ndarray) -> float:
    """Return the sum of the singular values of M = L₁ᵀL₂; M is overwritten."""
    if not between.size:
        return 0.0
    # The eigenvalues of MMᵀ take a fifth of the time of M's singular values. Each is off by about the rounding of
    # the largest, so their roots serve unless small ones decide.
    squared = linalg.blas.dsyrk(1.0, between, trans=int(between.shape[0] > between.shape[1]), lower=1)
    values = linalg.eigvalsh(squared, lower=True, overwrite_a=True, check_finite=False, driver="evd")
    noise = np.finfo(np.float64).eps * values[-1]
    if values[0] > 1000 * noise:
        roots = np.sqrt(values)
        if np.linalg.norm(noise / (2 * roots)) <= _TOLERANCE * roots.sum():
            return float(roots.sum())
    return float(linalg.svdvals(between, overwrite_a=True, check_finite=False).sum())


def _between(first: _Factor, second: _Factor) -> np.ndarray:
    """Return L₁ᵀL₂ [rank₁, rank₂], at half the work where L₁ is a triangle but for the order of its rows."""
    other = second.whole()
    if not first.triangular:
        return first.whole().T @ other
    if first.order is not None:
        other = np.asfortranarray(other[first.order])
    return linalg.blas.dtrmm(1.0, first.rows, other, side=0, lower=1, trans_a=1, overwrite_b=1)


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
