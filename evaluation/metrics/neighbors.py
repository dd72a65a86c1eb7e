"""Nearest neighbors by Euclidean distance, and the share of near-copies of training images.

The search is exhaustive and in blocks, for sets larger than memory. Distances are ‖x‖² + ‖y‖² - 2x·y in float64 about
the mean of the points, so that a common offset of the features does not cost digits; about 1e-8 of the features'
spread remains as rounding. Extra memory: four blocks of `BLOCK` rows, 150 MB at 2048 features, for any N.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from artifacts.arrays import drop_page_cache

BLOCK = 2048
QUANTILE = 0.01
# Number of held-out images below which a threshold cannot be set.
_MIN_HELD_OUT = 20


def check_features(features: np.ndarray, dim: int | None = None) -> None:
    """Raise ValueError unless `features` is [N, d] with d = `dim` (where given)."""
    if features.ndim != 2 or (dim is not None and features.shape[1] != dim):
        raise ValueError(f"features must be [N, {'d' if dim is None else dim}], not {list(features.shape)}")


def mean_of(features: np.ndarray) -> np.ndarray:
    """Return the mean of rows, float64 [d], read block by block."""
    mean = np.zeros(features.shape[1])
    for start in range(0, len(features), BLOCK):
        mean += features[start : start + BLOCK].sum(axis=0, dtype=np.float64)
        drop_page_cache(features)
    mean /= max(1, len(features))
    return mean


def blocks(features: np.ndarray, center: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield (rows, float64 block about `center`, its squared norms) in order; ValueError for values not finite."""
    for start in range(0, len(features), BLOCK):
        rows = slice(start, min(start + BLOCK, len(features)))
        block = features[rows] - center
        drop_page_cache(features)
        if not np.isfinite(block).all():
            raise ValueError("features are not finite")
        yield rows, block, np.einsum("ij,ij->i", block, block)


def squared_distances(x: np.ndarray, x_norms: np.ndarray, y: np.ndarray, y_norms: np.ndarray) -> np.ndarray:
    """Return squared distances, float64 [len(x), len(y)], at least 0, from rows and their squared norms."""
    distances: np.ndarray = x @ y.T
    distances *= -2.0
    distances += x_norms[:, None]
    distances += y_norms
    np.maximum(distances, 0.0, out=distances)
    return distances


def rounding_bound(norms: np.ndarray, squared: np.ndarray, dim: int) -> np.ndarray:
    """Return how far two squared distances of equal points can differ by rounding.

    Both are of `squared_distances`: one from a row to its neighbor, one from the row to any other point at that
    distance. The norms of those points are at most 2 (norm + squared distance). Rounding adds up as a random walk
    over the features.

    Args:
        norms: Squared norms of the rows about the center of all blocks, float64 [N].
        squared: Squared distances from the rows to their neighbors, float64 [N].
        dim: Number of features.

    Returns:
        Bounds, float64 [N], about 1e-13 of the squared norms for 2048 features.
    """
    bound: np.ndarray = np.finfo(np.float64).eps * (8.0 + 2.0 * np.sqrt(dim)) * (3.0 * norms + 2.0 * squared)
    return bound


def neighbor_distances(features: np.ndarray, k: int, center: np.ndarray | None = None) -> np.ndarray:
    """Return squared distances to each row's 1st to k-th nearest *other* row.

    Each pair of blocks is multiplied once and serves both its rows and its columns.

    Args:
        features: Rows, float [N, d], N > k. Another row with the same features is a neighbor at distance 0.
        k: Number of neighbors.
        center: What distances are computed about, float64 [d]; default: the rows' mean.

    Returns:
        Squared distances, float64 [N, k], ascending.

    Raises:
        ValueError: If there are too few rows, or a feature is not finite.
    """
    check_features(features)
    if not 1 <= k < len(features):
        raise ValueError(f"the distance to neighbor {k} needs {k + 1} images or more, not {len(features)}")
    center = mean_of(features) if center is None else center
    best = np.full((len(features), k), np.inf)
    for rows, x, x_norms in blocks(features, center):
        for columns, y, y_norms in blocks(features[rows.start :], center):
            columns = slice(columns.start + rows.start, columns.stop + rows.start)
            distances = squared_distances(x, x_norms, y, y_norms)
            if columns == rows:
                # A row is not its own neighbor.
                np.fill_diagonal(distances, np.inf)
            else:
                best[columns] = _nearest_of(best[columns], distances.T)
            best[rows] = _nearest_of(best[rows], distances)
    return best


