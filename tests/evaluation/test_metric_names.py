"""Names of results: no two figures share one, and names that earlier versions gave are read."""

from __future__ import annotations

import itertools

import pytest

from evaluation.metrics import METRICS, Options, result_name
from evaluation.metrics.names import RESERVED, fault_of_name, former_name, renamed

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


def test_result_names_of_unlike_figures_are_never_equal() -> None:
    features = ("fid", "clean_fid", *(f"fd_{label}" for label in LABELS))
    figures = list(itertools.product(METRICS, features, SIZES))
    names = [result_name(*figure) for figure in figures]
    assert len(set(names)) == len(figures)
    former = [former_name(*figure) for figure in figures]
    assert len(set(former)) < len(figures), "the rule is needed"


def test_result_name_of_kid_tells_the_subset_size() -> None:
    names = {result_name("kid", "fid", 10_000, Options(kid_subset_size=size)) for size in (500, 1000)}
    assert names == {"kid10k_subset500", "kid10k_subset1k"}


def test_renamed_former_names_become_the_present_ones() -> None:
    labels = [label for label in LABELS if not label.endswith("_")]
    for metric, label, n in itertools.product(METRICS, labels, SIZES):
        present = result_name(metric, f"fd_{label}", n)
        assert renamed(former_name(metric, f"fd_{label}", n), metric, n, 1000) == present
        assert renamed(present, metric, n, 1000) == present
    for metric, features in itertools.product(METRICS, ("fid", "clean_fid")):
        assert renamed(former_name(metric, features, 1000), metric, 1000, 1000) == result_name(metric, features, 1000)


@pytest.mark.parametrize("name", ["anything", "", "fd_x11", "evaluation"])
def test_renamed_other_names_stay(name: str) -> None:
    assert renamed(name, "fid", 10_000) == name
    assert renamed(name, "no metric", 10_000) == name


@pytest.mark.parametrize("name", ["dinov2", "dinov2_vits14", "clip-b32", "X", "a" * 64])
def test_fault_of_name_sound_names_have_none(name: str) -> None:
    assert fault_of_name(name) is None


@pytest.mark.parametrize(
    "name",
    [*sorted(RESERVED), "classifier_infinity", "X_PER_CLASS", "", "a b", "../x", "x_", "-x", "ä", "a" * 65, "x\n", "٣"],
)
def test_fault_of_name_unsound_names_have_one(name: str) -> None:
    assert fault_of_name(name)
