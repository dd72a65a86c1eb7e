"""The threshold of a score."""

from __future__ import annotations

import pytest

from evaluation.report.document import check_threshold


@pytest.mark.parametrize(("value", "metric", "passed"), [(-0.1, "fid_infinity", False), (0.0, "fid_infinity", True)])
def test_threshold_negative_distance_does_not_pass(value: float, metric: str, passed: bool) -> None:
    found = check_threshold([{"better": "lower", "name": "x", "metric": metric, "value": value}], 5.0)
    assert found is not None
    assert found["passed"] is passed


def test_threshold_negative_unbiased_kernel_distance_passes() -> None:
    found = check_threshold([{"better": "lower", "name": "x", "metric": "kid", "value": -1e-4}], 5.0)
    assert found is not None
    assert found["passed"] is True
