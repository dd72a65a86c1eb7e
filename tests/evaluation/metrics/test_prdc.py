"""Each metric in closed form, and in blocks as in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.metrics import neighbors
from evaluation.metrics.neighbors import neighbor_distances
from evaluation.metrics.prdc import precision_recall_density_coverage
from tests.support.evaluation.samples import normal

# --- kernel distance


# --- Inception Score


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


@pytest.mark.slow
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


# --- by class


# --- intervals


# --- memorization
