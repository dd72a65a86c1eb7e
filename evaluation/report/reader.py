"""A report document read back: checked once, so that no view has to doubt it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from artifacts.terminal import printable
from evaluation.errors import EvaluationError
from evaluation.report.consistency import contradiction
from evaluation.report.schema import FORMAT_VERSION, NAME, report_digest


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Interval(_Part):
    """Of the mean over disjoint ranges of seeds, of which the score itself is the first."""

    low: float
    high: float
    mean: float
    level: float
    values: list[float]
    method: str


class Result(_Part):
    """One metric's value, and all that it depends on."""

    name: str
    metric: str
    title: str
    value: float
    std: float | None = None
    interval: Interval | None = None
    n: int
    n_reference: int
    extractor: str
    extractor_digest: str
    resize: str
    reference: str | None
    split: str | None
    resolution: int | None
    better: Literal["lower", "higher"]
    details: dict[str, Any] = Field(default_factory=dict)


class Baseline(_Part):
    """What real images get in the same metrics."""

    results: list[Result]
    image_set: str
    against: str
    n: int


class Threshold(_Part):
    fail_above: float
    name: str
    passed: bool


class Checkpoint(_Part):
    """One point of the score against images seen."""

    checkpoint: str
    step: int | None = None
    images_seen: int | None = None
    results: list[Result]
    warnings: list[str] = Field(default_factory=list)


class Document(_Part):
    """`report.json`, format version 2, kind `score`. Reports of earlier versions carry no digest."""

    report_digest: str | None = None
    scores: dict[str, float] | None = None
    results: list[Result] = Field(min_length=1)
    baseline: Baseline | None = None
    threshold: Threshold | None = None
    n: int
    seeds: dict[str, int] | None = None
    labels: Any = None
    truncation: float | None = None
    warnings: list[str] = Field(default_factory=list)
    source: dict[str, Any]
    service: dict[str, Any] | None = None
    model: str | None = None
    digest: str | None = None
    images_seen: int | None = None
    extractor: dict[str, Any]
    reference: dict[str, Any]
    pictures: dict[str, str] | None = None
    timing: dict[str, Any]
    versions: dict[str, str]
    created: str
    command: str
    checkpoints: list[Checkpoint] = Field(default_factory=list)

    @property
    def title(self) -> str:
        """The model's name, or what the images came from."""
        return self.model or str(self.source.get("name") or self.source.get("path") or self.source.get("kind"))

    def real(self, result: Result) -> float | None:
        """The same figure of real images: the baseline's, and for near-copies that of the held-out images."""
        if result.metric == "memorisation":
            return result.details.get("held_out_share")
        if self.baseline is None:
            return None
        return next((one.value for one in self.baseline.results if one.metric == result.metric), None)

    def of(self, metric: str) -> Result | None:
        return next((result for result in self.results if result.metric == metric), None)


class _Resized(_Part):
    sides: list[int] = Field(alias="from", min_length=2, max_length=2)
    by: str


class _Source(_Part):
    shape: list[int] | None = Field(default=None, min_length=3, max_length=3)
    resized: _Resized | None = None


class _Extractor(_Part):
    accuracy: float | None = None


class _ImageSet(_Part):
    name: str | None = None
    split: str | None = None
    fingerprint: str | None = None


class _Imported(_Part):
    sha256: str | None = None


class _Reference(_Part):
    n: int | None = None
    sha256: str | None = None
    statistics_sha256: str | None = None
    image_set: _ImageSet = Field(default_factory=_ImageSet)
    imported: _Imported | None = None


class _Shard(_Part):
    seconds: float


class _Timing(_Part):
    seconds: float | None = None
    images_per_s: float | None = None
    generating_images_per_s: float | None = None
    extracting_images_per_s: float | None = None
    shards: list[_Shard] | None = None


class _Facts(_Part):
    """What the views read of parts that are kept as they are."""

    source: _Source
    extractor: _Extractor
    reference: _Reference
    timing: _Timing
    seeds: dict[Literal["first", "last"], int] | None = None


class _Class(_Part):
    label: int
    value: float
    n: int
    n_reference: int


class _Classes(_Part):
    classes: list[_Class]


class _Pair(_Part):
    sample: int
    distance: float


class _Memorisation(_Part):
    threshold: float
    median: float
    held_out_share: float
    held_out_median: float
    median_ratio: float | None = None
    nearest: list[_Pair] = Field(default_factory=list)


class _Curve(_Part):
    n: list[PositiveInt]
    value: list[float]


class _Extrapolation(_Part):
    curve: _Curve | None = None
    first_range: float | None = None


# What the views read of a metric's details.
_DETAILS: dict[str, type[_Part]] = {
    "per_class": _Classes,
    "memorisation": _Memorisation,
    "fid_infinity": _Extrapolation,
}


def document_path(path: Path) -> Path:
    """The JSON of a report's folder; a file itself. Raises EvaluationError when there is none."""
    if path.is_dir():
        if not (path / NAME).is_file():
            raise EvaluationError(
                f"there is no {NAME} in {path}; `evaluation score … --output {shlex.quote(str(path))}` makes one"
            )
        return path / NAME
    if not path.is_file():
        raise EvaluationError(f"there is no report {path}")
    return path


def read(path: Path) -> Document:
    """Return the report at a path.

    Raises:
        EvaluationError: If it is not a whole report of this format, or its parts contradict each other.
    """
    try:
        told = json.loads(path.read_bytes(), parse_constant=_refused)
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationError(f"{path} is not a report: it is not JSON ({str(error)[:100]})") from error
    kind = told.get("kind") if isinstance(told, dict) else None
    if kind == "partial":
        raise EvaluationError(f"{path} is of a job that was stopped; the same `evaluation score` command goes on")
    if kind != "score":
        raise EvaluationError(f"{path} is not a report of `evaluation score`" + (f", but a {kind}" if kind else ""))
    if told.get("format_version") != FORMAT_VERSION:
        raise EvaluationError(
            f"{path} is of format version {told.get('format_version')}, and this reads {FORMAT_VERSION}; score again"
        )
    try:
        document = Document.model_validate(_printable(told))
        _Facts.model_validate(told)
        for result in every_result(document):
            if result.metric in _DETAILS:
                _DETAILS[result.metric].model_validate(result.details)
    except (ValidationError, RecursionError) as error:
        raise EvaluationError(f"{path} is damaged: {_reason(error)}") from error
    if document.report_digest is not None and document.report_digest != report_digest(told):
        raise EvaluationError(f"{path} was altered after it was made: its digest does not match; score again")
    if fault := contradiction(document):
        raise EvaluationError(f"{path} is damaged: {fault}; score again")
    return document


def every_result(document: Document) -> Iterator[Result]:
    """Yield the results of a report, of its baseline and of its checkpoints."""
    yield from document.results
    if document.baseline is not None:
        yield from document.baseline.results
    for entry in document.checkpoints:
        yield from entry.results


def _printable(value: Any) -> Any:
    r"""Return JSON whose texts have nothing that a terminal acts on: control characters become `\x1b` and the like."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(one) for one in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(one) for key, one in value.items()}
    return value


def _refused(constant: str) -> float:
    raise ValueError(f"it contains {constant}")


def _reason(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
