"""Score images in the features of your own network: `python examples/custom_extractor.py OUTPUT.onnx`.

The network here is a small CNN with random weights, so that the example runs anywhere. Put yours in its place: a
DINOv2, a CLIP image tower, a classifier of your domain. The written file works with every command, too:

    evaluation score generator.onnx --reference digits@test --extractor OUTPUT.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import imagesets
from evaluation.extractors import load_extractor
from evaluation.extractors.from_torch import build_extractor
from evaluation.metrics import result_name
from evaluation.metrics.frechet import FeatureStatistics, frechet_distance


def make_network() -> nn.Module:
    """Return a network of float32 [N, 3, 32, 32], normalized, → features float32 [N, 32]."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, stride=2),
        nn.GELU(),
        nn.Conv2d(32, 32, 5, stride=2),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def main(output: Path) -> None:
    """Write the extractor and print the Fréchet distance between training and test images."""
    # `name` names the metrics; `mean` and `std` are those that the network was trained with, of pixels in [0, 1].
    built = build_extractor(make_network(), output, name="random-cnn", side=32, mean=[0.5], std=[0.5])
    extractor = load_extractor(built.path)
    print(f"{built.path}: {extractor.dim} features, ONNX Runtime differs from torch by {built.export_error:.0e}")

    statistics = []
    for split in ("train", "test"):
        images = imagesets.load(f"digits@{split}").images  # uint8 [N, 8, 8, 1]; the file resizes and makes them RGB
        statistics.append(FeatureStatistics.from_features(extractor(images).features))
    train, test = statistics
    distance = frechet_distance(train.mu, train.sigma, test.mu, test.sigma)
    print(f"{result_name('fid', extractor.metric, train.n)} = {distance:.5f}, against {test.n} test images")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
