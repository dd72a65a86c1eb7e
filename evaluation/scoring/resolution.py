"""Open the images and the reference at one resolution.

A resize between the two would change the score, so it must be requested by name, and the report names it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.references.cache import DataPaths
from evaluation.references.file import Reference, load_reference
from evaluation.sources import ImageSetSource, ImagesLike, ImageSource, ResizedSource, open_source, resolve
from evaluation.sources.arrays import RESIZE_PROTOCOL
from evaluation.sources.location import holds_images
from imagesets import list_sources


class OpenedImages(NamedTuple):
    """The images to score and, if the reference is a file of statistics, that; with warnings about resizes."""

    source: ImageSource
    statistics: Reference | None
    warnings: list[str]


def is_statistics(reference: ImagesLike) -> bool:
    """Return whether a reference is a file of statistics rather than images; EvaluationError if it is neither."""
    location = resolve(reference).require_real_images()
    if location.kind == "arrays" and location.path is not None:
        # An absent or damaged file counts as statistics, whose reader reports what is wrong with it.
        return not location.path.is_file() or not holds_images(location.path)
    return location.kind == "statistics"


def open_images(
    images: ImagesLike,
    reference: ImagesLike,
    extractor: Extractor,
    paths: DataPaths,
    *,
    resolution: str | None = None,
    **options: Any,
) -> OpenedImages:
    """Open the images at the resolution of the reference, or raise EvaluationError if the two have none in common.

    Args:
        images: The images to score.
        reference: The real images, or a file of statistics.
        extractor: The extractor, which must be that of a file of statistics.
        paths: Where data sets and the cache are.
        resolution: None: the images' own, which statistics must have, and to which real images will be resized;
            "reference": the reference's own; or a side in pixels, for both.
        **options: For `open_source`.
    """
    statistics = load_statistics(str(reference), extractor) if is_statistics(reference) else None
    side = _requested_side(resolution, statistics, reference, paths)
    channels = None if statistics is None else statistics.image_set.get("channels")
    source = open_source(
        images, resolution=side, channels=channels, data_root=paths.data_root, cache_root=paths.cache_root, **options
    )
    warnings: list[str] = []
    required = side if statistics is None else statistics.image_set.get("resolution")
    height, width, _ = source.shape
    if required is not None and (height, width) != (required, required):
        if resolution is None:
            raise EvaluationError(
                f"the images are {height}x{width} and the reference's {required}x{required}: a resize between them "
                f"would change the score; give --reference SOURCE@SPLIT to resize the real ones to {height} px, "
                f"--resolution reference to resize these to {required} px ({RESIZE_PROTOCOL}), or make a reference "
                f"with --resolution {height}"
            )
        source = ResizedSource(source, required)
        warnings.append(
            f"the images were resized from {height}x{width} to {required}x{required} ({RESIZE_PROTOCOL}), which "
            "affects the score"
        )
    elif isinstance(source, ImageSetSource) and side is not None:
        crop, resize = source.description["crop"], source.description["resize"]
        warnings.append(f"images of another size were resized to {side}x{side} (crop {crop}, {resize})")
    if statistics is not None:
        return OpenedImages(source, statistics, warnings)
    height, width, _ = source.shape
    if height != width:
        raise EvaluationError(f"the images are {height}x{width}; real images are square: give --resolution reference")
    if (native := native_side(reference)) not in (None, height):
        warnings.append(
            f"the real images were resized from {native}x{native} to {height}x{height}, as `reference` records"
        )
    return OpenedImages(source, None, warnings)


def load_statistics(path: str, extractor: Extractor) -> Reference:
    """Read a reference file; raise EvaluationError if another extractor made it: other weights, or another resize."""
    reference = load_reference(path)
    made_by = reference.provenance["extractor"]
    if made_by.get("digest") != extractor.digest:
        raise EvaluationError(
            f"the reference was made with extractor {made_by.get('name')} ({str(made_by.get('digest'))[:12]}), "
            f"not with {extractor.name} ({extractor.digest[:12]}); their features cannot be compared"
        )
    if len(reference.mu) != extractor.dim:
        raise EvaluationError(f"the reference has {len(reference.mu)} features, the extractor {extractor.dim}")
    return reference


def recorded_extractor(reference: ImagesLike) -> Path:
    """Return the path of the extractor that made a reference file; EvaluationError if it is not there."""
    if not is_statistics(reference):
        raise EvaluationError(
            f"--reference {resolve(reference).text} has images, not statistics; give the --extractor to use"
        )
    recorded = load_reference(str(reference)).provenance["extractor"]
    path = Path(str(recorded.get("path", ""))) if isinstance(recorded, dict) else Path()
    if not path.is_file():
        raise EvaluationError(f"the extractor that made the reference is not at {path} any more; give --extractor")
    return path


def native_side(images: ImagesLike) -> int | None:
    """Return the native resolution of a named image set; None for folders, files and arrays."""
    name = resolve(images).image_set
    return next((info.resolution for info in list_sources() if info.name == name), None)


def _requested_side(
    resolution: str | None, statistics: Reference | None, reference: ImagesLike, paths: DataPaths
) -> int | None:
    """Return the side that `--resolution` requests, or None."""
    if resolution is None:
        return None
    if resolution == "reference":
        if statistics is not None:
            return int(statistics.image_set["resolution"])
        return native_side(reference) or int(paths.load_images(reference).info["resolution"])
    if not re.fullmatch("[0-9]{1,9}", resolution) or not 1 <= int(resolution) <= 4096:
        raise EvaluationError(f"--resolution is `reference` or a side in pixels, not {resolution!r}")
    if statistics is not None and int(resolution) != statistics.image_set.get("resolution"):
        raise EvaluationError(
            f"{reference} is of {statistics.image_set.get('resolution')} px; make one with --resolution {resolution}"
        )
    return int(resolution)
