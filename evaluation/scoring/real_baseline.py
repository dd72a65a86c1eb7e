"""Scores real images as if they were generated: what a perfect generator would get."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.json_files import json_digest, write_json
from evaluation.metrics import METRICS, Metric, MetricOptions, rows_to_keep
from evaluation.metrics.fid_infinity import min_images
from evaluation.references.data_paths import DataPaths
from evaluation.references.reference_file import Reference
from evaluation.references.reference_set import ReferenceSet, cached_reference, other_split
from evaluation.scoring.compute_metrics import compute_metrics

# The report of these shows the value of the held-out images itself.
WITHOUT_BASELINE = ("memorization",)
# Increase it when a metric gives another value for the same features, or a result another name: caches are not used.
BASELINE_VERSION = 2


def real_baseline(
    reference: Reference,
    extractor: Extractor,
    metrics: Sequence[Metric],
    n: int,
    paths: DataPaths,
    options: MetricOptions,
) -> dict[str, Any]:
    """Score n real images of the reference's other split, or as many as there are: what a perfect generator would get.

    It is computed once and cached. Metrics of `WITHOUT_BASELINE` are left out, and fid_infinity with too few images.

    Raises:
        EvaluationError: If there is no other split.
        ImageSetError: If it cannot be loaded.
    """
    real = reference.image_set
    name, against = other_split(real), f"{real['source']}@{real['split']}"
    images = paths.load_images(name, real["resolution"], real["channels"])
    n = min(n, len(images))
    without = {*WITHOUT_BASELINE} | ({"fid_infinity"} if n < min_images(extractor.dim) else set())
    metrics = [metric for metric in metrics if metric.name not in without]
    if not metrics:
        raise EvaluationError(f"fid_infinity needs {min_images(extractor.dim)} images, and {name} has {n}")
    key = {
        "version": BASELINE_VERSION,
        "reference": hashlib.sha256(reference.mu.tobytes() + reference.sigma.tobytes()).hexdigest(),
        "names": [real.get("name"), against, name],
        "other": images.fingerprint,
        "n": n,
        "extractor": extractor.digest,
        "metrics": [metric.name for metric in metrics],
        "options": vars(options),
    }
    path = paths.references / f"baseline-{json_digest(key)[:20]}.json"
    # What your own metric computes can change without its name.
    cacheable = all(metric.name in METRICS for metric in metrics)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # absent or damaged: computed again
        cached = json.loads(path.read_text(encoding="utf-8"))
        if cacheable and cached["key"] == key:
            baseline: dict[str, Any] = cached["baseline"]
            return baseline
    others = cached_reference(
        name,
        extractor,
        paths,
        resolution=real["resolution"],
        channels=real["channels"],
        num_images=n,
        keep=rows_to_keep(metrics) & {"features", "logits"},
    )
    results = compute_metrics([others], ReferenceSet(reference), metrics, extractor, images.class_names, options)
    baseline = {
        "scores": {result["name"]: result["value"] for result in results},
        "results": results,
        "image_set": name,
        "against": against,
        "n": n,
        "fingerprint": images.fingerprint,
    }
    with contextlib.suppress(EvaluationError):  # a cache that cannot be written
        if cacheable:
            write_json(path, {"key": key, "baseline": baseline})
    return baseline
