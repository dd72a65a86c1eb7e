"""Score images from Python: an array, a function, and your own metric, against the digits that scikit-learn holds.

    python examples/score_from_python.py classifier.onnx

Make the extractor first: `evaluation extractor classifier --images digits -o classifier.onnx`.
"""

from __future__ import annotations

import sys

import numpy as np

import evaluation
from evaluation.metrics import Metric, MetricInputs, MetricValue
from imagesets import load


def mean_shift(inputs: MetricInputs) -> MetricValue:
    """Return the distance between the mean features of both sides."""
    return MetricValue(float(np.linalg.norm(inputs.get("mu") - inputs.get("reference_mu"))))


MEAN_SHIFT = Metric(
    "mean_shift",
    "Distance between the mean features",
    "lower",
    frozenset({"statistics", "reference_statistics"}),
    mean_shift,
)


def main(extractor: str) -> None:
    """Score blurred digits and noise; print the scores."""
    real = load("digits@train").images
    blurred = ((real.astype(np.uint16) + np.roll(real, 1, axis=1)) // 2).astype(np.uint8)
    metrics = ["fid", "recall", MEAN_SHIFT]
    scores = evaluation.score(blurred, "digits@test", metrics, extractor=extractor)
    print(scores)
    for name, score in scores.items():
        print(f"{name}: {score:.3f}, real images {score.baseline}")

    def noise(seeds: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng(seed).integers(0, 256, real.shape[1:], np.uint8) for seed in seeds])

    print("noise:", evaluation.fid(noise, "digits@test", extractor=extractor, num_images=500))


if __name__ == "__main__":
    main(*sys.argv[1:])
