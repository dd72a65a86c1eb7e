"""Read a report and check it once, so that no view has to."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from artifacts.terminal import printable
from evaluation.errors import EvaluationError
from evaluation.report.consistency import find_contradiction
from evaluation.report.schema import DETAILS, FORMAT_VERSION, NAME, Report, report_digest


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
        raise EvaluationError(f"{path} is damaged: {_reason(error)}") from error
    if report.report_digest is not None and report.report_digest != report_digest(document):
        raise EvaluationError(f"{path} was altered after it was made: its digest does not match; score again")
    if contradiction := find_contradiction(report):
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


def _reason(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
