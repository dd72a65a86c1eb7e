"""The Fréchet distance, against closed forms."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from evaluation.metrics.frechet import FeatureStatistics, frechet_distance, per_class_frechet
from tests.support.evaluation.samples import normal


def covariance(seed: int, d: int, n: int | None = None) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n or 4 * d, d)) * np.linspace(0.5, 3, d)
    return np.cov(rows, rowvar=False)


def test_frechet_equal_covariances_is_the_squared_mean_distance() -> None:
    sigma, mu = covariance(0, 16), np.arange(16.0)
    assert frechet_distance(mu, sigma, mu + 2, sigma) == pytest.approx(4 * 16, rel=1e-12)


def test_frechet_one_feature_is_the_closed_form() -> None:
    assert frechet_distance(*map(np.atleast_1d, (3.0,)), np.eye(1) * 4, np.zeros(1), np.eye(1) * 25) == pytest.approx(
        3**2 + (2 - 5) ** 2
    )


def test_frechet_commuting_covariances_is_the_roots_distance() -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    a, b = np.array([1.0, 2, 3, 4, 5, 6]), np.array([9.0, 1, 4, 2, 0.5, 3])
    got = frechet_distance(
        np.zeros(6), rotation @ np.diag(a) @ rotation.T, np.zeros(6), rotation @ np.diag(b) @ rotation.T
    )
    assert got == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), rel=1e-12)


def test_frechet_full_rank_equals_sqrtm() -> None:
    first, second = covariance(1, 24), covariance(2, 24)
    expected = np.trace(first + second - 2 * linalg.sqrtm(first @ second).real)
    assert frechet_distance(np.zeros(24), first, np.zeros(24), second) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n", [9, 40, 400])
def test_frechet_identical_inputs_of_any_rank_is_zero(n: int) -> None:
    sigma, mu = covariance(3, 40, n), np.ones(40)
    assert frechet_distance(mu, sigma, mu, sigma) <= 1e-9 * np.trace(sigma)


@pytest.mark.parametrize("n", [10, 39])
def test_frechet_singular_covariance_is_exact(n: int) -> None:
    """Scaling: Σ₂ = c²Σ₁ has the distance (1 - c)² tr Σ₁, of any rank."""
    sigma = covariance(4, 40, n)
    got = frechet_distance(np.zeros(40), sigma, np.zeros(40), 9 * sigma)
    assert got == pytest.approx(4 * np.trace(sigma), rel=1e-10)


def rows_of(seed: int, n: int, d: int, steep: float) -> np.ndarray:
    """Correlated rows whose variances fall by a factor e^(2·steep)."""
    mix = np.linalg.qr(np.random.default_rng(99).normal(size=(d, d)))[0]
    return np.random.default_rng(seed).normal(size=(n, d)) * np.exp(-np.linspace(0, steep, d)) @ mix


@pytest.mark.parametrize("steep", [0.0, 10.0])
@pytest.mark.parametrize(("n1", "n2"), [(60, 90), (60, 900), (901, 900), (151, 900)])
def test_frechet_fewer_images_than_features_is_exact(n1: int, n2: int, steep: float) -> None:
    """From the features themselves: tr (Σ₁Σ₂)^½ is the nuclear norm of X₁X₂ᵀ over √((n₁ - 1)(n₂ - 1))."""
    x, y = rows_of(1, n1, 150, steep), rows_of(2, n2, 150, steep)
    got = frechet_distance(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    x_centred, y_centred = x - x.mean(0), y - y.mean(0)
    root = linalg.svdvals(x_centred @ y_centred.T).sum() / np.sqrt((n1 - 1) * (n2 - 1))
    between_means = ((x.mean(0) - y.mean(0)) ** 2).sum()
    expected = between_means + np.cov(x.T).trace() + np.cov(y.T).trace() - 2 * root
    assert got == pytest.approx(expected, rel=1e-9)
    if (n1, n2) == (60, 900):  # where eigenvalues of the product, as peers take them, miss it
        with np.errstate(all="ignore"):
            product = np.sqrt(np.linalg.eigvals(np.cov(x.T) @ np.cov(y.T)).astype(complex)).real.sum()
        assert abs(2 * (product - root)) > 3 * 1e-9 * expected


def test_frechet_copies_of_one_image_is_exact() -> None:
    zero, sigma = np.zeros((5, 5)), covariance(7, 5)
    assert frechet_distance(np.ones(5), zero, np.ones(5), zero) == 0
    assert frechet_distance(np.ones(5), zero, np.zeros(5), sigma) == pytest.approx(5 + np.trace(sigma))


def test_frechet_dead_feature_in_both_sets_is_exact() -> None:
    first, second = covariance(5, 8), covariance(6, 8)
    whole = frechet_distance(np.zeros(8), first, np.zeros(8), second)
    padded = [np.pad(sigma, (0, 1)) for sigma in (first, second)]
    assert frechet_distance(np.zeros(9), padded[0], np.zeros(9), padded[1]) == pytest.approx(whole, rel=1e-9)


def test_frechet_dead_feature_in_one_set_adds_its_variance() -> None:
    first, second = covariance(5, 8), covariance(6, 8)
    first[3], first[:, 3] = 0, 0
    rest = np.delete(np.arange(8), 3)
    without = frechet_distance(np.zeros(7), first[np.ix_(rest, rest)], np.zeros(7), second[np.ix_(rest, rest)])
    for there in (frechet_distance, lambda *pair: frechet_distance(*pair[2:], *pair[:2])):
        got = there(np.zeros(8), first, np.zeros(8), second)
        assert got == pytest.approx(without + second[3, 3], rel=1e-9)


# --- ill-conditioned covariances. Every bound is relative to the traces: the distance itself may be 0.

BOUND = 1e-12
CONDITIONS = [1e4, 1e5, 1e6, 1e10, 1e12, 1e13, 1e14, 1e15, 1e16, 1e18]


def spectrum(kind: str, d: int, condition: float) -> np.ndarray:
    """Return eigenvalues from 1 down to 1 / `condition`, float64 [d]."""
    if kind == "geometric":
        return condition ** -np.linspace(0, 1, d)
    large = {"few large": max(1, d // 30), "one small": d - 1}[kind]
    return np.where(np.arange(d) < large, 1.0, 1 / condition)


def rotated(eigenvalues: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return Q diag(eigenvalues) Qᵀ with a random rotation Q, exactly symmetric."""
    d = len(eigenvalues)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    sigma = (rotation * eigenvalues) @ rotation.T
    return (sigma + sigma.T) / 2


