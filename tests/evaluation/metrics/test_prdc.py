"""Each metric in closed form, and in blocks as in one piece."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evaluation.metrics import neighbors
from evaluation.metrics.fid_infinity import fid_infinity
from evaluation.metrics.frechet import frechet_distance, per_class_frechet
from evaluation.metrics.inception_score import inception_score
from evaluation.metrics.intervals import interval
from evaluation.metrics.kid import kid, mmd2
from evaluation.metrics.neighbors import near_copy_share, nearest, neighbor_distances
from evaluation.metrics.prdc import precision_recall_density_coverage
from evaluation.report.schema import check_threshold


def normal(seed: int, n: int, d: int = 6, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, size=(n, d)).astype(np.float32)


# --- kernel distance


def test_mmd2_of_one_distribution_has_mean_zero() -> None:
    """Over many pairs of sets of one distribution its mean is 0, which the biased estimator's is not."""
    estimates = [mmd2(*normal(seed, 40).astype(float).reshape(2, 20, 6)) for seed in range(400)]
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 3 * error
    assert min(estimates) < 0
    biased = 2 * np.mean([((x @ x.T / 6 + 1) ** 3).trace() / 20**2 for x in [normal(1, 20)]])
    assert biased > 20 * error


def test_kid_two_points_equals_hand_computation() -> None:
    """k(x, y) = (xy + 1)³ of {0, 1} and {1, 1}: within 1 and 8, between (1 + 1 + 8 + 8) / 4."""
    assert mmd2(np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]])) == pytest.approx(1 + 8 - 2 * 4.5)
    two = kid(np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]]), subsets=3, subset_size=2)
    assert two == pytest.approx((0.0, 0.0))


def test_kid_fewer_images_than_a_subset_fails() -> None:
    with pytest.raises(ValueError, match="subsets of 1000 images needs as many on either side; there are 30 and 2000"):
        kid(normal(0, 30), normal(1, 2000))
    with pytest.raises(ValueError, match="not finite"):
        kid(np.full((5, 2), np.nan), np.zeros((5, 2)), subset_size=5)


# --- Inception Score


def test_inception_score_identical_images_is_1() -> None:
    assert inception_score(np.zeros((40, 7))) == pytest.approx((1.0, 0.0))
    assert inception_score(np.tile([9.0, 1.0, -4.0], (40, 1))) == pytest.approx((1.0, 0.0))


def test_inception_score_confident_even_images_is_class_count() -> None:
    sure = np.tile(np.eye(5) * 2000, (8, 1))  # so sure that the other probabilities underflow to 0
    assert inception_score(sure, splits=4, seed=None) == pytest.approx((5.0, 0.0), rel=1e-12)


def test_inception_score_split_uses_its_own_images() -> None:
    """In order of classes every split holds one class, and scores 1: why the rows are shuffled first."""
    by_class = np.repeat(np.eye(5) * 50, 200, axis=0)
    assert inception_score(by_class, splits=5, seed=None).mean == pytest.approx(1.0)
    assert inception_score(by_class, splits=5).mean > 4.9
    with pytest.raises(ValueError, match="10 splits"):
        inception_score(np.zeros((9, 3)))


# --- precision, recall, density, coverage


def test_prdc_identical_sets_is_1() -> None:
    x = normal(0, 90)
    got = precision_recall_density_coverage(x, x)
    assert (got["precision"], got["recall"], got["coverage"]) == (1, 1, 1)
    assert got["density"] == pytest.approx(1, abs=1 / 5)  # each ball holds its centre and 4 of its 5 neighbours


def test_prdc_disjoint_sets_is_0() -> None:
    got = precision_recall_density_coverage(normal(0, 80), normal(1, 60, mean=1000))
    assert got == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_prdc_dropped_modes_and_junk_lower_their_scores() -> None:
    left, right = normal(0, 200, mean=-50), normal(1, 200, mean=50)
    real = np.concatenate([left, right])
    dropped = precision_recall_density_coverage(normal(2, 400, mean=50), real)
    junk = precision_recall_density_coverage(np.concatenate([real, normal(3, 400, mean=900)]), real)
    assert dropped["recall"] <= 0.5
    assert dropped["coverage"] <= 0.5
    assert dropped["precision"] > 0.7
    assert junk["precision"] == 0.5
    assert junk["recall"] == junk["coverage"] == 1


def test_prdc_collapsed_generator_has_no_recall() -> None:
    got = precision_recall_density_coverage(np.zeros((50, 6)), normal(1, 50))
    assert got["recall"] == 0


