"""Transparency: images uint8 [..., 4] are red, green, blue and alpha, straight (not premultiplied), alpha 255 opaque.

Formats and metrics without transparency get the images drawn over white, always by this function, so that real and
generated images are treated alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RGBA = 4  # channels


def over_white(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGBA images [..., 4] drawn over white, [..., 3]; images of other channels unchanged.

    Each value is round((c · a + 255 · (255 - a)) / 255).
    """
    if images.shape[-1] != RGBA:
        return images
    color, alpha = images[..., :3].astype(np.uint16), images[..., 3:].astype(np.uint16)  # at most 255² + 127 below
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
