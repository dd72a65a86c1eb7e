"""Metrics by name, and names of results: no two scores share one, and names of earlier versions are read."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.metrics import (
    METRICS,
    Metric,
    MetricInputs,
    MetricOptions,
    MetricValue,
    parse_metrics,
    resolve,
    result_name,
)
from evaluation.metrics.registry import RESERVED
from evaluation.metrics.result_names import current_name, former_name, invalid_name_reason
from tests.support.evaluation.commands import one_line, run

CUSTOM = """
from evaluation.metrics import Metric, MetricInputs, MetricValue

def mean(inputs: MetricInputs) -> MetricValue:
    return MetricValue(float(inputs.get("features").mean()))

MEAN = Metric("mean_feature", "Mean feature", "lower", needs={"features"}, compute=mean)
NO_METRIC = 3
"""

LABELS = ("classifier", "dinov2", "dinov", "dinov2_", "dinov2_1", "x", "x_", "x_infinity", "x_per_class", "infinity")
SIZES = (2, 10, 210, 1000, 1234, 10_000, 210_000)


@pytest.mark.parametrize(
    ("metric", "features", "n", "name"),
    [
        ("fid", "fid", 10_000, "fid10k"),
        ("fid", "fid", 50_000, "fid50k"),
        ("fid", "clean_fid", 10_000, "clean_fid10k"),
        ("fid_infinity", "fid", 10_000, "fid_infinity10k"),
        ("per_class", "fid", 10_000, "fid_per_class10k"),
        ("fid", "fd_classifier", 10_000, "fd_classifier10k"),
        ("fid", "fd_classifier", 1500, "fd_classifier1500"),
        ("fid_infinity", "fd_classifier", 10_000, "fd_classifier_infinity10k"),
        ("fid", "fd_dinov2", 10_000, "fd_dinov2_10k"),
        ("fid_infinity", "fd_dinov2", 10_000, "fd_dinov2_infinity10k"),
        ("precision", "fd_dinov2", 10_000, "precision_dinov2_10k"),
        ("fid", "fd_classifier_infinity", 10_000, "fd_classifier_infinity_10k"),
        ("kid", "fid", 10_000, "kid10k_subset1k"),
        ("kid", "fd_dinov2", 10_000, "kd_dinov2_10k_subset1k"),
    ],
)
def test_result_name_is_metric_features_and_n(metric: str, features: str, n: int, name: str) -> None:
    assert result_name(metric, features, n) == name


def test_result_name_of_different_scores_is_different() -> None:
    features = ("fid", "clean_fid", *(f"fd_{label}" for label in LABELS))
    figures = list(itertools.product(METRICS, features, SIZES))
    names = [result_name(*figure) for figure in figures]
    assert len(set(names)) == len(figures)
    former = [former_name(*figure) for figure in figures]
    assert len(set(former)) < len(figures), "the rule is needed"


def test_result_name_of_kid_contains_the_subset_size() -> None:
    names = {result_name("kid", "fid", 10_000, MetricOptions(kid_subset_size=size)) for size in (500, 1000)}
    assert names == {"kid10k_subset500", "kid10k_subset1k"}


def test_current_name_of_former_names_is_the_present_one() -> None:
    labels = [label for label in LABELS if not label.endswith("_")]
    for metric, label, n in itertools.product(METRICS, labels, SIZES):
        present = result_name(metric, f"fd_{label}", n)
        assert current_name(former_name(metric, f"fd_{label}", n), metric, n, 1000) == present
        assert current_name(present, metric, n, 1000) == present
    for metric, features in itertools.product(METRICS, ("fid", "clean_fid")):
        assert current_name(former_name(metric, features, 1000), metric, 1000, 1000) == result_name(
            metric, features, 1000
        )


@pytest.mark.parametrize("name", ["anything", "", "fd_x11", "evaluation"])
def test_current_name_of_other_names_is_unchanged(name: str) -> None:
    assert current_name(name, "fid", 10_000) == name
    assert current_name(name, "no metric", 10_000) == name


@pytest.mark.parametrize("name", ["dinov2", "dinov2_vits14", "clip-b32", "X", "a" * 64])
def test_invalid_name_reason_valid_name_is_none(name: str) -> None:
    assert invalid_name_reason(name) is None


@pytest.mark.parametrize(
    "name",
    [*sorted(RESERVED), "classifier_infinity", "X_PER_CLASS", "", "a b", "../x", "x_", "-x", "ä", "a" * 65, "x\n", "٣"],
)
def test_invalid_name_reason_invalid_name_is_given(name: str) -> None:
    assert invalid_name_reason(name)


@pytest.fixture
def custom(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a metric in a module of the user's own."""
    (workspace / "my_metrics.py").write_text(CUSTOM, encoding="utf-8")
    monkeypatch.syspath_prepend(workspace)
    return "my_metrics:MEAN"


def test_resolve_custom_metric_is_computed_and_named(custom: str) -> None:
    metric = resolve(custom)
    assert metric(MetricInputs(features=np.ones((3, 2)))).value == 1
    assert metric.needs == {"features"}
    assert result_name(custom, "fd_dinov2", 1000) == "mean_feature_dinov2_1k"
    assert [one.name for one in parse_metrics(f"fid, {custom},fid")] == ["fid", custom]
    with pytest.raises(ValueError, match="my_metrics:MEAN needs features"):
        metric(MetricInputs())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fidd", "there is no metric fidd; there are fid, kid"),
        ("no_such_module:X", "there is no module no_such_module; .*PYTHONPATH"),
        ("my_metrics:ABSENT", "my_metrics has no ABSENT"),
        ("my_metrics:NO_METRIC", "is a int, not an evaluation.metrics.Metric"),
        (":X", "there is no metric :X"),
    ],
)
@pytest.mark.usefixtures("custom")
def test_resolve_unknown_metric_fails(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(name)


@pytest.mark.parametrize(
    ("better", "needs", "words"),
    [
        ("smaller", {"features"}, "better='smaller', not 'lower' or 'higher'"),
        ("lower", {"feature"}, "needs 'feature', which is not one of statistics, features"),
        ("lower", "features", "needs='features', not a set of statistics"),
        ("lower", None, "needs=None, not a set of statistics"),
        ("lower", [["features"]], r"needs \['features'\], which is not one of"),
    ],
)
def test_metric_of_unknown_inputs_or_direction_fails(better: str, needs: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Metric("mine", "Mine", better, needs, lambda _: MetricValue(0.0))


def test_parse_metrics_takes_a_single_metric() -> None:
    assert parse_metrics(METRICS["kid"]) == [METRICS["kid"]]


def test_resolve_former_name_is_accepted() -> None:
    assert resolve("memorization") is METRICS["memorization"]
    assert [metric.name for metric in parse_metrics("memorization,memorization")] == ["memorization"]


def test_score_custom_metric_is_reported(custom: str, workspace: Path) -> None:
    words = ("score", "g.onnx", "--reference", "folder:pictures@test", "--extractor", "e.onnx", "--num-images", 30)
    done = run(*words, "--metrics", f"fid,{custom}", "--output", "report")
    assert done.exit_code == 0, done.output
    report = json.loads((workspace / "report/report.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in report["results"]] == ["fd_tiny30", "mean_feature_tiny30"]
    assert report["results"][1]["metric"] == custom
    assert "Mean feature" in (workspace / "report/report.html").read_text(encoding="utf-8")
    assert one_line(run(*words, "--metrics", "no_such_module:X")).startswith(
        "error: no_such_module:X: there is no module"
    )