def test_prdc_points_on_a_line_equals_hand_computation() -> None:
    """Reals 0, 1, 3, 7 with k=1 have radii 1, 1, 2, 4; fakes 1.5 and 20, radii 18.5."""
    real, fake = np.array([[0.0], [1], [3], [7]]), np.array([[1.5], [20]])
    got = precision_recall_density_coverage(fake, real, precision_recall_k=1, density_coverage_k=1)
    assert got == {"precision": 0.5, "recall": 1.0, "density": 2 / 2, "coverage": 0.5}


def test_prdc_any_block_size_is_equal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake, real = normal(0, 130), normal(1, 110, mean=0.3)
    np.save(tmp_path / "fake.npy", fake)
    on_disk = np.load(tmp_path / "fake.npy", mmap_mode="r")
    pairs = np.linalg.norm(fake[:, None].astype(float) - fake[None], axis=2)
    expected = np.sort(pairs, axis=1)[:, 1:4]
    whole = precision_recall_density_coverage(fake, real)
    for size in (1000, 17, 2, 1):
        monkeypatch.setattr(neighbors, "BLOCK", size)
        np.testing.assert_allclose(np.sqrt(neighbor_distances(on_disk, 3)), expected, rtol=1e-10)
        assert precision_recall_density_coverage(on_disk, real) == whole


def test_prdc_too_few_or_nan_fails() -> None:
    with pytest.raises(ValueError, match="need 6 images or more on either side; there are 5 and 50"):
        precision_recall_density_coverage(normal(0, 5), normal(1, 50))
    with pytest.raises(ValueError, match="not finite"):
        precision_recall_density_coverage(np.full((20, 6), np.nan), normal(1, 50))
    with pytest.raises(ValueError, match=r"\[N, 4\]"):
        precision_recall_density_coverage(normal(0, 20), normal(1, 50, d=4))


