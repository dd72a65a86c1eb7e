"""Score images from Python: an array, a function, and your own metric, against the digits that scikit-learn holds.

    python examples/score_from_python.py classifier.onnx

Make the extractor first: `evaluation extractor classifier --images digits -o classifier.onnx`.
"""

from __future__ import annotations

import sys

import numpy as np

import evaluation
from evaluation.metrics import Evidence, Metric, Outcome
from imagesets import load_image_set

MEAN_SHIFT = Metric(
    "mean_shift",
    "Distance between the mean features",
    "lower",
    frozenset({"statistics", "reference_statistics"}),
    lambda inputs: Outcome(float(np.linalg.norm(inputs.mu - inputs.reference_mu))),
    "mean_shift",
    "mean_shift_{}",
)


def main(extractor: str) -> None:
    """Score blurred digits and noise; print the scores."""
    real = load_image_set("digits@train").images
    blurred = ((real.astype(np.uint16) + np.roll(real, 1, axis=1)) // 2).astype(np.uint8)
    scores = evaluation.score(blurred, "digits@test", ["fid", "kid", MEAN_SHIFT], extractor=extractor, kid_subset_size=100)
    print(scores)
    for name, score in scores.items():
        print(f"{name}: {score:.3f}, real images {score.baseline}")

    def noise(seeds: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng(seed).integers(0, 256, real.shape[1:], np.uint8) for seed in seeds])

    print("noise:", evaluation.fid(noise, "digits@test", extractor=extractor, num_images=500))


if __name__ == "__main__":
    main(*sys.argv[1:])
