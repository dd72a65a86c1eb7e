"""The evaluation's benchmarks at small sizes: both tools find the same, and what is told of them is summed up."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import (
    evaluation_command,
    evaluation_frechet,
    evaluation_inception,
    evaluation_metrics,
    summary,
)
from evaluation.extractors import builder
from tests.evaluation.helpers import exported_once

LOAD = {"load_average": [0.0, 0.0]}


def test_frechet_is_measured_beside_both_tools_and_its_error_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_frechet, "FEATURES", 48)
    cases = (("full_rank", 200), ("singular", 20), ("nearly_full_rank", 40))
    monkeypatch.setattr(evaluation_frechet, "CASES", cases)
    found = evaluation_frechet.frechet(rounds=2)
    assert found["full_rank"]["relative_difference"] == pytest.approx({"pytorch_fid": 0, "torch_fidelity": 0}, abs=1e-6)
    for case in ("singular", "nearly_full_rank"):
        assert found[case]["relative_error"]["ours"] < 1e-9
        assert found[case]["identical_inputs"]["ours"] == pytest.approx(0, abs=1e-9)
    rows = summary.rows({"evaluation": {"frechet": found | LOAD}})
    assert [row["counterpart"] for row in rows] == ["pytorch-fid", "torch-fidelity"] * 3


@pytest.mark.slow
def test_the_metrics_of_the_same_features_are_the_same_in_both_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_frechet, "FEATURES", 32)
    monkeypatch.setattr(evaluation_metrics, "FEATURES", 32)
    found = evaluation_metrics.metrics(rounds=1, num_images=1000)
    for metric in evaluation_metrics.METRICS:
        values = found[metric]["values"]
        np.testing.assert_allclose(values["ours"], values["torch_fidelity"], rtol=0.01, atol=1e-4, err_msg=metric)
    assert len(summary.rows({"evaluation": {"metrics": found | LOAD}})) == 5


@pytest.mark.slow
def test_features_and_whole_commands_agree_with_the_peers_on_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "export_network", exported_once())
    monkeypatch.setattr(evaluation_inception, "BATCH", 4)
    monkeypatch.setattr(evaluation_inception, "SQUARE", 64)
    found = evaluation_inception.inception(rounds=1)
    assert max(found["features_differ"].values()) < 1e-4
    assert len(summary.rows({"evaluation": {"inception": found | LOAD}})) == 2

    told = evaluation_command.command(rounds=1, num_images=12)
    for metric, value in told["values"]["torch_fidelity"].items():
        assert told["values"]["ours"][metric] == pytest.approx(value, rel=1e-2, abs=1e-3), metric
    assert len(summary.rows({"evaluation": {"command": told | LOAD}})) == 1
