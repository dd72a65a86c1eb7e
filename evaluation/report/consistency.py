"""Whether the parts of a report agree: a figure under the wrong name or of other images is worse than none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.metrics.names import former_name, result_name
from evaluation.metrics.registry import METRICS, Options
from evaluation.report.schema import passes

if TYPE_CHECKING:
    from evaluation.report.reader import Document, Result, Threshold

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
    "memorisation": (0.0, 1.0),
}


def contradiction(document: Document) -> str | None:
    """Return the first thing in which a report contradicts itself, None if there is none.

    Args:
        document: The report, whose fields have the right types.

    Returns:
        A phrase such as `results.1: n is 40, and the report's is 50`.
    """
    return next(_contradictions(document), None)


def _contradictions(document: Document) -> Iterator[str]:
    extractor_metric = str(document.extractor.get("metric") or "")
    whole: dict[str, Any] = {
        "n": document.n,
        "n_reference": document.reference.get("n"),
        "extractor": document.extractor.get("name"),
        "extractor_digest": document.extractor.get("digest"),
        "resize": document.extractor.get("resize"),
    }
    image_set = document.reference.get("image_set")
    if isinstance(image_set, dict):
        whole |= {"reference": image_set.get("name"), "resolution": image_set.get("resolution")}
    yield from _of_results(document.results, "results", whole, extractor_metric)
    if document.scores is not None and document.scores != {one.name: one.value for one in document.results}:
        yield "scores are not those of results"
    if document.threshold is not None:
        yield from _of_threshold(document.threshold, document.results[0])
    if document.seeds is not None:
        yield from _of_seeds(document)
    # The other split may have fewer images, and may have been measured under another path.
    shared = {key: value for key, value in whole.items() if key not in ("n", "reference")}
    if document.baseline is not None:
        real = shared | {"n": document.baseline.n}
        yield from _of_results(document.baseline.results, "baseline.results", real, extractor_metric)
    for i, entry in enumerate(document.checkpoints):
        yield from _of_results(entry.results, f"checkpoints.{i}.results", whole, extractor_metric)


def _of_results(results: Sequence[Result], where: str, whole: dict[str, Any], extractor_metric: str) -> Iterator[str]:
    for i, one in enumerate(results):
        at = f"{where}.{i}"
        if one.metric not in METRICS:
            yield f"{at}: the metric {one.metric[:40]!r} is not known"
            continue
        if any(one.metric == other.metric for other in results[:i]):
            yield f"{at}: a second {one.metric}"
        if one.better != METRICS[one.metric].better:
            yield f"{at}: {one.better} is not better in {one.metric}"
        if min(one.n, one.n_reference) < 2:
            yield f"{at}: it is of {one.n} images against {one.n_reference}"
        for key, expected in whole.items():
            if expected is not None and getattr(one, key) != expected:
                yield f"{at}: {key} is {getattr(one, key)}, and the report's is {expected}"
        yield from _of_name(one, at, extractor_metric)
        yield from _of_values(one, at)


def _of_name(one: Result, at: str, extractor_metric: str) -> Iterator[str]:
    size = one.details.get("subset_size")
    options = Options(kid_subset_size=size) if isinstance(size, int) and size > 0 else Options()
    names = (
        result_name(one.metric, extractor_metric, one.n, options),
        former_name(one.metric, extractor_metric, one.n),
    )
    if one.name not in names:
        yield f"{at}: it is called {one.name[:80]}, and {one.metric} of {one.n} images is called {names[0]}"


def _of_values(one: Result, at: str) -> Iterator[str]:
    low, high = _RANGES.get(one.metric, (-math.inf, math.inf))
    if not low - _ROUNDING <= one.value <= high + _ROUNDING:
        yield f"{at}: {one.name} is {one.value:g}, which no {one.metric} can be"
    if one.std is not None and one.std < 0:
        yield f"{at}: a spread of {one.std:g}"
    if (interval := one.interval) is None:
        return
    room = _ROUNDING * max(1.0, abs(interval.low), abs(interval.high))
    inside = interval.low - room <= interval.mean <= interval.high + room
    if len(interval.values) < 2 or not inside or abs(interval.mean - one.value) > room:
        yield f"{at}: its interval is not that of {one.value:g}"


def _of_threshold(threshold: Threshold, first: Result) -> Iterator[str]:
    if threshold.name != first.name:
        yield f"threshold: it is of {threshold.name[:80]}, and the first result is {first.name}"
    elif threshold.passed and not passes(first.metric, first.value, threshold.fail_above):
        yield f"threshold: {first.value:g} does not pass a limit of {threshold.fail_above:g}"


def _of_seeds(document: Document) -> Iterator[str]:
    seeds = document.seeds or {}
    first, last = seeds.get("first"), seeds.get("last")
    if first is None or last is None or (last - first + 1) % document.n or last < first:
        yield f"seeds: {first} to {last} are not those of {document.n} images"
