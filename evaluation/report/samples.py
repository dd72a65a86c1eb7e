"""The images that a report shows, left as npy for whoever draws it: samples, reals, nearest training images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evaluation.atomic import written_whole
from evaluation.errors import EvaluationError
from evaluation.metrics.neighbors import nearest
from evaluation.references.cache import DataPaths, ReferenceSet
from evaluation.references.file import Reference
from evaluation.scoring.feature_store import SAMPLES, FeatureStore
from evaluation.sources import ImageSource, SeedRange, random_subset
from imagesets import ImageSetError

PAIRS, NEIGHBOURS = 8, 4


def keep_pictures(
    folder: Path | None,
    source: ImageSource,
    first_seed: int,
    n: int,
    part: FeatureStore,
    reference: Reference,
    real: ReferenceSet,
    results: list[dict[str, Any]],
    paths: DataPaths,
) -> dict[str, str] | None:
    """Write `samples.npy` and `reals.npy`, uint8 [up to 64, H, W, C], and where there was a search for copies
    `neighbours.npy`, uint8 [8, 1 + 4, H, W, C]: the samples nearest to training images, each with its nearest ones.

    Their names, relative to the report; None when the report has no folder. Real images that cannot be had again are
    left out.
    """
    if folder is None:
        return None
    found = {"samples": part.rows("samples"), "reals": _reals(reference, paths)}
    memorised = next((result for result in results if result["metric"] == "memorization"), None)
    if memorised is not None and real.train is not None:
        seeds, details = SeedRange(first_seed, n), memorised["details"]
        found["neighbours"] = _neighbours(source, seeds, part, real.train, details, paths)
    pictures = {}
    for name, images in found.items():
        if images is not None:
            with written_whole(folder / f"{name}.npy") as handle:
                np.save(handle, images, allow_pickle=False)
            pictures[name] = f"{folder.name}/{name}.npy"
    return pictures


def _reals(reference: Reference, paths: DataPaths) -> np.ndarray | None:
    """The first images of a fixed choice of the reference's, at its size."""
    images = _images_of(reference, paths)
    return None if images is None else np.asarray(images[random_subset(len(images), min(SAMPLES, len(images)), 1)])


def _images_of(reference: Reference, paths: DataPaths) -> np.ndarray | None:
    told = reference.image_set
    if "fingerprint" not in told:
        return None
    try:
        name = told["source"] if told.get("split") is None else f"{told['source']}@{told['split']}"
        images = paths.load_images(name, told["resolution"], told["channels"])
    except (EvaluationError, ImageSetError):
        return None
    return images.images if images.fingerprint == told["fingerprint"] else None


def _neighbours(
    source: ImageSource,
    seeds: SeedRange,
    part: FeatureStore,
    train: Reference,
    details: dict[str, Any],
    paths: DataPaths,
) -> np.ndarray | None:
    images, features = _images_of(train, paths), part.features
    if images is None or features is None or train.features is None:
        return None
    samples = [pair["sample"] for pair in details["nearest"][:PAIRS]]
    _, indices = nearest(np.asarray(features[samples]), train.features, k=min(NEIGHBOURS, len(images)))
    order = random_subset(len(images), train.n, 0)  # row i of the reference's features is of this image
    rows = []
    try:
        for sample, found in zip(samples, indices, strict=True):
            (batch,) = source.batches(seeds, sample, sample + 1, 1)
            rows.append(np.concatenate([batch.images, images[order[found]]]))
    except (EvaluationError, ValueError):
        return None
    return np.stack(rows)
