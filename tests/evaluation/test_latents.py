"""Seed → latent: golden values, the same in every room and every language."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from evaluation.latents import latents_of


def test_seed_0_has_its_golden_draws() -> None:
    raw = [213000021201967259, 4455796210202625458]
    assert np.random.Philox(key=0).random_raw(2).tolist() == raw
    u = [((r >> 12) + 0.5) / 2**52 for r in raw]
    z, labels = latents_of(0, 1, 2, "normal")
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z[0], ndtri(u).astype(np.float32))
    np.testing.assert_array_equal(latents_of(0, 1, 2, "uniform")[0][0], np.float32([2 * v - 1 for v in u]))
    assert labels is None


def test_a_label_is_the_next_draw_modulo_the_classes() -> None:
    draw = int(np.random.Philox(key=7).random_raw(5)[4])
    _, labels = latents_of(7, 1, 4, "normal", num_classes=10)
    assert labels.tolist() == [draw % 10]


def test_one_seed_is_one_latent_in_any_batch() -> None:
    together = latents_of(3, 5, 6, "normal")[0]
    assert (together[2] == latents_of(5, 1, 6, "normal")[0][0]).all()


def test_a_seed_past_2_to_the_53_is_refused() -> None:
    latents_of(2**53 - 1, 1, 2, "normal")
    for first in (-1, 2**53):
        with pytest.raises(ValueError, match="2\\^53"):
            latents_of(first, 1, 2, "normal")
