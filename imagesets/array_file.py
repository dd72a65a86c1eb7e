"""A source that is an array in memory already."""

from __future__ import annotations

import numpy as np

from imagesets.types import Items


def array_items(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    resolution: int,
    channels: int,
    resize: str,
) -> Items:
    """Images uint8 [N, h, w] or [N, h, w, 3] and labels [N] as Items of `resolution` px and `channels`.

    `resize` is one of `pixels.fit`'s, and belongs into the recipe as well.
    """
    from PIL import Image

    from imagesets.decode import fit

    return Items(
        count=len(images),
        resolution=resolution,
        channels=channels,
        decode=lambda i: fit(Image.fromarray(images[i]), resolution, channels, resize),  # type: ignore[arg-type]
        describe=lambda i: f"image {i}",
        labels=labels.astype(np.int64),
        class_names=class_names,
    )
