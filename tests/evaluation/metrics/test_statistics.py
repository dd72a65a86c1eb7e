"""Streamed statistics are those of all rows at once; a reference file is whole, readable and checked."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from artifacts.arrays import drop_page_cache
from evaluation.metrics.fid_infinity import fid_infinity
from evaluation.metrics.frechet import FeatureStatistics
from evaluation.metrics.kid import kid
from evaluation.metrics.neighbors import nearest


def test_feature_statistics_streamed_equals_numpy() -> None:
    rows = np.random.default_rng(0).normal(1e4, 1, (501, 7)).astype(np.float32)
    statistics = FeatureStatistics(7)
    for part in np.split(rows, [1, 4, 100, 100, 350]):
        statistics.update(part)
    assert statistics.n == 501
    np.testing.assert_allclose(statistics.mu, rows.astype(np.float64).mean(0), rtol=1e-14)
    np.testing.assert_allclose(statistics.sigma, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-11)


def test_feature_statistics_bad_rows_fails() -> None:
    statistics = FeatureStatistics(3)
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        statistics.update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="not finite"):
        statistics.update(np.full((2, 3), np.nan))
    statistics.update(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="2 images or more"):
        _ = statistics.sigma


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_metrics_of_a_mapped_file_release_its_memory(tmp_path: Path) -> None:
    """64 MB of features: statistics, neighbours and subsets leave no more than a block of them in memory."""
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(1 << 18, 64)).astype(np.float32))
    features = np.load(tmp_path / "f.npy", mmap_mode="r")

    def resident() -> float:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
        return int(status["RssFile"].split()[0]) / 1024

    before = resident()
    assert features.sum(dtype=np.float64) != 0
    assert resident() > before + 60, "reading maps it"
    drop_page_cache(np.asarray(features)[5:])  # any view
    assert resident() < before + 5
    FeatureStatistics.from_features(features)
    kid(features, features, subsets=3, subset_size=100)
    nearest(np.asarray(features[:3]), features)
    fid_infinity(features, np.zeros(64), np.eye(64), points=2)
    assert resident() < before + 15
