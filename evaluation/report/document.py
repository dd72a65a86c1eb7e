"""Makes the result document: its lines of text, its threshold, its digest and the file."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.json_files import json_text, now, versions, without_credentials, write_json
from evaluation.report.schema import FORMAT_VERSION


def score_document(results: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """Return a report's document; `scores` repeats the results as name → value, for scripts."""
    return {
        "format_version": FORMAT_VERSION,
        "kind": "score",
        "scores": {result["name"]: result["value"] for result in results},
        "results": results,
        **fields,
        "versions": versions(),
        "created": now(),
        "command": shlex.join(["evaluation", *map(without_credentials, sys.argv[1:])]),
    }


def check_threshold(results: list[dict[str, Any]], fail_above: float | None) -> dict[str, Any] | None:
    """Return whether the first result is within `--fail-above`, or None where there is no limit.

    Raises:
        EvaluationError: If higher values of the first metric are better.
    """
    if fail_above is None:
        return None
    first = results[0]
    if first["better"] != "lower":
        raise EvaluationError(
            f"--fail-above is for a distance; higher values of {first['name']}, the first metric, are better"
        )
    passed = passes_threshold(str(first.get("metric")), first["value"], fail_above)
    return {"fail_above": fail_above, "name": first["name"], "passed": passed}


def passes_threshold(metric: str, value: float, fail_above: float) -> bool:
    """Return whether a distance is within a limit.

    A distance is not negative, so a negative value does not pass. The exception is the kernel distance: its unbiased
    estimator is about as often below 0 as above for a perfect generator.
    """
    return (value >= 0 or metric == "kid") and value <= fail_above


def best_value(values: Sequence[float], better: str) -> float | None:
    """Return the lowest or the highest value; None if all are equal, as one is."""
    if not values or min(values) == max(values):
        return None
    return min(values) if better == "lower" else max(values)


def summary_lines(document: dict[str, Any]) -> list[str]:
    """Return the lines for a terminal: each score, and the score of real images in the same features."""
    reference, baseline = document["reference"], document["baseline"]
    reals = {} if baseline is None else {result["metric"]: result["value"] for result in baseline["results"]}
    lines = []
    for result in document["results"]:
        spread = f" ± {result['std']:.4f}" if result["std"] is not None else ""
        if result["interval"]:
            spread += " [{low:.4f}, {high:.4f}]".format(**result["interval"])
        value = reals.get(result["metric"], result["details"].get("held_out_share"))
        real = f"  (real images: {value:.4f})" if value is not None else ""
        # The name alone does not distinguish Inception with one resize from Inception with another.
        protocol = (
            f"({result['n']} images; {result['extractor']}, resize {result['resize']}; against {reference['n']} of "
            f"{reference['image_set'].get('name')})"
        )
        lines.append(f"{result['name']} = {result['value']:.4f}{spread}{real}  {protocol}")
    if baseline is not None:
        lines.append(
            f"train against test: {baseline['n']} real images of {baseline['image_set']} against {baseline['against']}"
        )
    return lines


def write_report(path: Path, document: dict[str, Any]) -> None:
    """Write a report with its own digest, which is set or replaced in `document`; see `write_json`."""
    document["report_digest"] = report_digest(json.loads(json_text(path, document)))
    write_json(path, document)


def report_digest(document: dict[str, Any]) -> str:
    """Return the sha256 over a report as it is read back from JSON, without its own digest.

    Layout and the order of keys do not matter: keys are sorted, and numbers have their shortest form.
    """
    content = {key: value for key, value in document.items() if key != "report_digest"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
