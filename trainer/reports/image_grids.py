"""Pictures of a generator: grids of uint8 images as PNG, and animations of grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from artifacts.files import atomic_path
from artifacts.latents import ZDistribution, seeds_to_latents
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
        latents, y = seeds_to_latents(part, G.z_dim, z_distribution, num_classes=G.classes)
        z = torch.from_numpy(latents).to(device)
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


def side_by_side(left: np.ndarray, right: np.ndarray, gap: int = 12) -> np.ndarray:
    """Two pictures uint8 [H, W, C] of one height as one, a white bar of `gap` pixels between them."""
    bar = np.full((left.shape[0], gap, left.shape[2]), 255, dtype=np.uint8)
    return np.concatenate([left, bar, right], axis=1)


def saturated(images: np.ndarray) -> float:
    """The share of values of uint8 images that are 0 or 255."""
    return float(((images == 0) | (images == 255)).mean())


def as_image(picture: np.ndarray, min_side: int) -> Image.Image:
    """uint8 [H, W, C] for Pillow, enlarged by a whole factor where it is smaller than `min_side`."""
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    factor = max(1, -(-min_side // max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def write_png(picture: np.ndarray, path: Path, min_side: int = 256) -> None:
    """Write uint8 [H, W, C] as PNG, enlarged by a whole factor where it is smaller than `min_side`. Atomic."""
    with atomic_path(path) as partial:
        as_image(picture, min_side).save(partial, format="PNG", optimize=True)


def write_animation(frames: Sequence[Image.Image], path: Path, fps: float = 8.0) -> None:
    """Write frames as .gif or .webp, endless, the last one held for a second. Atomic."""
    durations = [round(1000 / fps)] * (len(frames) - 1) + [1000]
    first, *rest = [frame.convert("RGB") for frame in frames]
    options: dict[str, Any] = {"lossless": False, "quality": 85} if path.suffix == ".webp" else {"optimize": True}
    with atomic_path(path) as partial:
        first.save(
            partial,
            format=path.suffix[1:].upper(),
            save_all=True,
            append_images=rest,
            duration=durations if rest else durations[0],
            loop=0,
            **options,
        )
