"""What a classifier trained on the real images makes of a source's images."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.metrics.classifier_confidence import classifier_confidence
from evaluation.progress import progress
from evaluation.report.schema import now, versions
from evaluation.scoring.features import Timing, extracted
from evaluation.sources import Draw, ImageSource


def classify_images(
    source: ImageSource, extractor: Extractor, *, num_images: int, first_seed: int, sure: float
) -> dict[str, Any]:
    """The share of images the classifier is at least `sure` of, and each class's share, as a report.

    Raises EvaluationError for an extractor that is no classifier, or a source that gives out.
    """
    if not extractor.has_logits or not extractor.class_names:
        raise EvaluationError(f"{extractor.path} is no classifier: it has no logits with class names")
    limit = source.limit()
    n = num_images if limit is None else min(num_images, limit)
    timing = Timing()
    logits: list[np.ndarray] = []
    with progress("classifying", n) as advance:
        for batch, got in extracted(source, extractor, Draw(first_seed, n), 0, n, timing):
            assert got.logits is not None
            logits.append(got.logits)
            advance(len(batch.images))
    if not logits:
        raise EvaluationError("there are no images to classify")
    sure_share, shares = classifier_confidence(np.concatenate(logits), sure)
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
        "timing": timing.told(),
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
