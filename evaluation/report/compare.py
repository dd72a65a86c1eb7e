"""Compare reports of one protocol: equal N, extractor, resize and reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.json_files import now
from evaluation.report import formatting
from evaluation.report.document import best_value
from evaluation.report.reader import read_report, report_path
from evaluation.report.schema import FORMAT_VERSION, ReferenceInfo, Report, Result

# Fields that must be equal, their names, and the remedy. The reference is compared by its content, see
# `_check_reference`.
_PROTOCOL = (
    ("n", "N", "a score depends on N; score both with one --num-images"),
    (
        "extractor_digest",
        "extractor",
        "distances in different features have different scales; score both with one --extractor",
    ),
    ("resize", "resize", "a resize changes every feature; score both with one extractor file"),
    ("n_reference", "number of reference images", "score both with one --reference"),
    ("resolution", "resolution", "score both with --resolution reference"),
)
# Settings in a metric's details that must be equal.
_SETTINGS = ("k", "subsets", "subset_size", "splits", "quantile")


@dataclass(frozen=True)
class MetricRow:
    """One metric over the reports: each one's result, None where it has none, and the indices of the best value.

    `name` is that of the results, and `real` the value of real images, where the reports agree on it.
    """

    metric: str
    name: str
    title: str
    better: str
    results: tuple[Result | None, ...]
    best: frozenset[int]
    real: float | None

    def difference(self, index: int) -> float | None:
        """Return the difference from the first report's value."""
        first, other = self.results[0], self.results[index]
        return None if not index or first is None or other is None else other.value - first.value

    @property
    def intervals_overlap(self) -> bool:
        """Whether the best value's interval overlaps with another's, so that other seeds may change the order."""
        intervals = {i: one.interval for i, one in enumerate(self.results) if one is not None and one.interval}
        ours = intervals.get(min(self.best, default=-1))
        others = [one for i, one in intervals.items() if i not in self.best]
        return ours is not None and any(one.low <= ours.high and ours.low <= one.high for one in others)


@dataclass(frozen=True)
class Comparison:
    """Reports of one protocol, each with its own label."""

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    reports: tuple[Report, ...]
    rows: tuple[MetricRow, ...]

    @property
    def protocol(self) -> str:
        """The common protocol."""
        return formatting.protocol(self.reports[0].results[0])

    @property
    def differing_fields(self) -> dict[str, tuple[str, ...]]:
        """The fields of the sources that differ: term → a value per report."""
        fields = []
        for report in self.reports:
            rows = formatting.provenance_rows(report)
            fields.append(
                {
                    "model": report.title,
                    "digest": (report.digest or "–")[:16],
                    **{
                        term: rows.get(term, "–")
                        for term in ("images seen", "truncation", "labels", "resized", "seeds")
                    },
                }
            )
        return {
            term: tuple(one[term] for one in fields) for term in fields[0] if len({one[term] for one in fields}) > 1
        }


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare two reports or more.

    Args:
        paths: Report files or their folders.

    Raises:
        EvaluationError: If they are not of one protocol, or one is a copy of another.
    """
    files = tuple(report_path(path) for path in paths)
    if repeated := [path for i, path in enumerate(files) if path.resolve() in {p.resolve() for p in files[:i]}]:
        raise EvaluationError(f"{repeated[0]} was given twice")
    reports = tuple(read_report(path) for path in files)
    for i, (path, report) in enumerate(zip(paths, reports, strict=True)):
        for other_path, other in zip(paths[:i], reports[:i], strict=True):
            if report.report_digest is not None and report.report_digest == other.report_digest:
                raise EvaluationError(f"{path} and {other_path} are copies of one report")
    for path, report in zip(paths[1:], reports[1:], strict=True):
        # The results of one report agree with each other, which `read_report` has checked.
        _check_protocol(paths[0], reports[0].results[0], path, report.results[0])
        _check_reference(paths[0], reports[0], path, report)
    rows = []
    for metric in {one.metric: None for report in reports for one in report.results}:
        rows.append(_metric_row(metric, reports))
        _check_settings(paths, rows[-1].results)
    return Comparison(files, _labels(paths, reports), reports, tuple(rows))


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values: scores by name, the best one, and differences from the first report."""
    return {
        "format_version": FORMAT_VERSION,
        "kind": "comparison",
        "reports": [
            {"label": label, "path": str(path)}
            | {key: getattr(report, key) for key in ("model", "digest", "report_digest")}
            for label, path, report in zip(comparison.labels, comparison.paths, comparison.reports, strict=True)
        ],
        "results": [
            {
                "name": row.name,
                "metric": row.metric,
                "better": row.better,
                "values": [None if one is None else one.value for one in row.results],
                "differences": [row.difference(i) for i in range(len(row.results))],
                "best": sorted(row.best),
                "intervals_overlap": row.intervals_overlap,
                "real_images": row.real,
            }
            for row in comparison.rows
        ],
        "protocol": comparison.protocol,
        "created": now(),
    }


