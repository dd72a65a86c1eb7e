"""One size for both sides: a resize between them would be scored too, so it is asked for by name and told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.references.cache import Places, cached_reference
from evaluation.references.file import Reference, load_reference
from evaluation.sources import ImageSetSource, ImageSource, ResizedSource, open_source, resolve
from evaluation.sources.location import holds_images
from evaluation.sources.resized import PROTOCOL
from imagesets import list_sources


def is_file(reference: str) -> bool:
    """Whether `--reference` names a file of statistics rather than images. EvaluationError: there is nothing there."""
    location = resolve(reference).of_real_images()
    if location.kind == "arrays" and location.path is not None:
        # An absent or damaged file counts as one of statistics: reading it says what is wrong with it.
        return not location.path.is_file() or not holds_images(location.path)
    return location.kind == "statistics"


def open_both(
    text: str,
    reference: str,
    extractor: Extractor,
    places: Places,
    *,
    resolution: str | None,
    keep: frozenset[str],
    warnings: list[str],
    make: bool = True,
    **opening: Any,
) -> tuple[ImageSource, Reference | None]:
    """The source and the reference, at one size.

    `resolution` None: the source's own, to which an image set is resized as imagesets does; statistics in a file have a
    size that images must have. "reference": the reference's own, to which the images are brought; or a number, for
    both. `keep` are the rows that the reference must have; without `make` that of an image set is left to be made
    later, and None. Raises EvaluationError for sizes that do not meet.
    """
    told = load_reference(reference) if is_file(reference) else None
    if told is not None:
        check_extractor(told, extractor)
    side = _side(resolution, told, reference, places)
    channels = None if told is None else told.image_set.get("channels")
    on_disk: dict[str, Any] = {"data_root": places.data_root, "cache_root": places.cache_root, "channels": channels}
    source = open_source(text, resolution=side if resolution else None, **on_disk, **opening)
    fixed = side if told is None else told.image_set.get("resolution")
    height, width, _ = source.shape
    if fixed is not None and (height, width) != (fixed, fixed):
        if resolution is None:
            raise EvaluationError(
                f"the images are {height}x{width} and the reference's {fixed}x{fixed}: a resize between them would be "
                f"scored too; name the image set with --reference SOURCE@SPLIT to have the real ones brought to "
                f"{height} px, or say --resolution reference to have these brought to {fixed} px ({PROTOCOL}), or "
                f"make a reference with --resolution {height}"
            )
        source = ResizedSource(source, fixed)
        warnings.append(
            f"the images were resized from {height}x{width} to {fixed}x{fixed} ({PROTOCOL}), which is scored too"
        )
    elif isinstance(source, ImageSetSource) and side is not None:
        told_as = source.description
        warnings.append(
            f"images of another size were brought to {side}x{side} (crop {told_as['crop']}, {told_as['resize']})"
        )
    if told is not None:
        return source, told
    height, width, channels = source.shape
    if height != width:
        raise EvaluationError(f"the images are {height}x{width}; real images are square: say --resolution reference")
    if (native := native_side(reference)) not in (None, height):
        warnings.append(
            f"the real images were resized from {native}x{native} to {height}x{height}, as `reference` tells"
        )
    if not make:
        return source, None
    return source, cached_reference(reference, extractor, places, resolution=height, channels=channels, keep=keep)


def _side(resolution: str | None, told: Reference | None, reference: str, places: Places) -> int | None:
    """The side that was asked for by `--resolution`, or None."""
    if resolution is None:
        return None
    if resolution == "reference":
        if told is not None:
            return int(told.image_set["resolution"])
        return native_side(reference) or int(places.image_set(reference).info["resolution"])
    if not re.fullmatch("[0-9]{1,9}", resolution) or not 1 <= int(resolution) <= 4096:
        raise EvaluationError(f"--resolution is `reference` or a side in pixels, not {resolution!r}")
    if told is not None and int(resolution) != told.image_set.get("resolution"):
        raise EvaluationError(
            f"{reference} is of {told.image_set.get('resolution')} px; make one with --resolution {resolution}"
        )
    return int(resolution)


def native_side(image_set: str) -> int | None:
    """The size that a named image set has by itself; None for folders and files."""
    name = resolve(image_set).image_set
    return next((info.resolution for info in list_sources() if info.name == name), None)


def check_extractor(reference: Reference, extractor: Extractor) -> None:
    """Raise EvaluationError for a reference of another extractor: other weights, or another resize."""
    made_by = reference.provenance["extractor"]
    if made_by.get("digest") != extractor.digest:
        raise EvaluationError(
            f"the reference was made with extractor {made_by.get('name')} ({str(made_by.get('digest'))[:12]}), "
            f"not with {extractor.name} ({extractor.digest[:12]}); their features cannot be compared"
        )
    if len(reference.mu) != extractor.dim:
        raise EvaluationError(f"the reference has {len(reference.mu)} features, the extractor {extractor.dim}")


def recorded_extractor(reference: str) -> Path:
    """Where the extractor lay that made a reference file; for one that names none."""
    if not is_file(reference):
        raise EvaluationError(f"--reference {reference} is an image set; give the --extractor to see it with")
    recorded = load_reference(reference).provenance["extractor"]
    path = Path(str(recorded.get("path", ""))) if isinstance(recorded, dict) else Path()
    if not path.is_file():
        raise EvaluationError(f"the extractor that made the reference is not at {path} any more; give --extractor")
    return path
