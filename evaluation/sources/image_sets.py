"""The images of an image set."""

from __future__ import annotations

from evaluation.sources.arrays import IMAGE_SET_KEYS, ArraySource
from imagesets import ImageSet


class ImageSetSource(ArraySource):
    """An image set: a named dataset, or a folder or zip of images."""

    def __init__(self, images: ImageSet) -> None:
        description = {
            "kind": "image set",
            "name": images.name,
            **{key: images.info[key] for key in IMAGE_SET_KEYS},
            "skipped": len(images.info.get("skipped", ())),
            "modes": images.info.get("modes"),
        }
        super().__init__(images.images, description, images.labels, images.class_names)
