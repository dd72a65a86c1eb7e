"""The result document: one JSON file, written whole, with all it takes to read a score, doubt it and repeat it."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shlex
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from artifacts.version import version
from evaluation.atomic import written_whole
from evaluation.errors import EvaluationError

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

    Raises:
        EvaluationError: If higher values of the first metric are better.
    """
    if fail_above is None:
        return None
    first = results[0]
    if first["better"] != "lower":
        raise EvaluationError(f"--fail-above is for a distance; of {first['name']}, the first metric, more is better")
    passed = passes(str(first.get("metric")), first["value"], fail_above)
    return {"fail_above": fail_above, "name": first["name"], "passed": passed}


def passes(metric: str, value: float, fail_above: float) -> bool:
    """Return whether a distance keeps a limit.

    No distance is negative. A negative value does not pass, except that of the kernel distance: its unbiased
    estimator is about as often below 0 as above for a perfect generator.
    """
    return (value >= 0 or metric == "kid") and value <= fail_above


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


def write_report(path: Path, document: dict[str, Any]) -> None:
    """Write a report with its own digest, whole or not at all.

    Args:
        path: The file.
        document: The report. Its `report_digest` is set, or replaced.

    Raises:
        EvaluationError: If the file cannot be written, or a value has no form in JSON.
    """
    document["report_digest"] = report_digest(json.loads(_text(path, document)))
    write_json(path, document)


def report_digest(document: dict[str, Any]) -> str:
    """Return the sha256 over a report as it is read back from JSON, without its own digest.

    Layout and the order of keys do not matter: keys are sorted, and numbers have their shortest form.
    """
    told = {key: value for key, value in document.items() if key != "report_digest"}
    text = json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document whole, or not at all. EvaluationError: also for a number in it that JSON cannot say."""
    text = _text(path, document)
    with written_whole(path) as handle:
        handle.write(text.encode())


def _text(path: Path, document: dict[str, Any]) -> str:
    try:
        return without_surrogates(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "\\\\")
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"cannot write {path}: JSON cannot say all that is in it ({error})") from error


def without_surrogates(text: str, backslash: str = "\\") -> str:
    r"""Return text that UTF-8 can encode: a byte of a name that is not UTF-8 becomes `\xff`, half a pair `\ud800`.

    Args:
        text: Text in which Python holds such bytes as lone surrogates.
        backslash: How a backslash is written in `text`; two of them in JSON.
    """

    def shown(found: re.Match[str]) -> str:
        code = ord(found[0])
        return backslash + (f"x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"u{code:04x}")

    return re.sub("[\ud800-\udfff]", shown, text)


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
