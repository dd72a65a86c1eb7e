from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from trainer.latents import label, labels, latent, latents


def test_the_raw_draws_of_seed_zero_are_the_published_ones() -> None:
    raw = np.random.Philox(key=0).random_raw(2)
    assert raw.tolist() == [213000021201967259, 4455796210202625458]


def test_seed_zeros_latent_is_golden() -> None:
    u = (np.array([213000021201967259 >> 12, 4455796210202625458 >> 12]) + 0.5) / 2**52
    np.testing.assert_allclose(latent(0, 2, "uniform"), 2 * u - 1, rtol=1e-6)
    expected = [NormalDist().inv_cdf(float(draw)) for draw in u]  # another implementation than scipy's
    np.testing.assert_allclose(latent(0, 2), expected, rtol=1e-6)


def test_draws_are_distributed_as_they_say() -> None:
    normal, uniform = latents(range(400), 100), latents(range(400), 100, "uniform")
    assert normal.dtype == np.float32
    assert normal.shape == (400, 100)
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert abs(uniform.mean()) < 0.01
    assert abs(uniform.var() - 1 / 3) < 0.01


def test_a_narrower_latent_begins_like_a_wider_one() -> None:
    np.testing.assert_array_equal(latent(7, 5), latent(7, 64)[:5])


@pytest.mark.parametrize("seed", [-1, 2**53])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="a seed is"):
        latent(seed, 4)


def test_a_label_is_the_draw_after_the_latents() -> None:
    raw = np.random.Philox(key=5).random_raw(9)
    assert label(5, 8, 10) == int(raw[8]) % 10
    assert labels(range(3), 8, 0) is None
    counts = np.bincount(labels(range(1000), 8, 4))
    assert counts.min() > 200
