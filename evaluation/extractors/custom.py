"""Any torch network as an extractor file: a DINOv2, a CLIP image tower, one that you trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.atomic import check_writable
from evaluation.errors import EvaluationError
from evaluation.extractors.builder import extractor_model, seal, verify_and_write, weights_sha256
from evaluation.extractors.classifier import Built
from evaluation.extractors.resize import RESIZES, Resize
from evaluation.metrics.names import fault_of_name

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalised(nn.Module):
    """[N, 3, S, S] as the file's preamble gives it → the network on (pixels - mean) / std, pixels in [0, 1].

    The preamble's x is (255 · pixels - offset) / scale, with the resize's own offset and scale.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], how: Resize) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))
        self.shift, self.range = how.offset / how.scale, 255.0 / how.scale

    def forward(self, x: Tensor) -> Tensor:
        return self.network(((x + self.shift) / self.range - self.mean) / self.std)


def build_own(
    network: nn.Module,
    output: Path | str,
    *,
    name: str,
    side: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    resize: str = "linear-antialias",
) -> Built:
    """Write `network`, float32 [N, 3, side, side] → float32 [N, d], as an extractor file.

    `name` (letters, digits, - and _, not reserved) names the metrics in its features: `dinov2` gives
    `fd_dinov2_10k`. `mean` and `std` are of pixels in [0, 1], by colour; `resize` is one of `RESIZES`. The file is
    compared with torch before it is written. Raises EvaluationError for a network of another shape, a name or resize
    that is none, or an export that differs.
    """
    output = Path(output)
    if fault := fault_of_name(name):
        raise EvaluationError(fault)
    if resize not in RESIZES:
        raise EvaluationError(f"there is no resize {resize!r}; there are {', '.join(RESIZES)}")
    check_writable(output)
    if len(mean) not in (1, 3) or len(std) not in (1, 3) or min(std) <= 0:
        raise EvaluationError(f"mean and std are 1 or 3 numbers each, std above 0, not {list(mean)} and {list(std)}")
    whole = Normalised(network, mean, std, RESIZES[resize]).eval()
    images = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), dtype=np.uint8)
    images[0] = 255
    # From the pixels themselves, so that a mistake in the preamble or in Normalised is not repeated here. Every
    # resize is the identity at this size.
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        features = network.eval()((pixels - whole.mean) / whole.std)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise EvaluationError(f"a network for an extractor gives one tensor [N, d] for N images, not {shape}")
    metadata: dict[str, Any] = {
        "name": name,
        "network": type(network).__name__,
        "metric": f"fd_{name}",
        "weights_sha256": weights_sha256(network),
        "resize": resize,
        "resolution": side,
        "channels": 3,
        "versions": {"torch": torch.__version__},
    }
    model = extractor_model(whole, resize, 3, side, logits=False)
    seal(model, metadata)
    return Built(output, metadata, verify_and_write(model, (features.numpy(),), images, output))
