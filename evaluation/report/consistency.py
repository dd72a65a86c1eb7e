"""Whether the parts of a report agree: a score under the wrong name or of other images is worse than none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from evaluation.metrics.registry import METRICS, MetricOptions, former_name, result_name
from evaluation.report.schema import Report, Result, passes_threshold

# Rounding of means and of differences of large numbers.
_ROUNDING = 1e-6
# Lowest and highest possible value. A kernel distance and an extrapolation are estimates that may be below 0.
_RANGES = {
    "fid": (0.0, math.inf),
    "per_class": (0.0, math.inf),
    "is": (1.0, math.inf),
    "precision": (0.0, 1.0),
    "recall": (0.0, 1.0),
    "density": (0.0, math.inf),
    "coverage": (0.0, 1.0),
    "memorization": (0.0, 1.0),
}


def find_contradiction(report: Report) -> str | None:
    """Return the first contradiction in a report, such as `results.1: n is 40, and the report's is 50`, or None."""
    return next(_contradictions(report), None)


def _contradictions(report: Report) -> Iterator[str]:
    reference, extractor = report.reference, report.extractor
    expected: dict[str, Any] = {
        "n": report.n,
        "n_reference": reference.n,
        "extractor": extractor.name,
        "extractor_digest": extractor.digest,
        "resize": extractor.resize,
        "reference": reference.image_set.name,
        "resolution": reference.image_set.resolution,
    }
    features = str(extractor.metric or "")
    yield from _check_results(report.results, "results", expected, features)
    if report.scores is not None and report.scores != {one.name: one.value for one in report.results}:
        yield "scores are not those of results"
    yield from _check_threshold(report)
    yield from _check_seeds(report)
    # The other split may have fewer images, and may have been measured under another path.
    shared = {key: value for key, value in expected.items() if key not in ("n", "reference")}
    if report.baseline is not None:
        real = shared | {"n": report.baseline.n}
        yield from _check_results(report.baseline.results, "baseline.results", real, features)
    for i, entry in enumerate(report.checkpoints):
        yield from _check_results(entry.results, f"checkpoints.{i}.results", expected, features)


def _check_results(results: Sequence[Result], where: str, expected: dict[str, Any], features: str) -> Iterator[str]:
    for i, one in enumerate(results):
        at = f"{where}.{i}"
        # A metric of a user's own module is not imported to read a report.
        is_custom = ":" in one.metric
        if not is_custom and one.metric not in METRICS:
            yield f"{at}: the metric {one.metric[:40]!r} is not known"
            continue
        if any(one.metric == other.metric for other in results[:i]):
            yield f"{at}: a second {one.metric}"
        if min(one.n, one.n_reference) < 2:
            yield f"{at}: it is of {one.n} images against {one.n_reference}"
        for key, value in expected.items():
            if value is not None and getattr(one, key) != value:
                yield f"{at}: {key} is {getattr(one, key)}, and the report's is {value}"
        if not is_custom:
            if one.better != METRICS[one.metric].better:
                yield f"{at}: {one.better} is not better in {one.metric}"
            yield from _check_name(one, at, features)
        yield from _check_values(one, at)


def _check_name(one: Result, at: str, features: str) -> Iterator[str]:
    size = one.details.get("subset_size")
    options = MetricOptions(kid_subset_size=size) if isinstance(size, int) and size > 0 else MetricOptions()
    names = result_name(one.metric, features, one.n, options), former_name(one.metric, features, one.n)
    if one.name not in names:
        yield f"{at}: it is called {one.name[:80]}, and {one.metric} of {one.n} images is called {names[0]}"


def _check_values(one: Result, at: str) -> Iterator[str]:
    low, high = _RANGES.get(one.metric, (-math.inf, math.inf))
    if not low - _ROUNDING <= one.value <= high + _ROUNDING:
        yield f"{at}: {one.name} is {one.value:g}, which is impossible for {one.metric}"
    if one.std is not None and one.std < 0:
        yield f"{at}: a spread of {one.std:g}"
    if (interval := one.interval) is None:
        return
    margin = _ROUNDING * max(1.0, abs(interval.low), abs(interval.high))
    is_inside = interval.low - margin <= interval.mean <= interval.high + margin
    if len(interval.values) < 2 or not is_inside or abs(interval.mean - one.value) > margin:
        yield f"{at}: its interval is not that of {one.value:g}"


def _check_threshold(report: Report) -> Iterator[str]:
    threshold, first = report.threshold, report.results[0]
    if threshold is None:
        return
    if threshold.name != first.name:
        yield f"threshold: it is of {threshold.name[:80]}, and the first result is {first.name}"
    elif threshold.passed and not passes_threshold(first.metric, first.value, threshold.fail_above):
        yield f"threshold: {first.value:g} does not pass a limit of {threshold.fail_above:g}"


def _check_seeds(report: Report) -> Iterator[str]:
    if report.seeds is None:
        return
    first, last = report.seeds.get("first"), report.seeds.get("last")
    if first is None or last is None or (last - first + 1) % report.n or last < first:
        yield f"seeds: {first} to {last} are not those of {report.n} images"
