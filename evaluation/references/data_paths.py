"""Load real images, and name the folders of datasets, of the references made from them, and of their extractors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from artifacts.images.resolution import Resolution, size_text
from evaluation.errors import EvaluationError
from evaluation.sources import ImagesLike, Location, array_image_set, array_source, resolve
from evaluation.sources.image_sets import checked_image_set
from evaluation.sources.location import expand
from imagesets import ImageSet, load_image_set, native_channels
from imagesets.cache import default_cache_root


@dataclass(frozen=True)
class DataPaths:
    """Where datasets are, and where what is made of them is cached; None is $ATELIER_CACHE, else ~/.cache."""

    data_root: Path = Path("data")
    cache_root: Path | None = None

    @property
    def references(self) -> Path:
        """The folder of cached references."""
        return self._cache / "references"

    @property
    def extractors(self) -> Path:
        """The folder of cached extractor files."""
        return self._cache / "extractors"

    @property
    def _cache(self) -> Path:
        root = self.cache_root or os.environ.get("ATELIER_CACHE")
        return expand(str(root)) if root else default_cache_root().parent

    def channels_of(self, location: Location) -> int | None:
        """Return the channels of real images, 1, 3 or 4, without decoding them; None for a generator or statistics."""
        if location.kind == "arrays" and not location.is_statistics:
            value = location.path if location.value is None else location.value
            assert value is not None
            return int(array_source(value).shape[2])
        if isinstance(location.value, ImageSet):
            return int(location.value.info["channels"])
        if location.kind != "images":
            return None
        return native_channels(location.name, data_root=self.data_root, cache_root=self.cache_root)

    def load_images(
        self, images: ImagesLike, resolution: Resolution | None = None, channels: int | None = None
    ) -> ImageSet:
        """Load real images: an image set, folder, zip, array file, array or list; anything else is an EvaluationError.

        `resolution` (in pixels) and `channels` are by default the images' own. Arrays and loaded sets keep their
        channels.
        """
        location = resolve(images).require_real_images()
        if location.kind == "statistics":
            raise EvaluationError(
                f"{location.text} holds statistics, where images are needed; `evaluation reference {location.text} "
                "--import-as NAME` imports those of another tool"
            )
        if isinstance(location.value, ImageSet):
            return _at_resolution(checked_image_set(location.value), resolution)
        if location.kind == "arrays":
            value = location.path if location.value is None else location.value
            assert value is not None
            return array_image_set(value, resolution)
        return load_image_set(
            location.name,
            resolution=resolution,
            channels=channels,
            data_root=self.data_root,
            cache_root=self.cache_root,
        )


def _at_resolution(images: ImageSet, resolution: Resolution | None) -> ImageSet:
    """Return a loaded image set; EvaluationError if it has another resolution."""
    own = images.info["resolution"]
    if resolution not in (None, own):
        raise EvaluationError(
            f"{images.name} was loaded at {size_text(own)} and {size_text(resolution)} are needed: give its name "
            f"instead, or load it with resolution={resolution!r}"
        )
    return images
