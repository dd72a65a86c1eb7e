"""The images of an image set."""

from __future__ import annotations

from artifacts.images.resolution import resolution_of
from evaluation.errors import EvaluationError
from evaluation.sources.arrays import IMAGE_SET_KEYS, ArraySource
from imagesets import ImageSet
from imagesets.cache import VERIFY_UP_TO_BYTES, content_fingerprint


def checked_image_set(images: ImageSet) -> ImageSet:
    """Return an image set of a caller from Python; EvaluationError if its info is not that of its images.

    The features of real images are cached by their fingerprint, which a changed copy of a set would still have.
    """
    pixels, info = images.images, images.info
    complete = all(key in info for key in IMAGE_SET_KEYS)
    if complete and (info["n"], info["resolution"], info["channels"]) == (
        len(pixels),
        resolution_of(*pixels.shape[1:3]),
        pixels.shape[3],
    ):
        known = pixels.nbytes > VERIFY_UP_TO_BYTES or content_fingerprint(pixels, images.labels) == info["fingerprint"]
        if known:
            return images
    raise EvaluationError(
        f"the images of {images.name} are not those that `imagesets.load` returned: give the array, `.images`"
    )


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
