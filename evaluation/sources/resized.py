"""The images of any source at another size, and what a conversion changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from artifacts.images.alpha import RGBA
from artifacts.images.resolution import Resolution, height_and_width
from evaluation.sources.arrays import RESIZE_PROTOCOL
from evaluation.sources.base import ImageBatch, ImageSource, SeedRange
from evaluation.sources.image_sets import ImageSetSource


class ResizedSource:
    """Another source's images, resized by `RESIZE_PROTOCOL`, which the description names."""

    def __init__(self, source: ImageSource, resolution: Resolution) -> None:
        self._source, self._resolution = source, resolution
        height, width, channels = source.shape
        self.shape = (*height_and_width(resolution), channels)
        self.seeded, self.class_names, self.num_images = source.seeded, source.class_names, source.num_images
        self.description = source.description | {"resized": {"from": [height, width], "by": RESIZE_PROTOCOL}}

    def batches(self, seeds: SeedRange, start: int, stop: int, batch_size: int) -> Iterator[ImageBatch]:
        """Yield the other source's images, resized."""
        for batch in self._source.batches(seeds, start, stop, batch_size):
            # Images of an unexpected shape pass unchanged: the feature extraction rejects them with their shape.
            expected = batch.images.dtype == np.uint8 and batch.images.shape[1:] == self._source.shape
            yield ImageBatch(resize(batch.images, self._resolution), batch.digest, batch.labels) if expected else batch


def at_resolution(source: ImageSource, resolution: Resolution, what: str = "images") -> tuple[ImageSource, list[str]]:
    """Return the source's images at a resolution, and warnings that say what was resized and how."""
    (height, width, _), (new_height, new_width) = source.shape, height_and_width(resolution)
    if (height, width) != (new_height, new_width):
        sizes = f"from {height}x{width} to {new_height}x{new_width}"
        squeezed = "" if height * new_width == width * new_height else ", to another aspect ratio"
        text = f"the {what} were resized {sizes} ({RESIZE_PROTOCOL}){squeezed}, which affects the score"
        return ResizedSource(source, resolution), [text]
    if isinstance(source, ImageSetSource):
        crop, protocol = source.description["crop"], source.description["resize"]
        return source, [f"{what} of another size were resized to {height}x{width} (crop {crop}, {protocol})"]
    return source, []


def resize(images: np.ndarray, resolution: Resolution) -> np.ndarray:
    """Resize uint8 [N, H, W, C] to another resolution by `RESIZE_PROTOCOL`; colors of RGBA are weighted by alpha."""
    from PIL import Image

    height, width = height_and_width(resolution)
    if images.shape[1:3] == (height, width):
        return images
    resized = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    for row, image in zip(resized, images, strict=True):
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        row[:] = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).reshape(row.shape)
    return resized


def conversion_warnings(description: dict[str, Any], what: str) -> list[str]:
    """Return a warning if image files were converted from several modes, or from one with a palette or alpha.

    Files that are all RGB, or all grayscale, are compared as the report's `channels` states, without a warning.
    """
    modes = description.get("modes") or {}
    if set(modes) in (set(), {"RGB"}, {"L"}) or (set(modes) == {"RGBA"} and description["channels"] == RGBA):
        return []
    target = {1: "L", RGBA: "RGBA"}.get(description["channels"], "RGB")
    others = {mode: count for mode, count in modes.items() if mode != target}
    transparent = any("A" in mode or "a" in mode for mode in others) and target != "RGBA"  # LA, PA, …+transparency
    return [
        f"{sum(others.values())} of {sum(modes.values())} {what} were {'/'.join(others)} and were converted to {target}"
        + (", transparency laid over white" if transparent else "")
    ]
