"""The Fréchet distance, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from evaluation.metrics.frechet import frechet_distance


def covariance(seed: int, d: int, n: int | None = None) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n or 4 * d, d)) * np.linspace(0.5, 3, d)
    return np.cov(rows, rowvar=False)


def test_equal_covariances_leave_the_squared_distance_of_the_means() -> None:
    sigma, mu = covariance(0, 16), np.arange(16.0)
    assert frechet_distance(mu, sigma, mu + 2, sigma) == pytest.approx(4 * 16, rel=1e-12)


def test_one_dimension_is_the_distance_of_means_and_deviations() -> None:
    assert frechet_distance(*map(np.atleast_1d, (3.0,)), np.eye(1) * 4, np.zeros(1), np.eye(1) * 25) == pytest.approx(
        3**2 + (2 - 5) ** 2
    )


def test_commuting_covariances_are_the_distance_of_their_roots() -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    a, b = np.array([1.0, 2, 3, 4, 5, 6]), np.array([9.0, 1, 4, 2, 0.5, 3])
    got = frechet_distance(
        np.zeros(6), rotation @ np.diag(a) @ rotation.T, np.zeros(6), rotation @ np.diag(b) @ rotation.T
    )
    assert got == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), rel=1e-12)


def test_it_is_the_formula_with_sqrtm() -> None:
    first, second = covariance(1, 24), covariance(2, 24)
    expected = np.trace(first + second - 2 * linalg.sqrtm(first @ second).real)
    assert frechet_distance(np.zeros(24), first, np.zeros(24), second) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n", [9, 40, 400])
def test_identical_inputs_are_at_distance_zero_whatever_the_rank(n: int) -> None:
    sigma, mu = covariance(3, 40, n), np.ones(40)
    assert frechet_distance(mu, sigma, mu, sigma) <= 1e-9 * np.trace(sigma)


@pytest.mark.parametrize("n", [10, 39])
def test_a_singular_covariance_is_exact(n: int) -> None:
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
def test_fewer_images_than_features_are_exact_to_a_billionth(n1: int, n2: int, steep: float) -> None:
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


def test_images_that_are_all_one_image_have_a_distance_too() -> None:
    zero, sigma = np.zeros((5, 5)), covariance(7, 5)
    assert frechet_distance(np.ones(5), zero, np.ones(5), zero) == 0
    assert frechet_distance(np.ones(5), zero, np.zeros(5), sigma) == pytest.approx(5 + np.trace(sigma))


def test_a_dead_feature_is_nothing_special() -> None:
    first, second = covariance(5, 8), covariance(6, 8)
    whole = frechet_distance(np.zeros(8), first, np.zeros(8), second)
    padded = [np.pad(sigma, (0, 1)) for sigma in (first, second)]
    assert frechet_distance(np.zeros(9), padded[0], np.zeros(9), padded[1]) == pytest.approx(whole, rel=1e-9)


def test_a_feature_that_one_side_lacks_keeps_only_its_own_variance() -> None:
    first, second = covariance(5, 8), covariance(6, 8)
    first[3], first[:, 3] = 0, 0
    rest = np.delete(np.arange(8), 3)
    without = frechet_distance(np.zeros(7), first[np.ix_(rest, rest)], np.zeros(7), second[np.ix_(rest, rest)])
    for there in (frechet_distance, lambda *pair: frechet_distance(*pair[2:], *pair[:2])):
        got = there(np.zeros(8), first, np.zeros(8), second)
        assert got == pytest.approx(without + second[3, 3], rel=1e-9)


@pytest.mark.parametrize("small", [1e-6, 1e-9, 1e-12, 1e-15])
def test_a_few_large_variances_over_many_small_ones_are_exact(small: float) -> None:
    """Where the roots of the eigenvalues would be rounding, at whatever size that sets in."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(150, 150)))[0]
    spectrum = np.where(np.arange(150) < 5, 1.0, small)
    sigma = (rotation * spectrum) @ rotation.T
    got = frechet_distance(np.zeros(150), sigma, np.zeros(150), 9 * sigma)
    assert got == pytest.approx(4 * spectrum.sum(), rel=1e-9)
    assert frechet_distance(np.zeros(150), sigma, np.zeros(150), sigma) <= 1e-9 * spectrum.sum()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 30))
def test_it_is_symmetric_and_never_negative(seed: int, d: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    (mu1, s1), (mu2, s2) = (
        (rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False)))
        for rows in (rng.normal(size=(n, d)) for _ in range(2))
    )
    there, back = frechet_distance(mu1, s1, mu2, s2), frechet_distance(mu2, s2, mu1, s1)
    assert there >= 0
    assert there == pytest.approx(back, rel=1e-6, abs=1e-8)


def test_what_does_not_fit_or_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.zeros(2), np.eye(2), np.full(2, np.nan), np.eye(2))
