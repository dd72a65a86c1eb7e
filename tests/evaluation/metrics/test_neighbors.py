"""Nearest neighbors, in blocks as in one piece."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.metrics import neighbors
from evaluation.metrics.neighbors import near_copy_share, nearest
from tests.support.evaluation.samples import normal


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
