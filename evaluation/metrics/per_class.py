"""Fréchet distance class by class (intra-FID: Miyato and Koyama 2018, arXiv:1802.05637)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evaluation.metrics.fid_infinity import subset_statistics
from evaluation.metrics.frechet import frechet_distance


class ClassDistance(NamedTuple):
    """One class's distance, and how many images and reference images it was made of."""

    value: float
    n: int
    n_reference: int


def per_class_frechet(
    fake: np.ndarray, fake_labels: np.ndarray, real: np.ndarray, real_labels: np.ndarray
) -> dict[int, ClassDistance]:
    """label → distance between the fakes and the reals of that label, over all labels of the reals, ascending.

    `fake` float [N, d] with int labels [N], `real` float [M, d] with int labels [M]. Each class has a fraction of
    the images, hence a larger bias than the whole: compare classes' distances with each other only at like
    n. Raises ValueError when a class has fewer than 2 images on a side: leaving it out would flatter a generator
    that never makes it.
    """
    for features, labels in ((fake, fake_labels), (real, real_labels)):
        if features.ndim != 2 or labels.shape != (len(features),):
            raise ValueError(f"labels {list(labels.shape)} do not fit features {list(features.shape)}")
    strange = sorted(set(np.unique(fake_labels).tolist()) - set(np.unique(real_labels).tolist()))
    if strange:
        raise ValueError(f"there are images of class {strange[0]}, which the reference does not have")
    found: dict[int, ClassDistance] = {}
    for label in np.unique(real_labels).tolist():
        rows = [np.flatnonzero(labels == label) for labels in (fake_labels, real_labels)]
        if min(map(len, rows)) < 2:
            raise ValueError(
                f"class {label} has {len(rows[0])} images and {len(rows[1])} reference images; a distance by class "
                "needs 2 or more of each"
            )
        ours, theirs = (subset_statistics(*pair) for pair in zip((fake, real), rows, strict=True))
        value = frechet_distance(ours.mu, ours.sigma, theirs.mu, theirs.sigma)
        found[int(label)] = ClassDistance(value, ours.n, theirs.n)
    return found
