"""Does a generator repeat its training images? Each sample's nearest one, and the share that is too near.

"Too near" is measured on images that cannot have been memorised: of real images held out of the training set, a share
of `QUANTILE` has a training image within the threshold. A share of samples far above the held-out's own is copying
(held-out and generated distances to the training set are compared so by Meehan et al. 2020, arXiv:2004.05675, section
3). Look at the pairs too: blurred samples also lie near in some features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evaluation.metrics.neighbors import nearest

__all__ = ["QUANTILE", "NearCopies", "near_copy_share", "nearest"]

QUANTILE = 0.01


class NearCopies(NamedTuple):
    """Shares of images within `threshold` of a training image, and the medians of the distances."""

    share: float
    held_out_share: float
    threshold: float
    median: float
    held_out_median: float


def near_copy_share(distances: np.ndarray, held_out: np.ndarray, *, quantile: float = QUANTILE) -> NearCopies:
    """Share of near-copies among samples and among held-out reals, from distances to the nearest training image.

    `distances` float [N] of samples, `held_out` float [M] of held-out real images, M ≥ 20. The threshold is the
    `quantile` of every other held-out distance (0, 2, 4, …), and the held-out's share that of the rest, so that it
    is measured and not true by construction. Raises ValueError for too few, or what is not finite.
    """
    for values in (distances, held_out):
        if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any():
            raise ValueError("distances to the nearest training image must be [N], finite and not negative")
    if len(held_out) < 20 or not len(distances):
        raise ValueError(
            f"near-copies need 20 held-out real images or more to set the threshold by, not {len(held_out)}"
            if len(distances)
            else "there are no samples to search for copies"
        )
    threshold = float(np.quantile(held_out[::2], quantile))
    return NearCopies(
        share=float((distances <= threshold).mean()),
        held_out_share=float((held_out[1::2] <= threshold).mean()),
        threshold=threshold,
        median=float(np.median(distances)),
        held_out_median=float(np.median(held_out)),
    )
