from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.metrics.prdc import precision_recall_density_coverage
from tests.support.trainer.generators import Replays
from trainer import networks
from trainer.config import loading
from trainer.training.proxy_metrics import ProxyMetrics, RandomFeatures

CPU = torch.device("cpu")
CONFIG = {"name": "x", "data": {"resolution": 8}, "model": {"z_dim": 4, "g_widths": [8], "d_widths": [8]}}


def smooth(n: int, seed: int) -> np.ndarray:
    """Soft blobs, uint8 [n, 16, 16, 1]."""
    rng = np.random.default_rng(seed)
    x, y = np.mgrid[0:16, 0:16]
    cx, cy, width = rng.uniform(3, 13, n), rng.uniform(3, 13, n), rng.uniform(2, 4, n)
    blobs = np.exp(
        -((x[None] - cx[:, None, None]) ** 2 + (y[None] - cy[:, None, None]) ** 2) / width[:, None, None] ** 2
    )
    return (255 * blobs).astype(np.uint8)[..., None]


def quality_of(fakes: np.ndarray, reals: np.ndarray) -> dict[str, float]:
    quality = ProxyMetrics(reals, len(reals), seed=0, z_distribution="normal", device=CPU)
    return quality.measure(Replays(fakes))


def test_measure_of_the_reals_is_perfect() -> None:
    reals = smooth(300, 0)
    result = quality_of(reals, reals)
    assert result["quality/frechet"] == pytest.approx(0, abs=1e-6)
    assert result["quality/recall"] == 1


def test_measure_ranks_similar_noise_and_collapsed_images() -> None:
    reals = smooth(300, 0)
    alike = quality_of(smooth(300, 1), reals)
    noise = quality_of(np.random.default_rng(0).integers(0, 256, reals.shape, dtype=np.uint8), reals)
    collapsed = quality_of(np.repeat(smooth(1, 1), 300, axis=0), reals)
    assert alike["quality/frechet"] < noise["quality/frechet"] / 10
    assert alike["quality/frechet"] < collapsed["quality/frechet"] / 10
    assert alike["quality/recall"] > 0.5 > collapsed["quality/recall"]


@pytest.mark.parametrize("shape", [(5, 4, 4, 1), (5, 28, 28, 1), (5, 32, 32, 3)])
def test_random_features_ignore_batch_and_global_seed(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    features = RandomFeatures(shape[3], CPU)(images)
    torch.manual_seed(5)
    again = np.concatenate([RandomFeatures(shape[3], CPU)(images[i : i + 1]) for i in range(5)])
    assert features.shape == (5, RandomFeatures.dim)
    np.testing.assert_allclose(features, again, rtol=1e-4, atol=1e-5)


def test_measure_leaves_the_random_state_unchanged() -> None:
    G, _ = networks.build(loading.parse(CONFIG))
    reals = smooth(40, 0)[:, :8, :8]
    before = torch.get_rng_state()
    ProxyMetrics(reals, 40, seed=0, z_distribution="normal", device=CPU).measure(G.eval())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("count", "has_recall"), [(2, False), (3, False), (4, True), (5, True)])
def test_measure_of_a_few_images_leaves_out_what_they_cannot_give(count: int, has_recall: bool) -> None:
    found = quality_of(smooth(count, 1), smooth(count, 0))
    assert np.isfinite(found["quality/frechet"])
    assert ("quality/recall" in found) == has_recall


def test_measure_recall_equals_the_evaluations() -> None:
    reals, fakes = smooth(60, 0), smooth(60, 1)
    extract = RandomFeatures(1, CPU)
    expected = precision_recall_density_coverage(extract(fakes), extract(reals))["recall"]
    assert quality_of(fakes, reals)["quality/recall"] == expected
