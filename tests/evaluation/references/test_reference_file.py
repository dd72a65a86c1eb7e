"""A reference file is whole, readable and checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.metrics.frechet import FeatureStatistics
from evaluation.references.reference_file import load_reference, save_reference

PROVENANCE = {"extractor": {"name": "x"}, "image_set": {"name": "y", "resolution": 8}}


def test_reference_file_is_read_by_us_and_pytorch_fid(tmp_path: Path) -> None:
    statistics = FeatureStatistics(3)
    statistics.update(np.random.default_rng(0).normal(size=(10, 3)))
    save_reference(tmp_path / "sub/r.npz", statistics, PROVENANCE)
    found = load_reference(tmp_path / "sub/r.npz")
    assert found.n == 10
    assert found.provenance["image_set"] == {"name": "y", "resolution": 8}
    assert (found.sigma == statistics.sigma).all()
    from pytorch_fid import fid_score

    mu, sigma = fid_score.compute_statistics_of_path(str(tmp_path / "sub/r.npz"), None, 1, 3, "cpu")
    assert (mu == found.mu).all()
    assert (sigma == found.sigma).all()
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["r.npz"]


@pytest.mark.parametrize("damage", ["absent", "truncated", "html", "foreign", "nan"])
def test_reference_file_damaged_is_a_one_line_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "r.npz"
    if damage == "foreign":
        np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    elif damage == "nan":
        np.savez(path, mu=np.full(3, np.nan), sigma=np.eye(3), n=9, provenance='{"format_version": 1}')
    elif damage == "html":
        path.write_text("<html>", encoding="utf-8")
    elif damage == "truncated":
        statistics = FeatureStatistics(3)
        statistics.update(np.zeros((4, 3)))
        save_reference(path, statistics, PROVENANCE)
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EvaluationError, match=r"r\.npz") as caught:
        load_reference(path)
    assert "\n" not in str(caught.value)
