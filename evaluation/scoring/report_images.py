"""Save the images that a report shows: samples, real images, and the training images nearest to samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.features.store import SAMPLES, FeatureStore
from evaluation.metrics.neighbors import nearest
from evaluation.output_files import atomic_output
from evaluation.references.data_paths import DataPaths
from evaluation.references.reference_file import Reference
from evaluation.references.reference_set import check_runs_no_code
from evaluation.scoring.job import Job
from evaluation.sources import random_subset
from imagesets import ImageSetError

NUM_PAIRS, NUM_NEIGHBORS = 8, 4


def save_sample_images(
    folder: Path | None, job: Job, features: FeatureStore, results: list[dict[str, Any]]
) -> dict[str, str] | None:
    """Save the images of a report as npy files, and return their paths relative to it; None without a folder.

    They are `samples` and `reals`, uint8 [up to 64, H, W, C], and after a search for near-copies `neighbours`, uint8
    [8, 1 + 4, H, W, C], the samples nearest to training images, each with its nearest ones. Real images that cannot be
    loaded again are left out.
    """
    if folder is None or job.real is None:
        return None
    reals = _load_images(job.real.reference, job.options.paths)
    if reals is not None:  # a fixed choice of them
        reals = np.asarray(reals[random_subset(len(reals), min(SAMPLES, len(reals)), 1)])
    arrays = {"samples": features.rows("samples"), "reals": reals}
    memorization = next((result for result in results if result["metric"] == "memorization"), None)
    if memorization is not None and job.real.train is not None:
        samples = [pair["sample"] for pair in memorization["details"]["nearest"][:NUM_PAIRS]]
        arrays["neighbours"] = _neighbor_images(job, samples, features, job.real.train)
    saved = {}
    for name, images in arrays.items():
        if images is not None:
            with atomic_output(folder / f"{name}.npy") as handle:
                np.save(handle, images, allow_pickle=False)
            saved[name] = f"{folder.name}/{name}.npy"
    return saved


def _load_images(reference: Reference, paths: DataPaths) -> np.ndarray | None:
    """Return the images that a reference was made of, None if they cannot be loaded or have changed."""
    image_set = reference.image_set
    if "fingerprint" not in image_set:
        return None
    source, split = image_set["source"], image_set.get("split")
    try:
        check_runs_no_code(image_set)
        name = source if split is None else f"{source}@{split}"
        images = paths.load_images(name, image_set["resolution"], image_set["channels"])
    except (EvaluationError, ImageSetError):
        return None
    return images.images if images.fingerprint == image_set["fingerprint"] else None


def _neighbor_images(job: Job, samples: list[int], features: FeatureStore, train: Reference) -> np.ndarray | None:
    images, rows = _load_images(train, job.options.paths), features.rows("features")
    if images is None or rows is None or train.features is None:
        return None
    _, indices = nearest(np.asarray(rows[samples]), train.features, k=min(NUM_NEIGHBORS, len(images)))
    # Row i of the reference's features is of image order[i].
    order = random_subset(len(images), train.n, 0)
    groups = []
    try:
        for sample, found in zip(samples, indices, strict=True):
            (batch,) = job.source.batches(job.ranges[0], sample, sample + 1, 1)
            groups.append(np.concatenate([batch.images, images[order[found]]]))
    except (EvaluationError, ValueError):
        return None
    return np.stack(groups)
