"""What a classifier trained on the real images makes of a source's images."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.extractors import Extracted, Extractor
from evaluation.job import extract
from evaluation.metrics.certainty import certainty
from evaluation.report import now, versions
from evaluation.sources import ImageSource


def classify_images(
    source: ImageSource, extractor: Extractor, *, num_images: int, first_seed: int, sure: float
) -> dict[str, Any]:
    """The share of images the classifier is at least `sure` of, and each class's share, as a report.

    Raises EvaluationError for an extractor that is no classifier, or a source that gives out.
    """
    if not extractor.has_logits or not extractor.class_names:
        raise EvaluationError(f"{extractor.path} is no classifier: it has no logits with class names")
    n = min(num_images, source.limit() or num_images)
    logits: list[np.ndarray] = []

    def see(extracted: Extracted) -> None:
        assert extracted.logits is not None
        logits.append(extracted.logits)

    done = extract(source, extractor, n, first_seed=first_seed, description="classifying", see=see)
    sure_share, shares = certainty(np.concatenate(logits), sure)
    return {
        "format_version": 1,
        "kind": "classify",
        "n": n,
        "seeds": {"first": first_seed, "last": first_seed + n - 1} if source.seeded else None,
        "sure": sure,
        "sure_share": sure_share,
        "class_shares": dict(zip(extractor.class_names, shares.tolist(), strict=True)),
        "source": source.description,
        "extractor": extractor.provenance(),
        "timing": done.timing(),
        "versions": versions(),
        "created": now(),
    }


def check(result: dict[str, Any], min_sure_share: float | None, min_class_share: float | None) -> list[str]:
    """What falls below the minimums given, a phrase each."""
    failures = []
    if min_sure_share is not None and result["sure_share"] < min_sure_share:
        failures.append(
            f"the classifier is {result['sure']:g} sure of {result['sure_share']:.1%} of images, not of "
            f"{min_sure_share:.1%}"
        )
    if min_class_share is not None:
        for name, share in result["class_shares"].items():
            if share < min_class_share:
                failures.append(f"class {name} makes up {share:.1%}, not {min_class_share:.1%}")
    return failures
