"""The metrics are their peers', in the same features; and a wrong normalisation of either set is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from pytorch_fid.fid_score import calculate_frechet_distance
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from evaluation.metrics import MetricInputs, MetricOptions
from evaluation.metrics.frechet import frechet_distance
from evaluation.metrics.inception_score import inception_score
from evaluation.metrics.kid import kid
from evaluation.metrics.prdc import precision_recall_density_coverage
from imagesets import load_image_set

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [N, 48] of digits: random filters of their pixels; the 'fakes' are digits with noise."""
    images = load_image_set("digits@train", cache_root=tmp_path_factory.mktemp("cache")).images
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    random = np.random.default_rng(0)
    filters = random.normal(size=(pixels.shape[1], 48)).astype(np.float32) / 8
    noisy = pixels[700:1400] + random.normal(0, 0.06, (700, pixels.shape[1])).astype(np.float32)
    fake, real = (np.maximum(rows @ filters, -0.5) for rows in (noisy, pixels[:690]))
    return fake, real


def agree(
    ours: Callable[[np.ndarray, np.ndarray], float],
    theirs: Callable[[np.ndarray, np.ndarray], float],
    pair: tuple[np.ndarray, np.ndarray],
    tolerance: float = TOLERANCE,
) -> None:
    """Within the tolerance; and past 100 of it, when the fakes alone are normalised as (x - 128) / 64."""
    expected = theirs(*pair)
    assert np.isfinite(expected)
    assert expected != 0
    assert ours(*pair) == pytest.approx(expected, rel=tolerance)
    wrong = ours(2 * pair[0] - 1 / 128, pair[1])
    assert abs(wrong - expected) > 100 * tolerance * abs(expected)


def doubles(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array).double() for array in arrays]


def statistics(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows.mean(0, dtype=np.float64), np.cov(rows.T.astype(np.float64))


def test_frechet_equals_torch_fidelity_and_pytorch_fid(pair: tuple[np.ndarray, np.ndarray]) -> None:
    def ours(fake: np.ndarray, real: np.ndarray) -> float:
        return frechet_distance(*statistics(fake), *statistics(real))

    def torch_fidelity(fake: np.ndarray, real: np.ndarray) -> float:
        both = [fid_features_to_statistics(features) for features in doubles(fake, real)]
        return fid_statistics_to_metric(*both, verbose=False)["frechet_inception_distance"]

    def pytorch_fid(fake: np.ndarray, real: np.ndarray) -> float:
        return calculate_frechet_distance(*statistics(fake), *statistics(real))

    agree(ours, torch_fidelity, pair, 1e-9)
    agree(ours, pytorch_fid, pair, 1e-9)


@pytest.mark.parametrize("key", ["mean", "std"])
def test_kid_equals_torch_fidelity_with_its_subsets(pair: tuple[np.ndarray, np.ndarray], key: str) -> None:
    def ours(fake: np.ndarray, real: np.ndarray) -> float:
        return getattr(kid(fake, real, subsets=7, subset_size=300), key)

    def torch_fidelity(fake: np.ndarray, real: np.ndarray) -> float:
        found = kid_features_to_metric(*doubles(fake, real), kid_subsets=7, kid_subset_size=300, verbose=False)
        return found[f"kernel_inception_distance_{key}"]

    agree(ours, torch_fidelity, pair, 1e-9)


@pytest.mark.parametrize("key", ["mean", "std"])
def test_inception_score_equals_torch_fidelity_with_its_order(pair: tuple[np.ndarray, np.ndarray], key: str) -> None:
    def ours(fake: np.ndarray, _: np.ndarray) -> float:
        return getattr(inception_score(fake), key)

    def torch_fidelity(fake: np.ndarray, _: np.ndarray) -> float:
        return isc_features_to_metric(*doubles(fake))[f"inception_score_{key}"]

    agree(ours, torch_fidelity, pair, 1e-9)


@pytest.mark.parametrize("key", ["precision", "recall"])
def test_precision_and_recall_equal_torch_fidelity(pair: tuple[np.ndarray, np.ndarray], key: str) -> None:
    def ours(fake: np.ndarray, real: np.ndarray) -> float:
        return precision_recall_density_coverage(fake, real)[key]

    def torch_fidelity(fake: np.ndarray, real: np.ndarray) -> float:
        return prc_features_to_metric(*doubles(fake, real), verbose=False)[key]

    agree(ours, torch_fidelity, pair)


@pytest.mark.parametrize("key", ["precision", "recall", "density", "coverage"])
def test_prdc_equals_the_prdc_package(pair: tuple[np.ndarray, np.ndarray], key: str) -> None:
    def ours(fake: np.ndarray, real: np.ndarray) -> float:
        return precision_recall_density_coverage(fake, real, precision_recall_k=5)[key]

    def prdc(fake: np.ndarray, real: np.ndarray) -> float:
        return float(compute_prdc(real.astype(np.float64), fake.astype(np.float64), nearest_k=5)[key])

    agree(ours, prdc, pair, 1e-6)


def test_metric_defaults_equal_torch_fidelity_and_prdc() -> None:
    from torch_fidelity.defaults import DEFAULTS

    ours = MetricOptions()
    assert (ours.kid_subsets, ours.kid_subset_size) == (DEFAULTS["kid_subsets"], DEFAULTS["kid_subset_size"])
    assert (ours.splits, ours.precision_recall_k) == (DEFAULTS["isc_splits"], DEFAULTS["prc_neighborhood"])
    assert ours.seed == DEFAULTS["rng_seed"]
    rows = np.random.default_rng(0).normal(size=(1200, 3))
    inputs = MetricInputs(features=rows, reference_features=rows + 0.1, logits=rows)
    assert inputs.prdc == precision_recall_density_coverage(rows, rows + 0.1)