def nearest(queries: np.ndarray, points: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest points of each query.

    Args:
        queries: float [N, d].
        points: float [M, d], M ≥ k.
        k: Number of points.

    Returns:
        Distances, float64 [N, k], ascending, and indices of the points, int64 [N, k]. Returned distances are computed
        from the differences, so that a copy is at exactly 0.

    Raises:
        ValueError: If there are too few points, shapes differ or a feature is not finite.
    """
    check_features(points)
    check_features(queries, points.shape[1])
    if not 1 <= k <= len(points):
        raise ValueError(f"there are {len(points)} points to search, fewer than the {k} nearest requested")
    center = mean_of(points)
    all_indices = np.zeros((len(queries), k), dtype=np.int64)
    all_distances = np.zeros((len(queries), k))
    for rows, x, x_norms in blocks(queries, center):
        best = np.full((len(x), k), np.inf)
        indices = np.zeros((len(x), k), dtype=np.int64)
        for columns, y, y_norms in blocks(points, center):
            distances = squared_distances(x, x_norms, y, y_norms)
            few = np.argpartition(distances, min(k, len(y)) - 1, axis=1)[:, :k]
            best = np.concatenate([best, np.take_along_axis(distances, few, axis=1)], axis=1)
            indices = np.concatenate([indices, few + columns.start], axis=1)
            order = np.argsort(best, axis=1, kind="stable")[:, :k]
            best, indices = (np.take_along_axis(array, order, axis=1) for array in (best, indices))
        for i, row in enumerate(range(rows.start, rows.stop)):
            differences = points[indices[i]].astype(np.float64) - queries[row]
            exact = np.sqrt(np.einsum("ij,ij->i", differences, differences))
            order = np.argsort(exact, kind="stable")
            all_distances[row], all_indices[row] = exact[order], indices[i][order]
        drop_page_cache(points)
        drop_page_cache(queries)
    return all_distances, all_indices


class NearCopies(NamedTuple):
    """Shares of images within `threshold` of a training image, and medians of the distances."""

    share: float
    held_out_share: float
    threshold: float
    median: float
    held_out_median: float


def near_copy_share(distances: np.ndarray, held_out: np.ndarray, *, quantile: float = QUANTILE) -> NearCopies:
    """Return the share of near-copies among samples and among held-out real images.

    The threshold is set on images that cannot have been memorized: the `quantile` of every other held-out distance
    (0, 2, 4, …). The held-out share is measured on the remaining ones, so that it is not true by construction. A share
    of samples far above the held-out share is copying (Meehan et al. 2020, arXiv:2004.05675, section 3, compare the two
    distributions of distances). Look at the pairs too: blurred samples are also near in some features.

    Args:
        distances: Distance of each sample to its nearest training image, float [N].
        held_out: The same of real images that were held out of training, float [M], M ≥ 20.
        quantile: Share of held-out images within the threshold, 0 to 1.

    Returns:
        The shares, the threshold and the medians.

    Raises:
        ValueError: If there are too few distances, or one is negative or not finite.
    """
    for values in (distances, held_out):
        if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any():
            raise ValueError("distances to the nearest training image must be [N], finite and not negative")
    if not len(distances):
        raise ValueError("there are no samples to search for copies")
    if len(held_out) < _MIN_HELD_OUT:
        raise ValueError(
            f"near-copies need {_MIN_HELD_OUT} held-out real images or more to set the threshold by, not "
            f"{len(held_out)}"
        )
    threshold = float(np.quantile(held_out[::2], quantile))
    return NearCopies(
        share=float((distances <= threshold).mean()),
        held_out_share=float((held_out[1::2] <= threshold).mean()),
        threshold=threshold,
        median=float(np.median(distances)),
        held_out_median=float(np.median(held_out)),
    )


def _nearest_of(best: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return the k smallest of k known distances [N, k] and new ones [N, M], row by row, ascending."""
    k = best.shape[1]
    if np.isinf(best[:, -1]).any():
        # Too few are known yet to leave any out.
        new = distances if distances.shape[1] <= k else np.partition(distances, k - 1, axis=1)[:, :k]
    else:
        rows, columns = np.nonzero(distances < best[:, -1:])
        if not len(rows):
            return best
        counts = np.bincount(rows, minlength=len(best))
        # `rows` is ascending: the position of each new distance within its row.
        position = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        new = np.full((len(best), counts.max()), np.inf)
        new[rows, position] = distances[rows, columns]
    return np.sort(np.concatenate([best, new], axis=1), axis=1)[:, :k]
