"""The report: one JSON document, written whole, and the lines a person reads."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evaluation.atomic import written_whole
from evaluation.extractors import Extractor
from evaluation.job import Score
from evaluation.sources import ImageSource
from evaluation.statistics import Reference

FORMAT_VERSION = 1


def score_report(
    score: Score,
    source: ImageSource,
    reference: Reference,
    extractor: Extractor,
    *,
    first_seed: int,
    fail_above: float | None,
) -> dict[str, Any]:
    """Everything needed to read a score, to doubt it and to repeat it."""
    return {
        "format_version": FORMAT_VERSION,
        "kind": "score",
        "scores": {score.name: score.value},
        "n": score.n,
        "seeds": {"first": first_seed, "last": first_seed + score.n - 1} if source.seeded else None,
        "baseline": score.baseline,
        "threshold": None if fail_above is None else {"fail_above": fail_above, "passed": score.value <= fail_above},
        "warnings": score.warnings,
        "source": source.description,
        "model": source.description.get("model"),
        "digest": source.description.get("digest"),
        "extractor": extractor.provenance(),
        "reference": {"n": reference.n, **reference.provenance},
        "timing": score.images.timing(),
        "versions": versions(),
        "created": now(),
    }


def summary(score: Score, reference: Reference) -> list[str]:
    """The score and, beside it, what real images get in the same features."""
    real = reference.provenance["image_set"]
    lines = [f"{score.name} = {score.value:.4f}  ({score.n} images against {reference.n} of {real['name']})"]
    if score.baseline is not None:
        beside = score.baseline
        lines.append(
            f"{beside['name']} = {beside['value']:.4f}  "
            f"(train against test: {beside['n']} real images of {beside['image_set']})"
        )
    return lines


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document whole, or not at all."""
    with written_whole(path) as handle:
        handle.write((json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("gan-atelier", "numpy", "scipy", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
