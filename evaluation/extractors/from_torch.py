"""Write a torch network as an extractor file: EfficientNet-Lite0, random convolutions, a DINOv2, your own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from artifacts.images.resolution import Resolution, height_and_width
from evaluation.errors import EvaluationError
from evaluation.extractors.extractor_export import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BuiltExtractor,
    require_packages,
    weights_sha256,
    write_extractor,
)
from evaluation.extractors.resize import RESIZES, Resize
from evaluation.metrics.result_names import invalid_name_reason
from evaluation.networks.random_convolutions import RandomConvolutions
from evaluation.output_files import check_writable

EFFICIENTNET_SIDES = (224, 160)  # pixels; the first is the network's own
MAX_RANDOM_SIDE = 256


class Normalized(nn.Module):
    """A network on (pixels - mean) / std, pixels in [0, 1], of the file's preprocessed input [N, C, S, S].

    The preprocessing computes x = (255 · pixels - offset) / scale, with the resize's offset and scale.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], how: Resize) -> None:
        """Wrap a network; `mean` and `std` are of pixels in [0, 1], 1 or 3 numbers."""
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))
        self.shift, self.range = how.offset / how.scale, 255.0 / how.scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's features."""
        features: Tensor = self.network(((x + self.shift) / self.range - self.mean) / self.std)
        return features


def build_extractor(
    network: nn.Module,
    output: Path | str,
    *,
    name: str,
    side: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    resize: str = "linear-antialias",
) -> BuiltExtractor:
    """Write a network, float32 [N, 3, side, side] → float32 [N, d], as an extractor file.

    The file is compared with torch before it is written.

    Args:
        network: The network.
        output: The file to write.
        name: Letters, digits, - and _, not reserved. It names the metrics: `dinov2` gives `fd_dinov2_10k`.
        side: Height and width of the network's input, in pixels.
        mean: Mean by color of pixels in [0, 1], 1 or 3 numbers; default: ImageNet's.
        std: Standard deviation by color, likewise.
        resize: A key of `RESIZES`.

    Returns:
        The file with its metadata.

    Raises:
        EvaluationError: If the network has another shape, the name or resize is not valid, or the export differs.
    """
    output = Path(output)
    if reason := invalid_name_reason(name):
        raise EvaluationError(reason)
    if resize not in RESIZES:
        raise EvaluationError(f"there is no resize {resize!r}; there are {', '.join(RESIZES)}")
    check_writable(output)
    if len(mean) not in (1, 3) or len(std) not in (1, 3) or min(std) <= 0:
        raise EvaluationError(f"mean and std are 1 or 3 numbers each, std above 0, not {list(mean)} and {list(std)}")
    return _build(network, output, name=name, side=side, mean=mean, std=std, resize=resize)


def build_efficientnet_lite0(output: Path, side: int = EFFICIENTNET_SIDES[0]) -> BuiltExtractor:
    """Write EfficientNet-Lite0 with ImageNet's weights as an extractor file.

    Args:
        output: The file to write.
        side: Height and width that images are resized to, as PIL's bicubic does: 224 or 160. It is part of the name.

    Returns:
        The file with its metadata.

    Raises:
        EvaluationError: If the side is another one, the packages of the extra `imagenet` are missing, or the weights
            are not the published ones.
    """
    if side not in EFFICIENTNET_SIDES:
        raise EvaluationError(f"EfficientNet-Lite0 takes {' or '.join(map(str, EFFICIENTNET_SIDES))} px, not {side}")
    check_writable(output)
    require_packages("imagenet")
    from evaluation.networks.efficientnet_lite import MEAN, STD, WEIGHTS_SHA256, EfficientNetLite0

    return _build(
        EfficientNetLite0(side),
        output,
        name=f"efficientnet_lite0_{side}",
        side=side,
        mean=(MEAN,),
        std=(STD,),
        resize="clean",
        weights_hash=WEIGHTS_SHA256,
    )


def build_random_convolutions(output: Path, resolution: Resolution = 32, channels: int = 3) -> BuiltExtractor:
    """Write three convolutions of fixed random weights as an extractor file.

    Args:
        output: The file to write.
        resolution: What images are resized to; that of the images resizes nothing.
        channels: 1 to look at gray images, 3 at RGB.

    Returns:
        The file with its metadata.

    Raises:
        EvaluationError: If the resolution or the channels are not valid.
    """
    if not all(4 <= side <= MAX_RANDOM_SIDE for side in height_and_width(resolution)) or channels not in (1, 3):
        raise EvaluationError(
            f"random convolutions take 4 to {MAX_RANDOM_SIDE} px and 1 or 3 channels, not {resolution} px and "
            f"{channels}"
        )
    check_writable(output)
    return _build(
        RandomConvolutions(channels),
        output,
        name="random_convolutions",
        side=resolution,
        mean=(0.5,),
        std=(0.5,),
        resize="linear-antialias",
        channels=channels,
    )


def _build(
    network: nn.Module,
    output: Path,
    *,
    name: str,
    side: Resolution,
    mean: Sequence[float],
    std: Sequence[float],
    resize: str,
    channels: int = 3,
    weights_hash: str | None = None,
) -> BuiltExtractor:
    """Write a network; see `build_extractor`. `weights_hash` is by default that of the network's state."""
    whole = Normalized(network, mean, std, RESIZES[resize]).eval()
    images = np.random.default_rng(0).integers(0, 256, (5, *height_and_width(side), channels), dtype=np.uint8)
    images[0] = 255
    # Computed from the pixels, so that a mistake in the preprocessing or in Normalized is not repeated here. Every
    # resize is the identity at this size.
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        features = network.eval()((pixels - whole.mean) / whole.std)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise EvaluationError(f"a network for an extractor returns one tensor [N, d] for N images, not {shape}")
    metadata: dict[str, Any] = {
        "name": name,
        "network": type(network).__name__,
        "metric": f"fd_{name}",
        "weights_sha256": weights_hash or weights_sha256(network),
        "resize": resize,
        "resolution": side,
        "channels": channels,
        "versions": {"torch": torch.__version__},
    }
    return write_extractor(whole, metadata, output, resize=resize, images=images, expected=[features])
