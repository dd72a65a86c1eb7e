"""The result document: one JSON file, written whole, with all it takes to read a score, doubt it and repeat it."""

from __future__ import annotations

import json
import platform
import re
import shlex
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from evaluation.atomic import written_whole
from evaluation.errors import EvaluationError
from imagesets.version import version

FORMAT_VERSION = 2
NAME = "report.json"


def score_document(results: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A document of kind `score`; `scores` says the results again as name → value, for scripts."""
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


def threshold(results: list[dict[str, Any]], fail_above: float | None) -> dict[str, Any] | None:
    """Return whether the first result keeps `--fail-above`, or None where there is no limit.

    No distance is negative. A negative value does not pass, except that of the kernel distance: its unbiased
    estimator is about as often below 0 as above for a perfect generator.

    Raises:
        EvaluationError: If higher values of the first metric are better.
    """
    if fail_above is None:
        return None
    first = results[0]
    if first["better"] != "lower":
        raise EvaluationError(f"--fail-above is for a distance; of {first['name']}, the first metric, more is better")
    plausible = first["value"] >= 0 or first.get("metric") == "kid"
    return {"fail_above": fail_above, "name": first["name"], "passed": plausible and first["value"] <= fail_above}


def summary(document: dict[str, Any]) -> list[str]:
    """The lines that a person reads: each score and, beside it, what real images get in the same features."""
    reference, beside = document["reference"], document["baseline"]
    reals = {} if beside is None else {result["metric"]: result["value"] for result in beside["results"]}
    against = f"against {reference['n']} of {reference['image_set'].get('name')}"
    lines = []
    for result in document["results"]:
        spread = f" ± {result['std']:.4f}" if result["std"] is not None else ""
        if result["interval"]:
            spread += " [{low:.4f}, {high:.4f}]".format(**result["interval"])
        # A name alone does not tell Inception with one resize from Inception with another.
        of = f"({result['n']} images; {result['extractor']}, resize {result['resize']}; {against})"
        real = reals.get(result["metric"], result["details"].get("held_out_share"))
        told = f"  (real images: {real:.4f})" if real is not None else ""
        lines.append(f"{result['name']} = {result['value']:.4f}{spread}{told}  {of}")
    if beside is not None:
        lines.append(
            f"train against test: {beside['n']} real images of {beside['image_set']} against {beside['against']}"
        )
    return lines


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document whole, or not at all. EvaluationError: also for a number in it that JSON cannot say."""
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"cannot write {path}: JSON cannot say all that is in it ({error})") from error
    with written_whole(path) as handle:
        # A file's name may be bytes that are no text, which Python holds as lone surrogates: no reader takes those.
        handle.write(re.sub("[\ud800-\udfff]", "\ufffd", text).encode())


def without_credentials(text: str) -> str:
    """A URL without `user:password@`, which has no place in a report that is passed on; other text as it is."""
    return re.sub(r"(?i)^(.*?https?://)[^/?#]*@", r"\1", text)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "gan-atelier": version()}
    for package in ("numpy", "scipy", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
