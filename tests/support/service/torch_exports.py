"""Generators as others export them from torch, in each of its ways."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn


class ExamplesDCGAN(nn.Module):
    """PyTorch examples' DCGAN generator, thin: [N, z, 1, 1] → [N, C, 16, 16] in [-1, 1]."""

    def __init__(self, z_dim: int = 100, channels: int = 3, width: int = 8) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(z_dim, width * 2, 4, 1, 0, bias=False),
            nn.BatchNorm2d(width * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(width * 2, width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
            nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.main(z)


def dcgan(seed: int = 0, **sizes: int) -> ExamplesDCGAN:
    """One that has seen batches, so that its running statistics are not those of a new one."""
    torch.manual_seed(seed)
    G = ExamplesDCGAN(**sizes)
    with torch.no_grad():
        for _ in range(3):
            G(torch.randn(8, sizes.get("z_dim", 100), 1, 1))
        G.main[6].weight *= 20  # pictures with contrast, not the grey of a new network
    return G.eval()


def export_by_tracing(path: Path, G: nn.Module, batch: int = 2, dynamic: bool = True, **how: Any) -> Path:
    """torch.onnx.export's old way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            G,
            (torch.randn(batch, 100, 1, 1),),
            str(path),
            input_names=["z"],
            output_names=["images"],
            dynamic_axes={"z": {0: "batch"}, "images": {0: "batch"}} if dynamic else None,
            dynamo=False,
            **{"opset_version": 17} | how,
        )
    return path


def export_by_dynamo(path: Path, G: nn.Module) -> Path:
    """torch.onnx.export's new way as it is by itself: its names, and the weights in a file beside."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            G,
            (torch.randn(2, 100, 1, 1),),
            str(path),
            dynamic_shapes={"z": {0: torch.export.Dim("batch", min=1)}},
            dynamo=True,
            verbose=False,
        )
    return path
