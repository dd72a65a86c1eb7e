"""Quality during training: a Fréchet distance and a recall in features that are cheap to compute.

The features are those of `evaluation extractor random-convolutions`. Their values follow a run and choose its best
checkpoint; report results of `evaluation score` instead.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from artifacts.latents import ZDistribution
from evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from evaluation.metrics.prdc import PRECISION_RECALL_K, precision_recall_density_coverage
from evaluation.networks.random_convolutions import RandomConvolutions
from trainer.networks import Generator
from trainer.quality.memorization import MAX_IMAGES, Memorization
from trainer.reports import image_grids

BATCH = 128
MIN_FOR_RECALL = PRECISION_RECALL_K + 1  # images: each needs K neighbors


class RandomFeatures:
    """Random convolutions of images in bytes."""

    dim = RandomConvolutions.dim

    def __init__(self, channels: int, device: torch.device) -> None:
        """Create the network, which is the same for every run, so that runs compare."""
        self.network = RandomConvolutions(channels).to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return features float32 [N, 256] of images uint8 [N, H, W, C]."""
        pixels = torch.from_numpy(np.array(images)).to(self.device).permute(0, 3, 1, 2).float()
        features: np.ndarray = self.network(pixels / 127.5 - 1.0).cpu().numpy()
        return features


class ProxyMetrics:
    """Measures a generator against a fixed choice of the images it trains on."""

    def __init__(
        self,
        images: np.ndarray,
        count: int,
        *,
        seed: int,
        z_distribution: ZDistribution,
        device: torch.device,
        held_out: np.ndarray | None = None,
    ) -> None:
        """Extract the features of real images.

        Args:
            images: The images that the generator trains on, uint8 [N, H, W, C].
            count: How many of them, or all, to compare with; as many fakes are measured.
            seed: Decides which.
            z_distribution: The distribution of the generator's latents.
            device: Where features are computed.
            held_out: Images that it does not train on, for memorization, of which `count` are used.
        """
        self.z_distribution = z_distribution
        self.extract = RandomFeatures(images.shape[3], device)
        chosen = _choose(len(images), count, seed)
        self.reals = self._features(images[chosen])
        self.real_statistics = _statistics(self.reals)
        self.memorization: Memorization | None = None
        if len(images) <= MAX_IMAGES:
            train = self.reals if len(chosen) == len(images) else self._features(images)
            if held_out is not None:
                held_out = self._features(held_out[_choose(len(held_out), count, seed)])
            self.memorization = Memorization.create(train, self.reals, held_out)

    def measure(self, G_ema: Generator) -> dict[str, float]:
        """Measure the images of seeds 0 … count - 1.

        Returns:
            "quality/frechet", "quality/seconds"; with at least MIN_FOR_RECALL images "quality/recall"; and for a small
            set what `Memorization.measure` returns.
        """
        started = time.perf_counter()
        fakes = []
        for start in range(0, len(self.reals), BATCH):
            seeds = range(start, min(start + BATCH, len(self.reals)))
            fakes.append(self.extract(image_grids.sample(G_ema, seeds, self.z_distribution, BATCH)))
        features = np.concatenate(fakes)
        statistics, real = _statistics(features), self.real_statistics
        found = {"quality/frechet": frechet_distance(statistics.mu, statistics.sigma, real.mu, real.sigma)}
        if len(features) >= MIN_FOR_RECALL:
            # Only recall is used. With density's larger k the function would need more images.
            scores = precision_recall_density_coverage(features, self.reals, density_coverage_k=PRECISION_RECALL_K)
            found["quality/recall"] = scores["recall"]
        if self.memorization is not None:
            found |= self.memorization.measure(features)
        return found | {"quality/seconds": time.perf_counter() - started}

    def _features(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate([self.extract(images[at : at + BATCH]) for at in range(0, len(images), BATCH)])


def _choose(n: int, count: int, seed: int) -> np.ndarray:
    """Return the indices of `count` of n images, or of all, ascending."""
    draws = np.random.Philox(key=seed).random_raw(n)
    return np.sort(np.argsort(draws, kind="stable")[:count])


def _statistics(features: np.ndarray) -> FeatureStatistics:
    statistics = FeatureStatistics(features.shape[1])
    statistics.update(features)
    return statistics
