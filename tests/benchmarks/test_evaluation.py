"""The evaluation's benchmarks at small sizes: both tools agree, and the results have rows."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import evaluation, report
from tests.support.evaluation.inception import exported_once

LOAD = {"load_average": [0.0, 0.0]}


def test_frechet_distances_of_both_tools_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "FEATURES", 48)
    cases = (("full_rank", 200), ("singular", 20), ("nearly_full_rank", 40))
    monkeypatch.setattr(evaluation, "FRECHET_CASES", cases)
    found = evaluation.frechet(rounds=2)
    assert found["full_rank"]["relative_difference"] == pytest.approx({"pytorch_fid": 0, "torch_fidelity": 0}, abs=1e-6)
    rows = report.rows({"evaluation": {"frechet": found | LOAD}})
    assert [row["counterpart"] for row in rows] == ["pytorch-fid", "torch-fidelity"] * 3


@pytest.mark.slow
def test_metrics_of_equal_features_agree_with_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "FEATURES", 32)
    found = evaluation.metrics(rounds=1, num_images=1000)
    for metric in evaluation.FEATURE_METRICS:
        values = found[metric]["values"]
        np.testing.assert_allclose(values["ours"], values["torch_fidelity"], rtol=0.01, atol=1e-4, err_msg=metric)
    assert len(report.rows({"evaluation": {"metrics": found | LOAD}})) == 5


@pytest.mark.slow
def test_features_and_commands_agree_with_the_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.extractors.extractor_export.export_network", exported_once())
    monkeypatch.setattr(evaluation, "BATCH", 4)
    found = evaluation.inception(rounds=1)
    assert max(found["features_differ"].values()) < 1e-4
    assert len(report.rows({"evaluation": {"inception": found | LOAD}})) == 2

    found = evaluation.command(rounds=1, num_images=12)
    for metric, value in found["values"]["torch_fidelity"].items():
        assert found["values"]["ours"][metric] == pytest.approx(value, rel=1e-2, abs=1e-3), metric
    assert len(report.rows({"evaluation": {"command": found | LOAD}})) == 1


@pytest.mark.slow
def test_efficientnet_features_agree_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "EFFICIENTNET_BATCH", 4)
    monkeypatch.setattr(evaluation, "EFFICIENTNET_SIDE", 160)
    found = evaluation.efficientnet(rounds=1)
    assert found["features_differ"]["efficientnet_lite_pytorch"] < 1e-4, "torch resizes in float32"
    (row,) = report.rows({"evaluation": {"efficientnet": found | LOAD}})
    assert (row["counterpart"], row["target"]) == ("efficientnet-lite-pytorch", "at least 2")