def _check_protocol(path: Path, result: Result, other_path: Path, other: Result) -> None:
    for key, called, remedy in _PROTOCOL:
        ours, theirs = getattr(result, key), getattr(other, key)
        if ours != theirs:
            if key == "extractor_digest":
                ours, theirs = (f"{one.extractor} {one.extractor_digest[:12]}" for one in (result, other))
            raise EvaluationError(
                f"{path} and {other_path} cannot be compared: their {called} is {_text(ours)} and {_text(theirs)}; "
                f"{remedy}"
            )


def _check_reference(path: Path, report: Report, other_path: Path, other: Report) -> None:
    """Raise EvaluationError unless both were scored against the same real images, under any name."""
    ours, theirs = reference_hashes(report.reference), reference_hashes(other.reference)
    shared = [kind for kind in ours if kind in theirs]
    if shared and ours[shared[0]] == theirs[shared[0]]:
        return
    first, second = (one.reference.image_set.name for one in (report, other))
    if not shared:
        difference = f"nothing shows that their references {first} and {second} are the same images"
    else:
        kind = shared[0]
        which = f"{kind} {ours[kind][:12]} and {theirs[kind][:12]}"
        names = f"is {first} and {second}" if first != second else f"{first} had other content"
        difference = f"their reference {names} ({which})"
    raise EvaluationError(f"{path} and {other_path} cannot be compared: {difference}; score both with one --reference")


def reference_hashes(reference: ReferenceInfo) -> dict[str, str]:
    """Return the hashes that identify a reference's content, most reliable first.

    They are `fingerprint` (pixels and labels), `statistics` (mean and covariance), `imported file` and `file` (the
    reference file itself), as far as the report has them.
    """
    hashes = {
        "fingerprint": reference.image_set.fingerprint,
        "statistics": reference.statistics_sha256,
        "imported file": None if reference.imported is None else reference.imported.sha256,
        "file": reference.sha256,
    }
    return {kind: value for kind, value in hashes.items() if value is not None}


def _check_settings(paths: Sequence[Path], results: Sequence[Result | None]) -> None:
    present = [(path, one) for path, one in zip(paths, results, strict=True) if one is not None]
    first_path, first = present[0]
    for path, one in present[1:]:
        for key in _SETTINGS:
            if first.details.get(key) != one.details.get(key):
                raise EvaluationError(
                    f"{first_path} and {path} cannot be compared: the {key.replace('_', ' ')} of {one.name} is "
                    f"{first.details.get(key)} and {one.details.get(key)}"
                )
        if _curve_sizes(first) != _curve_sizes(one):
            raise EvaluationError(
                f"{first_path} and {path} cannot be compared: {one.name} was extrapolated from other numbers of "
                "images; score both with one version"
            )


def _curve_sizes(result: Result) -> Any:
    """Return the numbers of images that a distance was extrapolated from, None where it was not."""
    return (result.details.get("curve") or {}).get("n") if result.metric == "fid_infinity" else None


def _text(value: Any) -> str:
    return formatting.count(value) if isinstance(value, int) else str(value)


def _metric_row(metric: str, reports: Sequence[Report]) -> MetricRow:
    results = tuple(report.find(metric) for report in reports)
    first = next(one for one in results if one is not None)
    values = {i: one.value for i, one in enumerate(results) if one is not None}
    best = best_value(list(values.values()), first.better)
    reals = {report.real_value(one) for report, one in zip(reports, results, strict=True) if one is not None} - {None}
    return MetricRow(
        metric,
        first.name,
        first.title,
        first.better,
        results,
        best=frozenset(i for i, value in values.items() if value == best),
        real=reals.pop() if len(reals) == 1 else None,
    )


def _labels(paths: Sequence[Path], reports: Sequence[Report]) -> tuple[str, ...]:
    """Return the models' names if they are all different, else the paths."""
    titles = [report.title for report in reports]
    return tuple(titles if len(set(titles)) == len(titles) else map(str, paths))
