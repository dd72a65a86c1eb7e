"""FID's Inception, the 2015 TensorFlow network in its PyTorch port, as an extractor file.

It differs from torchvision's in three ways, which the port's author documents as TensorFlow's: average pools do not
count the padding, the last block pools by maximum, and there are 1008 classes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import inception as blocks

from artifacts.files import LFS_HINT, is_lfs_pointer_file
from artifacts.resources import available_cpus
from evaluation.errors import EvaluationError
from evaluation.extractors.extractor import FID_NETWORK, FID_WEIGHTS_FILE, FID_WEIGHTS_SHA256, weights_path
from evaluation.extractors.extractor_export import BuiltExtractor, write_extractor
from evaluation.output_files import atomic_output, check_writable

WEIGHTS_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FID_WEIGHTS_FILE}"
WEIGHTS_SHA256_PREFIX = "6726825d"
SIDE = 299
# With the published weights: FID with TensorFlow's or torch's bilinear resize, clean-fid's with PIL's bicubic.
METRICS = {"tf1": "fid", "torch": "fid", "clean": "clean_fid"}
RESIZE_NAMES = {
    "tf1": "tf1 (linear, asymmetric, (x-128)/128; as torch-fidelity)",
    "torch": "torch (linear, half-pixel, x/127.5-1; as pytorch-fid)",
    "clean": "clean (PIL bicubic antialiased, (x-128)/128; as clean-fid)",
}


def _pool(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _InceptionA(blocks.InceptionA):  # type: ignore[misc]  # torchvision has no types
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(_pool(x)),
        ]


class _InceptionC(blocks.InceptionC):  # type: ignore[misc]  # torchvision has no types
    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(_pool(x)),
        ]


class _InceptionE(blocks.InceptionE):  # type: ignore[misc]  # torchvision has no types
    """The last block of the 2015 network pools by maximum, the one before it by average."""

    def __init__(self, in_channels: int, maximum: bool) -> None:
        super().__init__(in_channels)
        self.maximum = maximum

    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, stride=1, padding=1) if self.maximum else _pool(x)
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], 1),
            torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1),
            self.branch_pool(pooled),
        ]


class FidInception(blocks.Inception3):  # type: ignore[misc]  # torchvision has no types
    """The network: [N, 3, 299, 299] in [-1, 1] → features [N, 2048], logits [N, 1008].

    The logits omit the last layer's bias, as the Inception Score's authors and torch-fidelity (`logits_unbiased`) do;
    the bias would change the score.
    """

    def __init__(self) -> None:
        """Create the network without its published weights."""
        super().__init__(num_classes=1008, aux_logits=False, transform_input=False, init_weights=False)
        self.Mixed_5b = _InceptionA(192, pool_features=32)
        self.Mixed_5c = _InceptionA(256, pool_features=64)
        self.Mixed_5d = _InceptionA(288, pool_features=64)
        self.Mixed_6b = _InceptionC(768, channels_7x7=128)
        self.Mixed_6c = _InceptionC(768, channels_7x7=160)
        self.Mixed_6d = _InceptionC(768, channels_7x7=160)
        self.Mixed_6e = _InceptionC(768, channels_7x7=192)
        self.Mixed_7b = _InceptionE(1280, maximum=False)
        self.Mixed_7c = _InceptionE(2048, maximum=True)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits."""
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))  # 64 x 73 x 73
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))  # 192 x 35 x 35
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # 288 x 35 x 35
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))  # 768 x 17 x 17
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # 2048 x 8 x 8
        features = x.mean(dim=(2, 3))
        return features, functional.linear(features, self.fc.weight)


