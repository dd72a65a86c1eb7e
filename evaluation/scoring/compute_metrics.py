"""Compute the metrics from the features of images and of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.features.store import FeatureSet
from evaluation.metrics import Metric, MetricInputs, MetricOptions, required_inputs, result_name
from evaluation.metrics.intervals import interval
from evaluation.references.reference_file import Reference
from evaluation.references.reference_set import ReferenceSet, other_split
from evaluation.sources import ImageSource

# The metrics that have an interval, whose spread is that of fresh seeds.
FRECHET = ("fid", "fid_infinity", "per_class")
CONFIDENCE_LEVEL = 0.95


def check_metrics(metrics: Sequence[Metric], source: ImageSource, extractor: Extractor, reference: Reference) -> None:
    """Raise EvaluationError, before any work, for a metric that cannot be computed from these."""
    for metric in metrics:
        if "logits" in metric.needs and not extractor.has_logits:
            raise EvaluationError(f"{metric.name} needs class logits, which {extractor.path} does not give")
        if "labels" in metric.needs and not source.class_names:
            raise EvaluationError(f"{metric.name} needs images with labels: a conditional generator, or a labeled set")
        if "reference_labels" in metric.needs and reference.labels is None:
            raise EvaluationError(f"{metric.name} needs labels of the real images, which the reference does not have")
        if "reference_features" in metric.needs and reference.features is None:
            raise EvaluationError(
                f"{metric.name} needs the features of the real images next to {reference.path}; make it again with "
                "`evaluation reference`, or name the image set: --reference SOURCE@SPLIT"
            )
        if "train_features" in metric.needs:
            other_split(reference.image_set)
    if "labels" in required_inputs(metrics):
        _label_map(source.class_names, reference)


def compute_metrics(
    images: Sequence[FeatureSet],
    real: ReferenceSet,
    metrics: Sequence[Metric],
    extractor: Extractor,
    class_names: tuple[str, ...],
    options: MetricOptions,
) -> list[dict[str, Any]]:
    """Compute one result per metric from the images' features and the real ones'.

    With intervals, `images` are of disjoint ranges of seeds: a Fréchet distance is their mean, with an interval, and
    any other result is of the first range.

    Raises:
        EvaluationError: If a metric cannot be computed from these, or is not finite.
    """
    reference, n = real.reference, images[0].n
    inputs = [_metric_inputs(one, real, class_names, options) for one in images]
    results = []
    for metric in metrics:
        used = inputs if metric.name in FRECHET else inputs[:1]
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # a value that is not finite is an error below
                outcomes = [metric(one) for one in used]
        except ValueError as error:
            raise EvaluationError(f"{metric.name} cannot be computed: {error}") from error
        except EvaluationError:
            raise
        except Exception as error:  # whatever a user's metric raises
            raise EvaluationError(f"{metric.name} failed: {type(error).__name__}: {error}") from error
        values = [outcome.value for outcome in outcomes]
        spreads = [outcome.std for outcome in outcomes if outcome.std is not None]
        if not np.isfinite([*values, *spreads]).all():
            raise EvaluationError(
                f"{metric.name} is not finite: the features or the reference's statistics are too large"
            )
        details = _name_classes(outcomes[0].details, reference)
        results.append(
            {
                "name": result_name(metric, extractor.metric, n, options),
                "metric": metric.name,
                "title": metric.title,
                "value": float(np.mean(values)),
                # Over several ranges of seeds the interval replaces the spread of one range.
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
                "details": details | ({"first_range": values[0]} if len(values) > 1 else {}),
            }
        )
    return results


def _interval(values: list[float]) -> dict[str, Any] | None:
    if len(values) < 2:
        return None
    mean, low, high = interval(values, CONFIDENCE_LEVEL)
    return {
        "low": low,
        "high": high,
        "mean": mean,
        "level": CONFIDENCE_LEVEL,
        "values": values,
        "method": f"Student's t over {len(values)} disjoint seed ranges",
    }


def _metric_inputs(
    images: FeatureSet, real: ReferenceSet, class_names: tuple[str, ...], options: MetricOptions
) -> MetricInputs:
    labels = images.labels
    if labels is not None and class_names:
        labels = _label_map(class_names, real.reference)[labels]
    return MetricInputs(
        mu=images.mu,
        sigma=images.sigma,
        features=images.features,
        logits=images.logits,
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
    """Return the reference's label for each label of the images, by the classes' names, int64 [classes]."""
    theirs = tuple(reference.image_set.get("class_names") or ())
    if len(theirs) != len(class_names) or set(theirs) != set(class_names):
        first, second = (", ".join(names[:4]) + (", …" if len(names) > 4 else "") for names in (class_names, theirs))
        raise EvaluationError(f"the images have classes {first} and the reference {second or 'none'}: not the same")
    return np.array([theirs.index(name) for name in class_names], np.int64)


def _name_classes(details: dict[str, Any], reference: Reference) -> dict[str, Any]:
    """Return a result's details with the names of classes next to their labels."""
    names = reference.image_set.get("class_names") or []
    if "classes" not in details:
        return details
    classes = [entry | {"class": names[entry["label"]]} for entry in details["classes"] if entry["label"] < len(names)]
    return details | {"classes": classes or details["classes"]}
