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
from artifacts.images.alpha import RGBA, over_white
from artifacts.latents import ZDistribution, seeds_to_latents
from trainer.networks import Generator


def to_uint8(images: Tensor) -> Tensor:
    """Convert float [N, C, H, W] in [-1, 1] to uint8 [N, H, W, C]: round((x + 1) · 127.5), clipped to [0, 255].

    This is the only conversion to pixels: the exported graph is traced through it.
    """
    return ((images + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def sample(G: Generator, seeds: Sequence[int], z_distribution: ZDistribution, batch: int = 64) -> np.ndarray:
    """Return the images of seeds as the service returns them.

    Args:
        G: A generator in evaluation mode.
        seeds: One seed per image.
        z_distribution: The distribution of its latents.
        batch: Images per forward pass.

    Returns:
        uint8 [N, H, W, C].
    """
    device = next(G.parameters()).device
    parts = []
    for start in range(0, len(seeds), batch):
        part = seeds[start : start + batch]
        latents, labels = seeds_to_latents(part, G.z_dim, z_distribution, num_classes=G.classes)
        y = None if labels is None else torch.from_numpy(labels).to(device)
        parts.append(to_uint8(G(torch.from_numpy(latents).to(device), y)).cpu())
    return torch.cat(parts).numpy()


def grid(
    images: Sequence[np.ndarray] | np.ndarray,
    columns: int | None = None,
    gap: int = 2,
    *,
    border: int | None = None,
    color: int | tuple[int, int, int] = 0,
) -> np.ndarray:
    """Return images as one picture, in rows.

    Args:
        images: uint8 [H, W, C] each; a row is as high, and a column as wide, as its largest image.
        columns: Images per row; as many as rows by default.
        gap: Pixels between images.
        border: Pixels around them; `gap` by default.
        color: The color of gaps and border; 0 is transparent in RGBA.

    Returns:
        uint8 [H', W', C].
    """
    border = gap if border is None else border
    columns = min(columns or int(np.ceil(np.sqrt(len(images)))), len(images))
    heights = [max(image.shape[0] for image in images[at : at + columns]) for at in range(0, len(images), columns)]
    widths = [max(image.shape[1] for image in images[at::columns]) for at in range(columns)]
    tops, lefts = (np.cumsum([border, *(side + gap for side in sides)]) for sides in (heights, widths))
    size = (tops[-1] - gap + border, lefts[-1] - gap + border, images[0].shape[2])
    sheet = np.full(size, color, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = tops[index // columns], lefts[index % columns]
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def side_by_side(*pictures: np.ndarray, gap: int = 12) -> np.ndarray:
    """Return pictures uint8 [H, W, C] as one, white between them, each enlarged by a whole factor to the tallest."""
    tallest = max(picture.shape[0] for picture in pictures)
    enlarged = [
        picture.repeat(factor, axis=0).repeat(factor, axis=1)
        for picture in pictures
        for factor in [tallest // picture.shape[0]]
    ]
    return grid(enlarged, len(enlarged), gap, border=0, color=255)


def saturated(images: np.ndarray) -> float:
    """Return the share of values of uint8 images that are 0 or 255; of RGBA images, of the visible pixels' colors."""
    if images.shape[-1] == RGBA:
        images = images[images[..., 3] > 0][:, :3]
        return float(((images == 0) | (images == 255)).mean()) if images.size else 0.0
    return float(((images == 0) | (images == 255)).mean())


def to_pil(picture: np.ndarray, min_side: int = 0) -> Image.Image:
    """Return uint8 [H, W, C] for Pillow, enlarged by a whole factor where it is smaller than `min_side`."""
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    factor = max(1, -(-min_side // max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB, drawn over white where it is transparent."""
    return Image.fromarray(over_white(np.asarray(image))) if image.mode == "RGBA" else image.convert("RGB")


def write_png(picture: np.ndarray, path: Path, min_side: int = 256) -> None:
    """Write uint8 [H, W, C] as PNG, enlarged by a whole factor where it is smaller than `min_side`. Atomic."""
    with atomic_path(path) as partial:
        to_pil(picture, min_side).save(partial, format="PNG", optimize=True)


def write_animation(frames: Sequence[Image.Image], path: Path, fps: float = 8.0) -> None:
    """Write frames as an endless .gif or .webp that holds the last frame for a second. Atomic."""
    durations = [round(1000 / fps)] * (len(frames) - 1) + [1000]
    first, *rest = [to_rgb(frame) for frame in frames]
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