def build_inception(
    weights: Path | None, resize: str, output: Path, *, expected_sha256_prefix: str | None = WEIGHTS_SHA256_PREFIX
) -> BuiltExtractor:
    """Write Inception with one resize protocol as an extractor file.

    Args:
        weights: The file of weights; None uses the cached copy, which is downloaded first if it is missing.
        resize: `tf1`, `torch` or `clean`.
        output: The file to write.
        expected_sha256_prefix: Start of the sha256 of the weights; None accepts any weights.

    Returns:
        The file with its metadata. Its metric is `fid` or `clean_fid` only for the published weights.

    Raises:
        EvaluationError: If the weights are missing, altered or of another network.
    """
    if resize not in RESIZE_NAMES:
        raise EvaluationError(f"there is no resize {resize!r}; there are {', '.join(RESIZE_NAMES)}")
    check_writable(output)
    weights = weights or _download()
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise EvaluationError(f"cannot read the Inception weights at {weights}: {error.strerror}") from error
    if expected_sha256_prefix is not None and not digest.startswith(expected_sha256_prefix):
        raise EvaluationError(
            f"{weights} is not {FID_WEIGHTS_FILE}: its sha256 begins {digest[:8]}, not {expected_sha256_prefix}; "
            f"it may be truncated: fetch {WEIGHTS_URL} again"
        )
    network = load_network(weights)
    verified = digest == FID_WEIGHTS_SHA256
    metadata: dict[str, Any] = {
        "name": f"inception-{resize}",
        "network": FID_NETWORK,
        "metric": METRICS[resize] if verified else "fd_inception_unverified",
        "weights_sha256": digest,
        "resize": RESIZE_NAMES[resize],
        "resolution": SIDE,
        "channels": 3,
        "dataset": "imagenet",
        "versions": {"torch": torch.__version__},
    }
    # At 299 pixels every protocol's resize is the identity, so only the network is compared here.
    noise = np.random.default_rng(0).integers(0, 256, (3, 10, 10, 3), dtype=np.uint8)
    images = noise.repeat(30, axis=1).repeat(30, axis=2)[:, :SIDE, :SIDE]
    offset = 127.5 if resize == "torch" else 128.0
    with torch.no_grad():
        x = (torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() - offset) / offset
        expected = network(x)
    return write_extractor(network, metadata, output, resize=resize, images=images, expected=expected)


def load_network(weights: Path) -> FidInception:
    """Return the network with a state dict in pytorch-fid's layout, in eval mode; only tensors are unpickled."""
    network = FidInception()
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # torch.load raises many types for damaged files
        if is_lfs_pointer_file(weights):
            raise EvaluationError(f"{weights} is {LFS_HINT}") from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise EvaluationError(f"{weights} does not hold FID's Inception weights ({reason})") from error
    torch.set_num_threads(available_cpus())
    network.eval()
    return network


def _download() -> Path:
    """Return the cached weights, downloaded if they are missing."""
    path = weights_path()
    if path.is_file():
        return path
    import httpx

    absent = f"the Inception weights are missing: give --weights PATH, or put {FID_WEIGHTS_FILE} in {path.parent}"
    if os.environ.get("ATELIER_OFFLINE"):
        raise EvaluationError(f"{absent} ($ATELIER_OFFLINE forbids downloading)")
    try:
        with (
            httpx.stream("GET", WEIGHTS_URL, follow_redirects=True, timeout=30) as answer,
            atomic_output(path) as handle,
        ):
            answer.raise_for_status()
            digest = hashlib.sha256()
            for chunk in answer.iter_bytes():
                digest.update(chunk)
                handle.write(chunk)
            if not digest.hexdigest().startswith(WEIGHTS_SHA256_PREFIX):
                # Raised inside the block, so that a damaged copy is not kept for later runs.
                raise EvaluationError(
                    f"the download from {WEIGHTS_URL} is not {FID_WEIGHTS_FILE}: its sha256 begins "
                    f"{digest.hexdigest()[:8]}; give --weights PATH"
                )
    except httpx.HTTPError as error:
        raise EvaluationError(f"{absent} (the download failed: {str(error)[:100]})") from error
    return path
