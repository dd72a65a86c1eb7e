"""A source brought to another size by a named protocol, which its description tells."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from evaluation.sources.base import Draw, ImageBatch, ImageSource

# Pillow's antialiased bicubic on uint8, the resize that Parmar et al. (2022, arXiv:2104.11222) recommend.
PROTOCOL = "pil-bicubic"


class ResizedSource:
    """Another source's images at [side, side]."""

    def __init__(self, source: ImageSource, side: int) -> None:
        self._source, self._side = source, side
        height, width, channels = source.shape
        self.shape = (side, side, channels)
        self.seeded, self.class_names = source.seeded, source.class_names
        self.description = source.description | {"resized": {"from": [height, width], "by": PROTOCOL}}

    def limit(self) -> int | None:
        return self._source.limit()

    def batches(self, draw: Draw, start: int, stop: int, batch: int) -> Iterator[ImageBatch]:
        for got in self._source.batches(draw, start, stop, batch):
            # Images that are not as told pass by untouched: whoever asked for them refuses them.
            wrong = got.images.dtype != np.uint8 or got.images.shape[1:] != self._source.shape
            yield got if wrong else ImageBatch(resized(got.images, self._side), got.digest, got.labels)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 [N, H, W, C] → uint8 [N, side, side, C] by PROTOCOL."""
    from PIL import Image

    if images.shape[1:3] == (side, side):
        return images
    out = np.empty((len(images), side, side, images.shape[3]), np.uint8)
    for row, image in zip(out, images, strict=True):
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        row[:] = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)).reshape(row.shape)
    return out
