"""From what a pass left to results: each metric's value under its full name, with what it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.metrics import Metric, MetricInputs, MetricOptions, required_inputs, result_name
from evaluation.metrics.intervals import interval
from evaluation.references.cache import other_split
from evaluation.references.file import Reference
from evaluation.scoring.feature_store import Collected
from evaluation.sources import ImageSource

# Whose spread is that of fresh seeds: an interval of any other would need its own reading.
FRECHET = ("fid", "fid_infinity", "per_class")
LEVEL = 0.95


@dataclass(frozen=True)
class Real:
    """The real side: the reference, and for memorization the training images and those held out of training."""

    reference: Reference
    train: Reference | None = None
    held_out: Reference | None = None


def kept_by(metrics: Sequence[Metric]) -> frozenset[str]:
    """The rows of the images that a pass must keep for these metrics."""
    return frozenset(required_inputs(metrics) & {"features", "logits", "labels"})


def kept_of_reference(metrics: Sequence[Metric]) -> frozenset[str]:
    """The rows of the reference that these metrics need."""
    return frozenset({"features"} if {"reference_features", "held_out_features"} & required_inputs(metrics) else ())


def check_possible(metrics: Sequence[Metric], source: ImageSource, extractor: Extractor, reference: Reference) -> None:
    """Raise EvaluationError, before any work, for a metric that these cannot give."""
    for metric in metrics:
        if "logits" in metric.needs and not extractor.has_logits:
            raise EvaluationError(f"{metric.name} needs class logits, which {extractor.path} does not give")
        if "labels" in metric.needs and not source.class_names:
            raise EvaluationError(f"{metric.name} needs images with labels: a conditional generator, or a labelled set")
        if "reference_labels" in metric.needs and reference.labels is None:
            raise EvaluationError(f"{metric.name} needs labels of the real images, which the reference does not have")
        if "reference_features" in metric.needs and reference.features is None:
            raise EvaluationError(
                f"{metric.name} needs the features of the real images beside {reference.path}; make it again with "
                "`evaluation reference`, or name the image set: --reference SOURCE@SPLIT"
            )
        if "train_features" in metric.needs:
            other_split(reference.image_set)
    if "labels" in required_inputs(metrics):
        _label_map(source.class_names, reference)


def results_of(
    parts: Sequence[Collected],
    metrics: Sequence[Metric],
    extractor: Extractor,
    real: Real,
    class_names: tuple[str, ...],
    options: MetricOptions = MetricOptions(),
) -> list[dict[str, Any]]:
    """One result a metric, of the first part; a Fréchet figure of several parts is their mean, inside its interval.

    Raises EvaluationError, in one line, for a metric that cannot be computed from what there is.
    """
    reference = real.reference
    found = []
    inputs = [_metric_inputs(part, real, class_names, options) for part in parts]
    for metric in metrics:
        used = inputs if metric.name in FRECHET else inputs[:1]
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told in one line below
                outcomes = [metric(one) for one in used]
        except ValueError as error:
            raise EvaluationError(f"{metric.name} cannot be computed: {error}") from error
        values = [outcome.value for outcome in outcomes]
        spreads = [outcome.std for outcome in outcomes if outcome.std is not None]
        if not np.isfinite([*values, *spreads]).all():
            raise EvaluationError(
                f"{metric.name} is not finite: the features or the reference's statistics are too large"
            )
        n = parts[0].statistics.n
        found.append(
            {
                "name": result_name(metric.name, extractor.metric, n, options),
                "metric": metric.name,
                "title": metric.title,
                "value": float(np.mean(values)),
                # Over several ranges of seeds the interval says what one range's own spread cannot.
                "std": outcomes[0].std if len(outcomes) == 1 else None,
                "interval": _interval(values),
                "n": n,
                "n_reference": reference.n,
                "extractor": extractor.name,
                "extractor_digest": extractor.digest,
                "resize": extractor.metadata["resize"],
                "reference": reference.image_set.get("name"),
                "split": reference.image_set.get("split"),
                "resolution": reference.image_set.get("resolution"),
                "better": metric.better,
                "details": _named(outcomes[0].details, reference)
                | ({"first_range": values[0]} if len(values) > 1 else {}),
            }
        )
    return found


def _interval(values: list[float]) -> dict[str, Any] | None:
    if len(values) < 2:
        return None
    mean, low, high = interval(values, LEVEL)
    return {
        "low": low,
        "high": high,
        "mean": mean,
        "level": LEVEL,
        "values": values,
        "method": f"Student's t over {len(values)} disjoint seed ranges",
    }


def _metric_inputs(part: Collected, real: Real, class_names: tuple[str, ...], options: MetricOptions) -> MetricInputs:
    labels = part.rows("labels")
    if labels is not None and class_names:
        labels = _label_map(class_names, real.reference)[labels]
    return MetricInputs(
        mu=part.statistics.mu,
        sigma=part.statistics.sigma,
        features=part.rows("features"),
        logits=part.rows("logits"),
        labels=labels,
        reference_mu=real.reference.mu,
        reference_sigma=real.reference.sigma,
        reference_features=real.reference.features,
        reference_labels=real.reference.labels,
        train_features=None if real.train is None else real.train.features,
        held_out_features=None if real.held_out is None else real.held_out.features,
        options=options,
    )


def _label_map(class_names: tuple[str, ...], reference: Reference) -> np.ndarray:
    """Label of the images → label of the reference, by the classes' names, int64 [classes]."""
    theirs = tuple(reference.image_set.get("class_names") or ())
    if len(theirs) != len(class_names) or set(theirs) != set(class_names):
        few = [", ".join(names[:4]) + (", …" if len(names) > 4 else "") for names in (class_names, theirs)]
        raise EvaluationError(
            f"the images have classes {few[0]} and the reference {few[1] or 'none'}: not the same ones"
        )
    return np.array([theirs.index(name) for name in class_names], np.int64)


def _named(details: dict[str, Any], reference: Reference) -> dict[str, Any]:
    """Details with the names of the classes beside their labels."""
    names = reference.image_set.get("class_names") or []
    if "classes" in details:
        classes = [
            entry | {"class": names[entry["label"]]} for entry in details["classes"] if entry["label"] < len(names)
        ]
        return details | {"classes": classes or details["classes"]}
    return details
