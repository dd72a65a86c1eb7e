"""Results beside each other, where they may be compared: of one N, extractor, resize and reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.report import formatting
from evaluation.report.reader import Document, Result, document_path, read

# What two figures must have in common, how it is called, and what to do where it differs. The reference is compared by
# its content, see `_same_reference`.
_PROTOCOL = (
    ("n", "N", "a score depends on N; score both with one --num-images"),
    (
        "extractor_digest",
        "extractor",
        "distances in unlike features have unlike scales; score both with one --extractor",
    ),
    ("resize", "resize", "a resize changes every feature; score both with one extractor file"),
    ("n_reference", "number of reference images", "score both with one --reference"),
    ("resolution", "resolution", "score both with --resolution reference"),
)
_SETTINGS = ("k", "subsets", "subset_size", "splits", "quantile")  # of a metric, in its details


@dataclass(frozen=True)
class Row:
    """One metric over the reports: None where a report lacks it. `best` are the indices of the best value."""

    metric: str
    name: str
    title: str
    better: str
    results: tuple[Result | None, ...]
    best: frozenset[int]
    real: float | None

    def difference(self, index: int) -> float | None:
        """From the first report's value."""
        first, other = self.results[0], self.results[index]
        return None if not index or first is None or other is None else other.value - first.value

    @property
    def unclear(self) -> bool:
        """Whether the best one's interval overlaps with another's, so that fresh seeds might turn the order."""
        best = [self.results[i] for i in sorted(self.best)][:1]
        if not best or best[0] is None or best[0].interval is None:
            return False
        ours = best[0].interval
        others = [one.interval for i, one in enumerate(self.results) if one is not None and i not in self.best]
        return any(one is not None and one.low <= ours.high and ours.low <= one.high for one in others)


@dataclass(frozen=True)
class Comparison:
    """Reports of one protocol. `labels` name them, each differently."""

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    documents: tuple[Document, ...]
    rows: tuple[Row, ...]

    @property
    def unlike(self) -> dict[str, tuple[str, ...]]:
        """What is other about the sources themselves: a row each of the terms in which they differ."""
        told = [
            {
                "model": document.title,
                "digest": (document.digest or "–")[:16],
                "images seen": formatting.count(document.images_seen),
                "truncation": "–" if document.truncation is None else f"{document.truncation:g}",
                "labels": "–" if document.labels is None else str(document.labels),
                "resized": formatting.facts(document).get("resized", "–"),
                "seeds": formatting.facts(document).get("seeds", "–"),
            }
            for document in self.documents
        ]
        return {term: tuple(one[term] for one in told) for term in told[0] if len({one[term] for one in told}) > 1}


def compare(paths: Sequence[Path]) -> Comparison:
    """Two reports or more, side by side. Raises EvaluationError, in one line, where they must not be compared."""
    files = tuple(document_path(path) for path in paths)
    if twice := [path for i, path in enumerate(files) if path.resolve() in {p.resolve() for p in files[:i]}]:
        raise EvaluationError(f"{twice[0]} was given twice")
    documents = tuple(read(path) for path in files)
    for i, (path, document) in enumerate(zip(paths, documents, strict=True)):
        for other_path, other in zip(paths[:i], documents[:i], strict=True):
            if document.report_digest is not None and document.report_digest == other.report_digest:
                raise EvaluationError(f"{path} and {other_path} are copies of one report")
    for path, document in zip(paths[1:], documents[1:], strict=True):
        # The results of one report agree with each other, which reading it has checked.
        _check(paths[0], documents[0].results[0], path, document.results[0])
        _same_reference(paths[0], documents[0], path, document)
    metrics = {one.metric: one for document in documents for one in document.results}
    rows = []
    for metric in metrics:
        found = tuple(document.of(metric) for document in documents)
        _check_settings(paths, found)
        rows.append(_row(metric, found, documents))
    return Comparison(files, _labels(paths, documents), documents, tuple(rows))


