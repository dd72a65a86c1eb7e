"""Fréchet distance of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500, eq. 6)."""

from __future__ import annotations

import numpy as np
from scipy import linalg

# A Cholesky factor whose smallest pivot is below this share of its largest may be noise there.
_SINGULAR = 1e-11
# What the eigenvalues' rounding may add to the trace of the root, as a share of that trace. This is the bound in
# the worst case (Weyl's); what is found is a millionth of it.
_TOLERANCE = 1e-9


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2(Σ₁Σ₂)^½), never below 0 and never complex.

    `mu` float [d] and `sigma` float [d, d], symmetric positive semi-definite; computed in float64. The
    trace of the root is the sum of the singular values of L₁ᵀL₂ for any factors Σ = LLᵀ: those of a singular
    covariance (fewer samples than features, a dead feature) are d x rank, so that it is exact there too, and 0 for
    equal inputs. No root of a matrix is taken. Raises ValueError for shapes that do not fit or values that are not
    finite.
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
    # Rounding leaves about ±1e-13 of the trace, which for equal inputs would be a negative distance.
    return float(max(difference @ difference + trace, 0.0))


def _trace_of_root(sigma1: np.ndarray, sigma2: np.ndarray) -> float:
    """tr((Σ₁Σ₂)^½): the sum of the square roots of the eigenvalues of Σ₁Σ₂, the singular values of M = L₁ᵀL₂."""
    # A feature that is dead in one adds nothing, whatever the other has there.
    alive = (np.diag(sigma1) > 0) & (np.diag(sigma2) > 0)
    if not alive.all():
        sigma1, sigma2 = (sigma[np.ix_(alive, alive)] for sigma in (sigma1, sigma2))
    if not sigma1.size:
        return 0.0
    triangle, other = _factor(sigma1), _factor(sigma2)
    if triangle.shape == sigma1.shape:
        between = linalg.blas.dtrmm(1.0, triangle, other, side=0, lower=1, trans_a=1, overwrite_b=1)
    else:
        between = triangle.T @ other
    if not between.size:
        return 0.0
    # The eigenvalues of MMᵀ take a fifth of the time of M's singular values, and are as good unless some are so
    # small that their roots are rounding.
    squared = linalg.blas.dsyrk(1.0, between, trans=int(between.shape[0] > between.shape[1]), lower=1)
    values = linalg.eigvalsh(squared, lower=True, overwrite_a=True, check_finite=False, driver="evd")
    noise = np.finfo(np.float64).eps * values[-1]
    if values[0] > 1000 * noise:
        roots = np.sqrt(values)
        if (noise / (2 * roots)).sum() <= _TOLERANCE * roots.sum():
            return float(roots.sum())
    return float(linalg.svdvals(between, overwrite_a=True, check_finite=False).sum())


def _factor(sigma: np.ndarray) -> np.ndarray:
    """L [d, rank] with LLᵀ = Σ, in Fortran's order and lower triangular at full rank.

    A factor of the true rank keeps rounding out: the root of an eigenvalue that should be 0 and is 1e-16 would be
    1e-8. So a singular Σ is factored by Cholesky's method with pivoting (Higham 1990; LAPACK's pstrf, its tolerance).
    """
    factor, failed = linalg.lapack.dpotrf(sigma.T, lower=1, clean=1)  # Σᵀ is Σ, and needs no copy to be turned
    pivots = np.diag(factor)
    if not failed and pivots.min() ** 2 > _SINGULAR * pivots.max() ** 2:
        return factor
    packed, order, rank, failed = linalg.lapack.dpstrf(sigma.T, lower=1)
    if failed < 0:
        raise ValueError("a covariance could not be factored")
    factor = np.zeros((len(sigma), rank), order="F")
    factor[order - 1] = np.tril(packed)[:, :rank]
    return factor