def between(sigma1: np.ndarray, sigma2: np.ndarray) -> float:
    """Return the distance of two Gaussians of equal means, the same in both orders of the arguments."""
    zero = np.zeros(len(sigma1))
    there, back = frechet_distance(zero, sigma1, zero, sigma2), frechet_distance(zero, sigma2, zero, sigma1)
    assert there >= 0
    assert abs(there - back) <= 1e-13 * (np.trace(sigma1) + np.trace(sigma2))
    return there


@pytest.mark.parametrize("kind", ["few large", "one small", "geometric"])
@pytest.mark.parametrize("d", [4, 16, 64, 384])
def test_frechet_any_condition_against_itself_is_zero(d: int, kind: str) -> None:
    for condition in CONDITIONS if d < 384 else [1e13, 1e16]:
        sigma = rotated(spectrum(kind, d, condition))
        assert between(sigma, sigma) <= BOUND * 2 * np.trace(sigma), condition


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["few large", "one small", "geometric"])
@pytest.mark.parametrize("d", [4, 16, 64, 384])
def test_frechet_any_condition_scaled_by_9_is_4_traces(d: int, kind: str) -> None:
    for condition in CONDITIONS if d < 384 else [1e13, 1e16]:
        sigma = rotated(spectrum(kind, d, condition))
        assert between(sigma, 9 * sigma) == pytest.approx(4 * np.trace(sigma), rel=BOUND), condition


@pytest.mark.parametrize("small", [1e-12, 1e-13, 1e-14, 1e-15])
def test_frechet_145_small_variances_of_150_is_zero(small: float) -> None:
    sigma = rotated(np.where(np.arange(150) < 5, 5.0, small))
    assert between(sigma, sigma) <= BOUND * np.trace(sigma)


@pytest.mark.parametrize("d", [4, 64])
@pytest.mark.parametrize(("first", "second"), [(1e10, 1e12), (1e12, 1e16), (1e14, 1e13), (1e18, 1e15)])
def test_frechet_commuting_spectra_is_the_roots_distance(d: int, first: float, second: float) -> None:
    a, b = spectrum("geometric", d, first), 3 * spectrum("geometric", d, second)
    got = between(rotated(a), rotated(b))
    assert abs(got - ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()) <= BOUND * (a.sum() + b.sum())


@given(st.integers(0, 10_000), st.floats(4, 18), st.floats(4, 18))
@settings(max_examples=60, deadline=None)
def test_frechet_two_features_is_the_exact_formula(seed: int, digits1: float, digits2: float) -> None:
    """tr((Σ₁Σ₂)^½)² = tr(Σ₁Σ₂) + 2 √(det Σ₁ det Σ₂) for d = 2, in rationals of the very float64 values."""
    small = np.array([10.0**-digits1, 10.0**-digits2])
    # Where one is small and the other is not, the rounding of the inputs decides, and no algorithm is better.
    turn = 1e-8 * np.random.default_rng(seed).normal()
    sigmas = []
    for eigenvalue, angle in zip(small, (0.7, 0.7 + turn), strict=True):
        direction, other = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        sigmas.append(np.outer(direction, direction) + eigenvalue * np.outer(other, other))
    (a, b, _, c), (e, f, _, g) = ([Fraction(float(x)) for x in sigma.ravel()] for sigma in sigmas)
    determinants = max(a * c - b * b, Fraction(0)) * max(e * g - f * f, Fraction(0))
    with localcontext(prec=60):
        root = (decimal(a * e + 2 * b * f + c * g) + 2 * decimal(determinants).sqrt()).sqrt()
        expected = float(decimal(a + c + e + g) - 2 * root)
    # Where one covariance is small and the other is not, rounding the inputs alone changes the distance by this.
    eps = np.finfo(float).eps
    inherent = 4 * eps * np.sqrt(small.max() / max(small.min(), eps))
    assert abs(between(*sigmas) - expected) <= BOUND * 2 + inherent


def decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


def nuclear(x: np.ndarray, y: np.ndarray) -> float:
    """Return the distance from the features: tr (Σ₁Σ₂)^½ is the nuclear norm of X₁X₂ᵀ over √((n₁ - 1)(n₂ - 1))."""
    triangles = []
    for rows in (x, y):
        triangles.append(np.linalg.qr(rows - rows.mean(0), mode="r") / np.sqrt(len(rows) - 1))
    root = linalg.svdvals(triangles[0] @ triangles[1].T).sum()
    traces = sum((triangle**2).sum() for triangle in triangles)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + traces - 2 * root)


def statistics(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = FeatureStatistics.from_features(rows)
    return found.mu, found.sigma


def check_features(x: np.ndarray, y: np.ndarray) -> None:
    (mu1, sigma1), (mu2, sigma2) = statistics(x), statistics(y)
    scale = np.trace(sigma1) + np.trace(sigma2)
    assert between(sigma1, sigma1) <= BOUND * scale
    there, back = frechet_distance(mu1, sigma1, mu2, sigma2), frechet_distance(mu2, sigma2, mu1, sigma1)
    assert abs(there - back) <= 1e-13 * scale
    assert abs(there - nuclear(x, y)) <= BOUND * scale


@pytest.mark.parametrize("factor", [1e-5, 1e-6, 1e-7, 1e-8, 1e-12, 1e6])
def test_frechet_one_feature_of_another_scale_is_exact(factor: float) -> None:
    x, y = (rows_of(seed, 10_000, 64, 1.0) for seed in (1, 2))
    x[:, 7] *= factor
    y[:, 7] *= factor
    check_features(x, y)


def test_frechet_every_feature_of_another_scale_is_exact() -> None:
    scales = 10.0 ** -np.linspace(0, 30, 64)
    x, y = (rows_of(seed, 2000, 64, 1.0) * scales for seed in (1, 2))
    check_features(x, y)


@pytest.mark.parametrize("d", [32, 64, 192])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_frechet_through_a_layer_norm_is_exact(d: int, dtype: type) -> None:
    """A LayerNorm fixes Σ xᵢ / γᵢ: in one direction the covariance holds the rounding of `dtype`, and nothing else."""
    random = np.random.default_rng(3)
    common, gamma, beta = 3 * random.normal(size=d), random.uniform(0.5, 2, d), random.normal(size=d)
    sets = []
    for seed, steep in ((1, 2.0), (2, 2.2)):
        rows = rows_of(seed, 4 * d, d, steep) + common
        normalized = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-6)
        sets.append((normalized * gamma + beta).astype(dtype).astype(np.float64))
    check_features(*sets)


@pytest.mark.parametrize("scale", [1e-160, 1e-80, 1e80, 1e150, 1e300])
def test_frechet_features_of_extreme_scale_is_exact(scale: float) -> None:
    sigma = covariance(8, 12)
    assert between(scale * sigma, scale * sigma / 9) == pytest.approx(scale * 4 / 9 * np.trace(sigma), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 30))
def test_frechet_swapped_arguments_is_equal_and_not_negative(seed: int, d: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    (mu1, s1), (mu2, s2) = (
        (rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False)))
        for rows in (rng.normal(size=(n, d)) for _ in range(2))
    )
    there, back = frechet_distance(mu1, s1, mu2, s2), frechet_distance(mu2, s2, mu1, s1)
    assert there >= 0
    assert there == pytest.approx(back, rel=1e-6, abs=1e-8)


def test_frechet_wrong_shapes_or_nan_fails() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.zeros(2), np.eye(2), np.full(2, np.nan), np.eye(2))


def test_per_class_frechet_compares_each_class_with_itself() -> None:
    real, labels = normal(0, 300, d=3), np.arange(300) % 3
    shift = np.array([0.0, 2.0, 5.0])
    fake = real + shift[labels][:, None]
    found = per_class_frechet(fake, labels, real, labels)
    assert list(found) == [0, 1, 2]
    for label, distance in found.items():
        assert distance.value == pytest.approx(3 * shift[label] ** 2, abs=1e-5)
        assert (distance.n, distance.n_reference) == (100, 100)


def test_per_class_frechet_missing_class_fails() -> None:
    real, labels = normal(0, 30), np.arange(30) % 3
    with pytest.raises(ValueError, match="class 2 has 0 images"):
        per_class_frechet(real[:20], np.arange(20) % 2, real, labels)
    with pytest.raises(ValueError, match="class 7, which the reference does not have"):
        per_class_frechet(real, np.full(30, 7), real, labels)
