"""Pictures of a generator: grids of uint8 images as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.atomic import replacing
from trainer.latents import ZDistribution, labels, latents
from trainer.networks import Generator


def to_pixels(images: Tensor) -> Tensor:
    """float [N, C, H, W] in [-1, 1] → uint8 [N, H, W, C]: round((x + 1) · 127.5), clipped to [0, 255].

    The one place where images become pixels: the exported graph is traced through it.
    """
    return ((images + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def sample(G: Generator, seeds: Sequence[int], z_distribution: ZDistribution, batch: int = 64) -> np.ndarray:
    """The images of seeds, uint8 [N, H, W, C], from a generator in evaluation mode: those the service answers."""
    device = next(G.parameters()).device
    parts = []
    for start in range(0, len(seeds), batch):
        part = seeds[start : start + batch]
        z = torch.from_numpy(latents(part, G.z_dim, z_distribution)).to(device)
        y = labels(part, G.z_dim, G.classes)
        parts.append(to_pixels(G(z, None if y is None else torch.from_numpy(y).to(device))).cpu())
    return torch.cat(parts).numpy()


def grid(images: np.ndarray, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """Images uint8 [N, H, W, C] as one picture, uint8 [H', W', C]; black gaps; square by default."""
    n, h, w, c = images.shape
    columns = min(columns or int(np.ceil(np.sqrt(n))), n)
    rows = -(-n // columns)
    sheet = np.zeros((rows * (h + gap) + gap, columns * (w + gap) + gap, c), dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = gap + index // columns * (h + gap), gap + index % columns * (w + gap)
        sheet[top : top + h, left : left + w] = image
    return sheet


def write_png(picture: np.ndarray, path: Path, min_side: int = 256) -> None:
    """Write uint8 [H, W, C] as PNG, enlarged by a whole factor where it is smaller than `min_side`. Atomic."""
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    factor = max(1, -(-min_side // max(image.size)))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    with replacing(path) as partial:
        image.save(partial, format="PNG", optimize=True)