def exact_figures(fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Return the four figures by distances of differences, which are exact for small whole numbers and for copies."""

    def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.array([((y - row) ** 2).sum(axis=1) for row in x])

    def radii(rows: np.ndarray, k: int) -> np.ndarray:
        distances = squared(rows, rows)
        np.fill_diagonal(distances, np.inf)
        return np.sort(distances, axis=1)[:, k - 1]

    pairs = squared(real, fake)
    inside = pairs < radii(real, 5)[:, None]
    return {
        "precision": (pairs <= radii(real, 3)[:, None]).any(axis=0).mean(),
        "recall": (pairs <= radii(fake, 3)).any(axis=1).mean(),
        "density": inside.sum(axis=0).mean() / 5,
        "coverage": inside.any(axis=1).mean(),
    }


@pytest.mark.parametrize("d", [2, 16, 64, 512])
@pytest.mark.parametrize("kind", ["whole numbers", "bits", "copies", "half copies", "repeated"])
def test_prdc_equal_distances_are_equal(kind: str, d: int) -> None:
    random = np.random.default_rng(d)
    real = random.integers(0, 3, (300, d)).astype(float)
    fake = random.integers(0, 3, (260, d)).astype(float)
    if kind == "bits":
        real, fake = (real > 1).astype(float), (fake > 1).astype(float)
    elif kind != "whole numbers":
        real = normal(d, 300, d=d, mean=3).astype(float)
        fake = {"copies": real, "half copies": np.concatenate([real[:150], fake[:150]]), "repeated": real[:60]}[kind]
        if kind == "repeated":
            fake, real = (np.repeat(rows[:60], 8, axis=0) for rows in (fake, real))
    assert precision_recall_density_coverage(fake, real) == pytest.approx(exact_figures(fake, real), abs=1e-12)


# --- FID∞


def test_fid_infinity_removes_the_bias_of_n() -> None:
    """Of one Gaussian against itself the distance is 0; at N images it is above, about as 1/N."""
    found = fid_infinity(normal(0, 6000, d=30), np.zeros(30), np.eye(30))
    assert found.ns[0] == 600
    assert found.ns[-1] == 6000
    assert len(found.ns) == 15
    assert found.values[0] > 5 * found.values[-1] > 0
    assert abs(found.value) < found.values[-1] / 5


def test_fid_infinity_last_point_is_whole_set_seed_fixes_rest() -> None:
    rows = normal(0, 400)
    found = fid_infinity(rows, np.zeros(6), np.eye(6), seed=3)
    whole = frechet_distance(rows.mean(0, dtype=float), np.cov(rows.T.astype(float)), np.zeros(6), np.eye(6))
    assert found.values[-1] == pytest.approx(whole, rel=1e-9)
    assert fid_infinity(rows, np.zeros(6), np.eye(6), seed=3) == found
    assert fid_infinity(rows, np.zeros(6), np.eye(6), seed=4).values != found.values
    with pytest.raises(ValueError, match="27 images or more for 6 features, not 26"):
        fid_infinity(rows[:26], np.zeros(6), np.eye(6))


@pytest.mark.parametrize("n", [320, 640, 2000])
def test_fid_infinity_of_one_distribution_is_not_negative(n: int) -> None:
    """Against 1,000 images of the same Gaussian, whose own bias is left in."""
    for seed in range(4):
        reference = normal(100 + seed, 1000, d=64).astype(float)
        found = fid_infinity(normal(seed, n, d=64), reference.mean(0), np.cov(reference.T))
        assert found.value > 0
        assert found.ns[0] == max(n // 10, 4 * 64)


def test_fid_infinity_few_images_per_feature_fails() -> None:
    with pytest.raises(ValueError, match="needs 288 images or more for 64 features, not 130"):
        fid_infinity(normal(0, 130, d=64), np.zeros(64), np.eye(64))


def test_fid_infinity_standard_error_is_least_squares() -> None:
    found = fid_infinity(normal(0, 600), np.zeros(6), np.eye(6))
    line = stats.linregress(1 / np.array(found.ns), found.values)
    assert found.value == pytest.approx(line.intercept, rel=1e-9)
    assert found.standard_error == pytest.approx(line.intercept_stderr, rel=1e-9)
    assert fid_infinity(normal(0, 600), np.zeros(6), np.eye(6), points=2).standard_error is None


@pytest.mark.parametrize(("value", "metric", "passed"), [(-0.1, "fid_infinity", False), (0.0, "fid_infinity", True)])
def test_threshold_negative_distance_does_not_pass(value: float, metric: str, passed: bool) -> None:
    found = check_threshold([{"better": "lower", "name": "x", "metric": metric, "value": value}], 5.0)
    assert found is not None
    assert found["passed"] is passed


def test_threshold_negative_unbiased_kernel_distance_passes() -> None:
    found = check_threshold([{"better": "lower", "name": "x", "metric": "kid", "value": -1e-4}], 5.0)
    assert found is not None
    assert found["passed"] is True


# --- by class


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


# --- intervals


def test_interval_five_values_is_students_t() -> None:
    """t(0.975, 4) = 2.776445105; s of 1..5 is √2.5."""
    got = interval([1, 2, 3, 4, 5])
    half = 2.7764451051977987 * math.sqrt(2.5 / 5)
    assert got == pytest.approx((3, 3 - half, 3 + half), rel=1e-9)
    with pytest.raises(ValueError, match="2 finite values"):
        interval([1.0])


def test_interval_of_disjoint_ranges_contains_the_expectation() -> None:
    """Of fresh sets the interval holds the expected figure about as often as it says; resampled ones are biased."""
    d, n, origin = 40, 300, (np.zeros(40), np.eye(40))

    def distance(rows: np.ndarray) -> float:
        return frechet_distance(rows.mean(0), np.cov(rows.T), *origin)

    random = np.random.default_rng(0)
    expected = np.mean([distance(random.normal(size=(n, d))) for _ in range(100)])
    intervals = [interval([distance(random.normal(size=(n, d))) for _ in range(5)]) for _ in range(60)]
    holding = sum(one.low <= expected <= one.high for one in intervals)
    assert holding >= 52  # of 60 at 95%: fewer has a probability below 1%
    rows = random.normal(size=(n, d))
    resampled = interval([distance(rows[random.integers(0, n, n)]) for _ in range(5)])
    assert resampled.low > 1.5 * expected


# --- memorization


def test_nearest_finds_neighbors_and_a_copy_is_at_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "BLOCK", 32)
    train, queries = normal(0, 150) + 1000, normal(1, 70) + 1000  # far from the origin, where digits cancel
    queries[3] = train[140]
    distances, indices = nearest(queries, train, k=3)
    exact = np.linalg.norm(queries[:, None].astype(float) - train[None], axis=2)
    np.testing.assert_array_equal(indices, np.argsort(exact, axis=1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :3], rtol=1e-12)
    assert (distances[3, 0], indices[3, 0]) == (0, 140)
    with pytest.raises(ValueError, match="fewer than the 200 nearest"):
        nearest(queries, train, k=200)


def test_near_copy_share_copies_exceed_held_out_share() -> None:
    train, held_out = normal(0, 500, d=8), normal(1, 400, d=8)
    fresh, copies = normal(2, 400, d=8), normal(3, 400, d=8)
    copies[:100] = train[:100] + 1e-3
    real = nearest(held_out, train)[0][:, 0]
    honest = near_copy_share(nearest(fresh, train)[0][:, 0], real)
    copied = near_copy_share(nearest(copies, train)[0][:, 0], real)
    assert honest.share < 0.04
    assert 0.25 <= copied.share < 0.29
    assert copied.held_out_share == honest.held_out_share < 0.04
    with pytest.raises(ValueError, match="20 held-out"):
        near_copy_share(real, real[:19])