def _check(path: Path, result: Result, other_path: Path, other: Result) -> None:
    for key, called, remedy in _PROTOCOL:
        ours, theirs = getattr(result, key), getattr(other, key)
        if ours != theirs:
            if key == "extractor_digest":
                ours, theirs = (f"{one.extractor} {one.extractor_digest[:12]}" for one in (result, other))
            raise EvaluationError(
                f"{path} and {other_path} cannot be compared: their {called} is {_told(ours)} and {_told(theirs)}; "
                f"{remedy}"
            )


def _same_reference(path: Path, document: Document, other_path: Path, other: Document) -> None:
    """Raise EvaluationError unless both were scored against the same real images, whatever they are called."""
    ours, theirs = contents_of(document.reference), contents_of(other.reference)
    shared = [kind for kind in ours if kind in theirs]
    if shared and ours[shared[0]] == theirs[shared[0]]:
        return
    names = [str(one.reference.get("image_set", {}).get("name")) for one in (document, other)]
    if shared:
        kind = shared[0]
        told = (
            f"their reference is {names[0]} and {names[1]}"
            if names[0] != names[1]
            else f"their reference {names[0]} had other content"
        )
        which = f"{kind} {str(ours[kind])[:12]} and {str(theirs[kind])[:12]}"
        raise EvaluationError(
            f"{path} and {other_path} cannot be compared: {told} ({which}); score both with one --reference"
        )
    raise EvaluationError(
        f"{path} and {other_path} cannot be compared: nothing shows that their references {names[0]} and {names[1]} "
        "are the same images; score both with one --reference"
    )


def contents_of(reference: dict[str, Any]) -> dict[str, Any]:
    """Return what identifies the content of a report's reference, most reliable first.

    Args:
        reference: The report's `reference`.

    Returns:
        A hash for each of `fingerprint` (pixels and labels), `statistics` (mean and covariance), `imported file` and
        `file` (the reference file itself) that the report has.
    """
    image_set, imported = (
        value if isinstance(value, dict) else {} for value in (reference.get("image_set"), reference.get("imported"))
    )
    found = {
        "fingerprint": image_set.get("fingerprint"),
        "statistics": reference.get("statistics_sha256"),
        "imported file": imported.get("sha256"),
        "file": reference.get("sha256"),
    }
    return {kind: value for kind, value in found.items() if value is not None}


def _check_settings(paths: Sequence[Path], results: Sequence[Result | None]) -> None:
    there = [(path, one) for path, one in zip(paths, results, strict=True) if one is not None]
    for path, one in there[1:]:
        first_path, first = there[0]
        for key in _SETTINGS:
            if first.details.get(key) != one.details.get(key):
                raise EvaluationError(
                    f"{first_path} and {path} cannot be compared: the {key.replace('_', ' ')} of {one.name} is "
                    f"{first.details.get(key)} and {one.details.get(key)}"
                )
        if _sizes(first) != _sizes(one):
            raise EvaluationError(
                f"{first_path} and {path} cannot be compared: {one.name} was extrapolated from other numbers of "
                "images; score both with one version"
            )


def _sizes(result: Result) -> Any:
    """Return the numbers of images that a distance was extrapolated from, None where it was not."""
    return (result.details.get("curve") or {}).get("n") if result.metric == "fid_infinity" else None


def _told(value: Any) -> str:
    return formatting.count(value) if isinstance(value, int) else str(value)


def _row(metric: str, results: tuple[Result | None, ...], documents: Sequence[Document]) -> Row:
    first = next(one for one in results if one is not None)
    values = [one.value if one is not None else math.nan for one in results]
    there = [value for value in values if not math.isnan(value)]
    best: frozenset[int] = frozenset()
    if len(there) > 1 and min(there) < max(there):
        wanted = min(there) if first.better == "lower" else max(there)
        best = frozenset(i for i, value in enumerate(values) if value == wanted)
    reals = {document.real(one) for document, one in zip(documents, results, strict=True) if one is not None} - {None}
    return Row(metric, first.name, first.title, first.better, results, best, reals.pop() if len(reals) == 1 else None)


def _labels(paths: Sequence[Path], documents: Sequence[Document]) -> tuple[str, ...]:
    """The models' names if they tell the reports apart, else where each lies."""
    titles = [document.title for document in documents]
    return tuple(titles if len(set(titles)) == len(titles) else map(str, paths))
