"""Nearest neighbours by Euclidean distance, exhaustive and in blocks, for sets larger than memory.

Distances are ‖x‖² + ‖y‖² - 2x·y in float64 about the mean of the points, so that what all features share does
not eat the digits; about 1e-8 of the features' spread is left as rounding. Extra memory: four blocks of
`BLOCK` rows, some 150 MB at 2048 features, whatever N is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from artifacts.arrays import drop_page_cache

BLOCK = 2048


def check_features(features: np.ndarray, dim: int | None = None) -> None:
    """Raise ValueError unless `features` is [N, d] with d = `dim` (where given)."""
    if features.ndim != 2 or (dim is not None and features.shape[1] != dim):
        raise ValueError(f"features must be [N, {'d' if dim is None else dim}], not {list(features.shape)}")


def mean_of(features: np.ndarray) -> np.ndarray:
    """Mean of rows, float64 [d], read block by block."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(features), BLOCK):
        total += features[start : start + BLOCK].sum(axis=0, dtype=np.float64)
        drop_page_cache(features)
    return total / max(1, len(features))


def blocks(features: np.ndarray, centre: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """(rows, float64 block about `centre`, its squared norms), in order. ValueError for what is not finite."""
    for start in range(0, len(features), BLOCK):
        rows = slice(start, min(start + BLOCK, len(features)))
        block = features[rows] - centre
        drop_page_cache(features)
        if not np.isfinite(block).all():
            raise ValueError("features are not finite")
        yield rows, block, np.einsum("ij,ij->i", block, block)


def squared_distances(x: np.ndarray, x_norms: np.ndarray, y: np.ndarray, y_norms: np.ndarray) -> np.ndarray:
    """float64 [len(x), len(y)] from rows and their squared norms, never below 0."""
    distances = x @ y.T
    distances *= -2.0
    distances += x_norms[:, None]
    distances += y_norms
    return np.maximum(distances, 0.0, out=distances)


def rounding(norms: np.ndarray, squared: np.ndarray, dim: int) -> np.ndarray:
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
    return np.finfo(np.float64).eps * (8.0 + 2.0 * np.sqrt(dim)) * (3.0 * norms + 2.0 * squared)


def neighbour_distances(features: np.ndarray, k: int, center: np.ndarray | None = None) -> np.ndarray:
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
        raise ValueError(f"the distance to neighbour {k} needs {k + 1} images or more, not {len(features)}")
    centre = mean_of(features) if center is None else center
    best = np.full((len(features), k), np.inf)
    for rows, x, x_norms in blocks(features, centre):
        for columns, y, y_norms in blocks(features[rows.start :], centre):
            columns = slice(columns.start + rows.start, columns.stop + rows.start)
            distances = squared_distances(x, x_norms, y, y_norms)
            if columns == rows:
                np.fill_diagonal(distances, np.inf)  # a row is no neighbour of itself
            else:
                best[columns] = _nearest_of(best[columns], distances.T)
            best[rows] = _nearest_of(best[rows], distances)
    return best


def nearest(queries: np.ndarray, points: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest points of each query: distances float64 [N, k] ascending, and indices int64 [N, k].

    `queries` float [N, d], `points` float [M, d], M ≥ k. The distances told are those of the difference
    itself, so that a copy is at exactly 0.
    """
    check_features(points)
    check_features(queries, points.shape[1])
    if not 1 <= k <= len(points):
        raise ValueError(f"there are {len(points)} points to search, fewer than the {k} nearest asked for")
    centre = mean_of(points)
    found = np.zeros((len(queries), k), dtype=np.int64)
    told = np.zeros((len(queries), k))
    for rows, x, x_norms in blocks(queries, centre):
        best = np.full((len(x), k), np.inf)
        indices = np.zeros((len(x), k), dtype=np.int64)
        for columns, y, y_norms in blocks(points, centre):
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
            told[row], found[row] = exact[order], indices[i][order]
        drop_page_cache(points)
        drop_page_cache(queries)
    return told, found


def _nearest_of(best: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The k smallest of k known distances [N, k] and some new ones [N, M], row by row, ascending."""
    k = best.shape[1]
    if np.isinf(best[:, -1]).any():  # too few are known yet to leave anything out
        new = distances if distances.shape[1] <= k else np.partition(distances, k - 1, axis=1)[:, :k]
    else:
        rows, columns = np.nonzero(distances < best[:, -1:])  # in order of rows
        if not len(rows):
            return best
        counts = np.bincount(rows, minlength=len(best))
        place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        new = np.full((len(best), counts.max()), np.inf)
        new[rows, place] = distances[rows, columns]
    return np.sort(np.concatenate([best, new], axis=1), axis=1)[:, :k]
