"""Seed → latent: golden values, the same in every package and every language."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import kstest, truncnorm

from artifacts.latents import NUM_SEEDS, raw_draws, seeds_to_labels, seeds_to_latents

GOLDEN = [213000021201967259, 4455796210202625458]  # the first raw draws of seed 0
U = [((draw >> 12) + 0.5) / 2**52 for draw in GOLDEN]


def test_raw_draws_seed_zero_equal_the_published_values() -> None:
    assert np.random.Philox(key=0).random_raw(2).tolist() == GOLDEN
    assert raw_draws([0], 2).tolist() == [GOLDEN]


def test_seeds_to_latents_seed_zero_equals_the_formula() -> None:
    z, labels = seeds_to_latents([0], 2)
    assert z.dtype == np.float32
    assert labels is None
    np.testing.assert_array_equal(z[0], ndtri(U).astype(np.float32))
    np.testing.assert_allclose(z[0], [NormalDist().inv_cdf(u) for u in U], rtol=1e-6)  # another implementation
    np.testing.assert_array_equal(seeds_to_latents([0], 2, "uniform")[0][0], np.float32([2 * u - 1 for u in U]))


def test_seeds_to_latents_have_the_named_distribution() -> None:
    normal, uniform = seeds_to_latents(range(400), 100)[0], seeds_to_latents(range(400), 100, "uniform")[0]
    assert normal.shape == (400, 100)
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert abs(uniform.mean()) < 0.01
    assert abs(uniform.var() - 1 / 3) < 0.01


def test_seeds_to_latents_depend_on_their_seed_only() -> None:
    together = seeds_to_latents(range(3, 8), 6)[0]
    np.testing.assert_array_equal(together[2], seeds_to_latents([5], 6)[0][0])
    np.testing.assert_array_equal(seeds_to_latents([7], 5)[0][0], seeds_to_latents([7], 64)[0][0, :5])


@pytest.mark.parametrize("seed", [-1, NUM_SEEDS])
def test_seeds_to_latents_seed_out_of_range_raises(seed: int) -> None:
    seeds_to_latents([NUM_SEEDS - 1], 2)
    with pytest.raises(ValueError, match="2\\^53"):
        seeds_to_latents([seed], 2)


def test_seeds_to_labels_are_the_next_draw_modulo_the_classes() -> None:
    draw = int(np.random.Philox(key=7).random_raw(5)[4])
    assert seeds_to_latents([7], 4, num_classes=10)[1].tolist() == [draw % 10]  # type: ignore[union-attr]
    assert seeds_to_labels([7], 4, 10).tolist() == [draw % 10]  # type: ignore[union-attr]
    assert seeds_to_labels([7], 4, 0) is None
    assert np.bincount(seeds_to_labels(range(1000), 8, 4)).min() > 200


seeds = st.integers(0, NUM_SEEDS - 1)


def test_raw_draws_equal_philox_golden_values() -> None:
    assert raw_draws([0], 2).tolist() == [[213000021201967259, 4455796210202625458]]


def test_seeds_to_latents_equal_the_documented_formula() -> None:
    """Written out with Python's own normal quantile, for the first draws of seed 0."""
    from statistics import NormalDist

    u = [((raw >> 12) + 0.5) / 2**52 for raw in (213000021201967259, 4455796210202625458)]
    normal, labels = seeds_to_latents([0], 2)
    uniform, _ = seeds_to_latents([0], 2, "uniform")
    assert labels is None
    assert normal.dtype == uniform.dtype == np.float32
    np.testing.assert_allclose(normal[0], [NormalDist().inv_cdf(x) for x in u], rtol=1e-6)
    np.testing.assert_allclose(uniform[0], [2 * x - 1 for x in u], rtol=1e-6)


@given(st.lists(seeds, min_size=1, max_size=8))
def test_seeds_to_latents_of_many_seeds_equal_each_alone(many: list[int]) -> None:
    together, labels = seeds_to_latents(many, 5, num_classes=3)
    for i, seed in enumerate(many):
        alone, label = seeds_to_latents([seed], 5, num_classes=3)
        assert together[i].tobytes() == alone[0].tobytes()
        assert labels is not None
        assert label is not None
        assert labels[i] == label[0] == raw_draws([seed], 6)[0, 5] % 3


def test_seeds_to_latents_highest_seed_is_drawn() -> None:
    assert np.isfinite(seeds_to_latents([NUM_SEEDS - 1], 100)[0]).all()


def test_seeds_to_latents_have_the_exact_distributions() -> None:
    many = range(300)
    assert kstest(seeds_to_latents(many, 20)[0].ravel(), "norm").pvalue > 0.01
    assert kstest(seeds_to_latents(many, 20, "uniform")[0].ravel(), "uniform", (-1, 2)).pvalue > 0.01
    truncated = seeds_to_latents(many, 20, truncation=0.7)[0].ravel()
    assert kstest(truncated, truncnorm(-0.7, 0.7).cdf).pvalue > 0.01


@given(seeds, st.floats(0.01, 50))
def test_seeds_to_latents_truncated_stay_within_and_keep_order(seed: int, t: float) -> None:
    full, _ = seeds_to_latents([seed], 8)
    cut, _ = seeds_to_latents([seed], 8, truncation=t)
    assert np.abs(cut).max() <= np.float32(t) * (1 + 1e-6)
    assert (np.abs(cut) <= np.abs(full) * (1 + 1e-5) + 1e-9).all()
    assert (np.argsort(cut[0]) == np.argsort(full[0])).all()


def test_seeds_to_latents_wide_truncation_equals_none() -> None:
    np.testing.assert_allclose(seeds_to_latents([7], 50, truncation=30)[0], seeds_to_latents([7], 50)[0], rtol=1e-6)


def test_seeds_to_latents_truncated_uniform_raises() -> None:
    with pytest.raises(ValueError, match="uniform"):
        seeds_to_latents([0], 4, "uniform", truncation=1.0)
