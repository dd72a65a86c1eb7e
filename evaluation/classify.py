"""Classify a source's images with a classifier of the real ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from artifacts.terminal import progress
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.features.extraction import iter_features
from evaluation.features.store import Timing
from evaluation.json_files import now, versions
from evaluation.metrics.classifier_confidence import classifier_confidence
from evaluation.sources import ImageSource, SeedRange


def classify_images(
    source: ImageSource, extractor: Extractor, *, num_images: int, first_seed: int, threshold: float
) -> dict[str, Any]:
    """Return a report of the share of images that the classifier is sure of, and of each class's share.

    An image counts as sure from a probability of `threshold` on; `num_images` is their largest number.

    Raises:
        EvaluationError: If the extractor is not a classifier, or the source fails.
    """
    if not extractor.has_logits or not extractor.class_names:
        raise EvaluationError(f"{extractor.path} is not a classifier: it has no logits with class names")
    n = num_images if source.num_images is None else min(num_images, source.num_images)
    timing = Timing()
    logits: list[np.ndarray] = []
    with progress("classifying", n) as advance:
        for batch, extracted in iter_features(source, extractor, SeedRange(first_seed, n), 0, n, timing):
            assert extracted.logits is not None
            logits.append(extracted.logits)
            advance(len(batch.images))
    if not logits:
        raise EvaluationError("there are no images to classify")
    sure_share, shares = classifier_confidence(np.concatenate(logits), threshold)
    return {
        "format_version": 1,
        "kind": "classify",
        "n": n,
        "seeds": {"first": first_seed, "last": first_seed + n - 1} if source.seeded else None,
        "sure": threshold,
        "sure_share": sure_share,
        "class_shares": dict(zip(extractor.class_names, shares.tolist(), strict=True)),
        "source": source.description,
        "extractor": extractor.provenance(),
        "timing": timing.to_dict(),
        "versions": versions(),
        "created": now(),
    }


def failed_limits(report: dict[str, Any], min_sure_share: float | None, min_class_share: float | None) -> list[str]:
    """Return a phrase for each share that is below its minimum."""
    failures = []
    if min_sure_share is not None and report["sure_share"] < min_sure_share:
        failures.append(
            f"the classifier recognizes {report['sure_share']:.1%} of the images with confidence {report['sure']:g}, "
            f"less than {min_sure_share:.1%}"
        )
    if min_class_share is not None:
        for name, share in report["class_shares"].items():
            if share < min_class_share:
                failures.append(f"class {name} has {share:.1%} of the images, less than {min_class_share:.1%}")
    return failures
