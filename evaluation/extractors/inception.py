"""FID's Inception: the 2015 TensorFlow network in its PyTorch port, as an extractor file.

Its blocks differ from torchvision's in three ways: average pools do not count the padding, the last
block pools by maximum, and there are 1008 classes (the port's author documents each as TensorFlow's own).
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
from evaluation.atomic import check_writable, written_whole
from evaluation.errors import EvaluationError
from evaluation.extractors.builder import extractor_model, seal, verify_and_write
from evaluation.extractors.classifier import Built
from evaluation.extractors.extractor import FID_NETWORK, FID_WEIGHTS_SHA256

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
WEIGHTS_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{WEIGHTS_FILE}"
WEIGHTS_SHA256_PREFIX = "6726825d"
SIDE = 299
# The published weights' distance is FID with TensorFlow's or torch's bilinear, and clean-fid's with PIL's bicubic.
METRICS = {"tf1": "fid", "torch": "fid", "clean": "clean_fid"}
RESIZE_NAMES = {
    "tf1": "tf1 (linear, asymmetric, (x-128)/128; as torch-fidelity)",
    "torch": "torch (linear, half-pixel, x/127.5-1; as pytorch-fid)",
    "clean": "clean (PIL bicubic antialiased, (x-128)/128; as clean-fid)",
}


def _pool(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _InceptionA(blocks.InceptionA):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(_pool(x)),
        ]


class _InceptionC(blocks.InceptionC):
    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(_pool(x)),
        ]


class _InceptionE(blocks.InceptionE):
    """`maximum`: the last block of the 2015 network pools by maximum, the one before it by average."""

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


class FidInception(blocks.Inception3):
    """[N, 3, 299, 299] in [-1, 1] → features [N, 2048], logits [N, 1008].

    The logits are without the last layer's bias, as the Inception Score's authors left it out and torch-fidelity
    does (`logits_unbiased`): with it the score is another.
    """

    def __init__(self) -> None:
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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))  # 64 x 73 x 73
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))  # 192 x 35 x 35
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # 288 x 35 x 35
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))  # 768 x 17 x 17
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # 2048 x 8 x 8
        features = x.mean(dim=(2, 3))
        return features, functional.linear(features, self.fc.weight)


def build_inception(
    weights: Path | None,
    resize: str,
    output: Path,
    *,
    expected_sha256_prefix: str | None = WEIGHTS_SHA256_PREFIX,
    name: str | None = None,
) -> Built:
    """Write Inception with one resize protocol (`tf1`, `torch` or `clean`) as an extractor file.

    `weights` None: the cached copy, downloaded first if it is absent. The file's sha256 must begin with
    `expected_sha256_prefix`; None takes any weights. The file's metric is called `fid` only for the published ones.
    Raises EvaluationError, in one line, for weights that are absent, altered or of another network.
    """
    if resize not in RESIZE_NAMES:
        raise EvaluationError(f"there is no resize {resize!r}; there are {', '.join(RESIZE_NAMES)}")
    check_writable(output)
    weights = weights or _downloaded()
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise EvaluationError(f"cannot read the Inception weights at {weights}: {error.strerror}") from error
    if expected_sha256_prefix is not None and not digest.startswith(expected_sha256_prefix):
        raise EvaluationError(
            f"{weights} is not {WEIGHTS_FILE}: its sha256 begins {digest[:8]}, not {expected_sha256_prefix}; "
            f"it may be truncated: fetch {WEIGHTS_URL} again"
        )
    network = load_network(weights)
    verified = digest == FID_WEIGHTS_SHA256
    metadata: dict[str, Any] = {
        "name": name or f"inception-{resize}",
        "network": FID_NETWORK,
        "metric": METRICS[resize] if verified else "fd_inception_unverified",
        "weights_sha256": digest,
        "resize": RESIZE_NAMES[resize],
        "resolution": SIDE,
        "channels": 3,
        "dataset": "imagenet",
        "versions": {"torch": torch.__version__},
    }
    model = extractor_model(network, resize, 3, SIDE)
    seal(model, metadata)
    # At 299 pixels every protocol's resize is the identity: what is compared here is the network.
    noise = np.random.default_rng(0).integers(0, 256, (3, 10, 10, 3), dtype=np.uint8)
    images = noise.repeat(30, axis=1).repeat(30, axis=2)[:, :SIDE, :SIDE]
    offset = 127.5 if resize == "torch" else 128.0
    with torch.no_grad():
        x = (torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() - offset) / offset
        features, logits = network(x)
    difference = verify_and_write(model, (features.numpy(), logits.numpy()), images, output)
    return Built(output, metadata, difference)


def load_network(weights: Path) -> FidInception:
    """The network with a state dict in pytorch-fid's layout, in eval mode; nothing is unpickled but tensors."""
    network = FidInception()
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # torch.load's errors on damaged files are of many types
        if is_lfs_pointer_file(weights):
            raise EvaluationError(f"{weights} is {LFS_HINT}") from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise EvaluationError(f"{weights} does not hold FID's Inception weights ({reason})") from error
    torch.set_num_threads(available_cpus())
    return network.eval()


def _downloaded() -> Path:
    root = Path(os.environ.get("ATELIER_WEIGHTS") or Path.home() / ".cache/gan-atelier/weights").expanduser()
    path = root / WEIGHTS_FILE
    if path.is_file():
        return path
    import httpx

    absent = f"the Inception weights are not here: give --weights PATH, or put {WEIGHTS_FILE} in {root}"
    if os.environ.get("ATELIER_OFFLINE"):
        raise EvaluationError(f"{absent} ($ATELIER_OFFLINE forbids downloading)")
    try:
        with (
            httpx.stream("GET", WEIGHTS_URL, follow_redirects=True, timeout=30) as answer,
            written_whole(path) as handle,
        ):
            answer.raise_for_status()
            digest = hashlib.sha256()
            for chunk in answer.iter_bytes():
                digest.update(chunk)
                handle.write(chunk)
            if not digest.hexdigest().startswith(WEIGHTS_SHA256_PREFIX):
                # Raised here, nothing is kept: a damaged copy would be found again by every later run.
                raise EvaluationError(
                    f"what came from {WEIGHTS_URL} is not {WEIGHTS_FILE}: its sha256 begins "
                    f"{digest.hexdigest()[:8]}; give --weights PATH"
                )
    except httpx.HTTPError as error:
        raise EvaluationError(f"{absent} (the download failed: {str(error)[:100]})") from error
    return path
