"""Images side by side in one picture, and the sizes that picture formats can hold."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]

MAX_SIDE = {"image/webp": 16383, "image/jpeg": 65500, "image/gif": 65535, "image/png": 2**31 - 1}  # libraries' limits


@dataclass(frozen=True)
class Sheet:
    """A grid of n images [height, width] in reading order, `padding` pixels between them."""

    n: int
    height: int
    width: int
    columns: int
    padding: int = 0

    @property
    def rows(self) -> int:
        return math.ceil(self.n / self.columns)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return (
            self.rows * (self.height + self.padding) - self.padding,
            self.columns * (self.width + self.padding) - self.padding,
        )

    def of(self, images: Images) -> Images:
        """Images [n, height, width, C] → [H, W, C]; padding and unused places are black."""
        n, height, width, channels = images.shape
        down, across = height + self.padding, width + self.padding
        canvas = np.zeros((self.rows * self.columns, down, across, channels), np.uint8)
        canvas[:n, :height, :width] = images
        whole = canvas.reshape(self.rows, self.columns, down, across, channels).swapaxes(1, 2)
        high, wide = self.size
        return whole.reshape(self.rows * down, self.columns * across, channels)[:high, :wide]


def enlarged(images: Images, scale: int) -> Images:
    """[N, H, W, C] → [N, H·scale, W·scale, C], each pixel a square."""
    if scale == 1:
        return images
    n, height, width, channels = images.shape
    result = np.empty((n, height * scale, width * scale, channels), np.uint8)
    for large, image in zip(result, images, strict=True):  # so that the interpreter's lock is given away in between
        large[:] = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return result
