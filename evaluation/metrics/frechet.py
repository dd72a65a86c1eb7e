"""Fréchet distance of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500, eq. 6)."""

from __future__ import annotations

import numpy as np
from scipy import linalg

# A covariance whose smallest eigenvalue is below this share of its largest is taken as singular:
# a Cholesky factor of it may exist and yet be noise.
_SINGULAR = 1e-10


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2(Σ₁Σ₂)^½), never below 0 and never complex.

    `mu` float [d] and `sigma` float [d, d], symmetric positive semi-definite; computed in float64. Full
    rank takes the eigenvalues of LᵀΣ₂L with Σ₁ = LLᵀ. A singular covariance (fewer samples than features, a dead
    feature) takes the singular values of L₁ᵀL₂ with factors of d x rank, exact there too, and 0 for equal
    inputs. Raises ValueError for shapes that do not fit or values that are not finite.
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
    """tr((Σ₁Σ₂)^½): the sum of the square roots of the eigenvalues of Σ₁Σ₂."""
    try:
        factor = linalg.cholesky(sigma1, lower=True)
        linalg.cholesky(sigma2, lower=True)
        diagonal = np.diag(factor)
        if diagonal.min() ** 2 > _SINGULAR * diagonal.max() ** 2:
            values = linalg.eigvalsh(factor.T @ sigma2 @ factor)
            if values[0] > _SINGULAR * values[-1]:
                return float(np.sqrt(values).sum())
    except linalg.LinAlgError:
        pass
    # For any factors Σ = LLᵀ the eigenvalues of Σ₁Σ₂ are the squared singular values of L₁ᵀL₂. Factors of the
    # matrices' true rank keep rounding out: the root of an eigenvalue that should be 0 and is 1e-16 would be 1e-8.
    between = _factor(sigma1).T @ _factor(sigma2)
    return float(linalg.svdvals(between).sum()) if between.size else 0.0


def _factor(sigma: np.ndarray) -> np.ndarray:
    """L [d, rank] with LLᵀ = Σ, by Cholesky's method with pivoting (Higham 1990; LAPACK's pstrf, its tolerance)."""
    packed, pivots, rank, status = linalg.lapack.dpstrf(sigma, lower=1)
    if status < 0:
        raise ValueError("a covariance could not be factored")
    factor = np.zeros((len(sigma), rank))
    factor[pivots - 1] = np.tril(packed)[:, :rank]
    return factor
