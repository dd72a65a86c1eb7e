"""Classify a source's images with a classifier of the real ones: its confidence, classes, and covered modes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from artifacts.terminal import progress
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.features.extraction import iter_features
from evaluation.features.store import Timing
from evaluation.json_files import now, versions
from evaluation.metrics.classifier_confidence import class_confidence, classifier_confidence, mode_coverage
from evaluation.sources import ImageBatch, ImageSource, SeedRange

DIGITS = 10
NUM_MODES = DIGITS**3  # of StackedMNIST: a digit per channel
STACKED_MNIST_TEST = "stacked-mnist@test"


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
    logits = _compute_logits(source, extractor, SeedRange(first_seed, n), n, timing)
    sure_share, shares = classifier_confidence(logits, threshold)
    found = {
        "sure": threshold,
        "sure_share": sure_share,
        "class_shares": dict(zip(extractor.class_names, shares.tolist(), strict=True)),
    }
    return _report("classify", source, extractor, SeedRange(first_seed, n), found, timing)


def count_modes(source: ImageSource, extractor: Extractor, *, num_images: int, first_seed: int) -> dict[str, Any]:
    """Return a report of the modes of StackedMNIST that a source's images cover; see `mode_coverage`.

    An image's mode is the digit in each channel, as a classifier of MNIST's ten digits names it (Srivastava et al.
    2017; Lin et al. 2018).

    Raises:
        EvaluationError: If the images are gray or too few, the extractor does not classify ten digits, or the source
            fails.
    """
    if not extractor.has_logits or len(extractor.class_names) != DIGITS:
        raise EvaluationError(
            f"{extractor.path} is not a classifier of ten digits: make one with `evaluation extractor classifier "
            "--images mnist --output mnist.onnx`"
        )
    if source.shape[2] != 3:
        raise EvaluationError(
            "the images are gray, and StackedMNIST has a digit in each of three channels: train with "
            "--set data.source=stacked-mnist"
        )
    if source.num_images is not None and source.num_images < num_images:
        raise EvaluationError(
            f"there are {source.num_images} images, fewer than --num-images {num_images}: make more, or lower it (the "
            "modes and KL depend on it)"
        )
    timing, seeds = Timing(), SeedRange(first_seed, num_images)
    logits = _compute_logits(ChannelSource(source), extractor, seeds, 3 * num_images, timing)
    digits = logits.argmax(axis=1).reshape(-1, 3)
    modes, divergence = mode_coverage(digits @ np.array([100, 10, 1]), NUM_MODES)
    found = {
        "modes": modes,
        "num_modes": NUM_MODES,
        "kl": divergence,
        "mean_confidence": float(class_confidence(logits).mean()),
    }
    return _report("modes", source, extractor, seeds, found, timing)


class ChannelSource:
    """The channels of another source's RGB images as gray images, three per seed."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.shape = (*source.shape[:2], 1)
        self.class_names: tuple[str, ...] = ()
        self.seeded, self.description = source.seeded, source.description
        self.num_images = None if source.num_images is None else 3 * source.num_images

    def batches(self, seeds: SeedRange, start: int, stop: int, batch_size: int) -> Iterator[ImageBatch]:
        """Yield the channels of images start/3 … stop/3 - 1; both are multiples of 3."""
        for batch in self._source.batches(seeds, start // 3, stop // 3, batch_size):
            # Images of an unexpected shape pass unchanged: the feature extraction rejects them with their shape.
            if batch.images.shape[1:] == self._source.shape:
                yield ImageBatch(batch.images.transpose(0, 3, 1, 2).reshape(-1, *self.shape), batch.digest)
            else:
                yield batch


def _compute_logits(
    source: ImageSource, extractor: Extractor, seeds: SeedRange, total: int, timing: Timing
) -> np.ndarray:
    """Return the logits of the first `total` images of a range, float32 [total, classes]."""
    logits: list[np.ndarray] = []
    with progress("classifying", total) as advance:
        for batch, extracted in iter_features(source, extractor, seeds, 0, total, timing):
            assert extracted.logits is not None
            logits.append(extracted.logits)
            advance(len(batch.images))
    if not logits:
        raise EvaluationError("there are no images to classify")
    return np.concatenate(logits)


def _report(
    kind: str, source: ImageSource, extractor: Extractor, seeds: SeedRange, found: dict[str, Any], timing: Timing
) -> dict[str, Any]:
    """Return a report: what was found, and how."""
    first, n = seeds.first_seed, seeds.n
    return {
        "format_version": 1,
        "kind": kind,
        "n": n,
        "seeds": {"first": first, "last": first + n - 1} if source.seeded else None,
        **found,
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
