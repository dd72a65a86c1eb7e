"""What real images get: the reference's other split in the same metrics, measured once and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.metrics import Metric, MetricOptions, result_name
from evaluation.metrics.fid_infinity import min_images
from evaluation.metrics.frechet import FeatureStatistics
from evaluation.references.cache import Places, cached_reference, other_split
from evaluation.references.file import Reference
from evaluation.report.schema import write_json
from evaluation.scoring.feature_store import Collected
from evaluation.scoring.results import Real, kept_by, results_of

# Its own output tells the held-out images' share beside the samples'.
WITHOUT = ("memorization",)
# Raised when a metric computes another value from the same features, so that kept baselines are measured again.
VERSION = 2


def train_against_test(
    reference: Reference,
    extractor: Extractor,
    metrics: Sequence[Metric],
    n: int,
    places: Places,
    options: MetricOptions = MetricOptions(),
) -> dict[str, Any]:
    """Scores of n real images (or as many as there are) of the reference's other split, against the reference.

    It is what a perfect generator would get, and the scale on which a score can be read. Raises EvaluationError or
    ImageSetError when there is no other split to be had.
    """
    real = reference.image_set
    name = other_split(real)
    images = places.image_set(name, real["resolution"], real["channels"])
    taken = min(n, len(images))
    without = {*WITHOUT} | ({"fid_infinity"} if taken < min_images(extractor.dim) else set())
    metrics = [metric for metric in metrics if metric.name not in without]
    if not metrics:
        raise EvaluationError(f"fid_infinity needs {min_images(extractor.dim)} images, and {name} has {taken}")
    key = {
        "version": VERSION,
        "reference": hashlib.sha256(reference.mu.tobytes() + reference.sigma.tobytes()).hexdigest(),
        "other": images.fingerprint,
        "n": taken,
        "extractor": extractor.digest,
        "metrics": [metric.name for metric in metrics],
        "options": vars(options),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = places.references / f"baseline-{digest[:20]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # absent, or damaged: measured again
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == key:
            named = {"image_set": name, "against": f"{real['source']}@{real['split']}"}
            return _named_anew(kept["baseline"], reference, extractor, options) | named
    others = cached_reference(
        name,
        extractor,
        places,
        resolution=real["resolution"],
        channels=real["channels"],
        num_images=taken,
        keep=kept_by(metrics) & {"features", "logits"},
    )
    found = results_of([_as_images(others)], metrics, extractor, Real(reference), images.class_names, options)
    beside = {
        "scores": {result["name"]: result["value"] for result in found},
        "results": found,
        "image_set": name,
        "against": f"{real['source']}@{real['split']}",
        "n": taken,
        "fingerprint": images.fingerprint,
    }
    with contextlib.suppress(EvaluationError):  # not kept, then
        write_json(path, {"key": key, "baseline": beside})
    return beside


def _named_anew(
    kept: dict[str, Any], reference: Reference, extractor: Extractor, options: MetricOptions
) -> dict[str, Any]:
    """Return a baseline under the names of now: it may be from before a metric's name changed, or of another path."""
    results = [
        one
        | {
            "name": result_name(one["metric"], extractor.metric, one["n"], options),
            "reference": reference.image_set.get("name"),
            "split": reference.image_set.get("split"),
        }
        for one in kept["results"]
    ]
    return kept | {"results": results, "scores": {one["name"]: one["value"] for one in results}}


class _Mapped(Collected):
    """A reference's rows in the place of a pass's."""

    def __init__(self, reference: Reference) -> None:
        sigma = reference.sigma * (reference.n - 1)
        assert reference.path is not None
        super().__init__(reference.path, FeatureStatistics.from_state(reference.n, reference.mu, sigma))
        self._reference = reference

    def rows(self, what: str) -> Any:
        return getattr(self._reference, what, None)


def _as_images(reference: Reference) -> Collected:
    return _Mapped(reference)
