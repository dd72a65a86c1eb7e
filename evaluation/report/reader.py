"""Read a report and check it once, so that no view has to.

That includes whether its parts agree: a score under the wrong name or of other images is worse than none.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from artifacts.terminal import printable
from evaluation.errors import EvaluationError
from evaluation.json_files import first_error
from evaluation.metrics.registry import METRICS, MetricOptions
from evaluation.metrics.result_names import former_name, result_name
from evaluation.report.document import passes_threshold, report_digest
from evaluation.report.schema import DETAILS, FORMAT_VERSION, NAME, Report, Result

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


def report_path(path: Path) -> Path:
    """Return the JSON file of a report's folder, or a file itself; EvaluationError when there is none."""
    if path.is_dir():
        if not (path / NAME).is_file():
            raise EvaluationError(
                f"there is no {NAME} in {path}; `evaluation score … --output {shlex.quote(str(path))}` makes one"
            )
        return path / NAME
    if not path.is_file():
        raise EvaluationError(f"there is no report {path}")
    return path


def read_report(path: Path) -> Report:
    """Return the report at a path.

    Raises:
        EvaluationError: If it is not a complete report of this format, or its parts contradict each other.
    """
    try:
        document = json.loads(path.read_bytes(), parse_constant=_reject_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationError(f"{path} is not a report: it is not JSON ({str(error)[:100]})") from error
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind == "partial":
        raise EvaluationError(f"{path} is of a job that was stopped; the same `evaluation score` command resumes it")
    if kind != "score":
        raise EvaluationError(f"{path} is not a report of `evaluation score`" + (f", but a {kind}" if kind else ""))
    if document.get("format_version") != FORMAT_VERSION:
        raise EvaluationError(
            f"{path} is of format version {document.get('format_version')}, and this version reads {FORMAT_VERSION}; "
            "score again"
        )
    try:
        report = Report.model_validate(_printable(document))
        for result in report.all_results():
            if result.metric in DETAILS:
                DETAILS[result.metric].model_validate(result.details)
    except (ValidationError, RecursionError) as error:
        reason = first_error(error) if isinstance(error, ValidationError) else "it is nested too deeply"
        raise EvaluationError(f"{path} is damaged: {reason}") from error
    if report.report_digest is not None and report.report_digest != report_digest(document):
        raise EvaluationError(f"{path} was altered after it was made: its digest does not match; score again")
    if contradiction := next(_contradictions(report), None):
        raise EvaluationError(f"{path} is damaged: {contradiction}; score again")
    return report


def _printable(value: Any) -> Any:
    r"""Return JSON whose control characters, on which a terminal would act, are written as `\x1b` and the like."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(one) for one in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(one) for key, one in value.items()}
    return value


def _reject_constant(constant: str) -> float:
    raise ValueError(f"it contains {constant}")


def _contradictions(report: Report) -> Iterator[str]:
    """Yield each contradiction in a report, such as `results.1: n is 40, and the report's is 50`."""
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
        # A metric from a user module is not imported to read a report.
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
