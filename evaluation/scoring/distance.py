"""The Fréchet distance between any two sets of images, without a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.images.resolution import Resolution, resolution_of, size_text
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.extractors.default import default_warnings
from evaluation.extractors.suitability import suitability_warnings
from evaluation.features.extraction import extract_features
from evaluation.features.store import FeatureSet
from evaluation.metrics import result_name
from evaluation.metrics.frechet import frechet_distance
from evaluation.references.data_paths import DataPaths
from evaluation.references.reference_file import Reference, load_statistics
from evaluation.references.reference_set import cached_reference, is_constant, size_warnings
from evaluation.scoring.job import DEFAULT_NUM_IMAGES, find_extractor, requested_resolution
from evaluation.sources import ImagesLike, Location, ResizedSource, SeedRange, open_source, resolve
from evaluation.sources.resized import at_resolution, conversion_warnings


@dataclass(frozen=True)
class Distance:
    """A Fréchet distance with what it depends on."""

    name: str
    value: float
    n: int
    n_reference: int
    extractor: str
    extractor_digest: str
    resize: str

    def __str__(self) -> str:
        features = f"{self.extractor}, resize {self.resize}"
        return f"{self.name} = {self.value:.4f}  ({self.n} images against {self.n_reference}; {features})"


def distance_between(
    a: ImagesLike,
    b: ImagesLike,
    *,
    extractor: str | Path | Extractor | None = None,
    num_images: int | None = None,
    resolution: str | None = None,
    paths: DataPaths = DataPaths(),
    force: bool = False,
    on_warning: Callable[[str], None] = lambda _text: None,
) -> Distance:
    """Return the Fréchet distance between two sets of images, by default each at its own resolution.

    See `evaluation.fid`.
    """
    locations = resolve(a), resolve(b)
    loaded = find_extractor(extractor, paths, *locations)
    warnings = default_warnings(loaded, paths.extractors) + suitability_warnings(loaded, force=force)
    statistics = load_statistics(locations[1].text, loaded) if locations[1].is_statistics else None
    requested = requested_resolution(resolution, statistics, b, paths)
    with tempfile.TemporaryDirectory(prefix="atelier-fid-") as folder:
        (features, shape), (reference, reference_shape) = (
            _features_of(location, loaded, num_images, requested, paths, Path(folder) / name, warnings)
            for name, location in zip("ab", locations, strict=True)
        )
    for name, one in (("images of the first set", features), ("images of the second set", reference)):
        warnings += size_warnings(one.n, name, loaded)
        if isinstance(one, Reference):
            warnings += conversion_warnings(one.image_set, name)
    if shape != reference_shape and None not in (*shape, *reference_shape):
        (one, channels), (other, other_channels) = shape, reference_shape
        warnings.append(
            f"the images are {size_text(one)} with {channels} channels and {size_text(other)} with {other_channels}: "
            "the extractor converts each, which affects the score"
        )
    for text in warnings:
        on_warning(text)
    return Distance(
        name=result_name("fid", loaded.metric, features.n),
        value=frechet_distance(features.mu, features.sigma, reference.mu, reference.sigma),
        n=features.n,
        n_reference=reference.n,
        extractor=loaded.name,
        extractor_digest=loaded.digest,
        resize=loaded.metadata["resize"],
    )


def _features_of(
    location: Location,
    extractor: Extractor,
    num_images: int | None,
    resolution: Resolution | None,
    paths: DataPaths,
    folder: Path,
    warnings: list[str],
) -> tuple[FeatureSet, tuple[Any, ...]]:
    """Return the features of images, cached if these are real ones, and their resolution and channels.

    With `resolution` the images are resized to it, which `warnings` then lists.
    """
    images = location.text if location.value is None else location.value
    if location.is_statistics:
        reference = load_statistics(location.text, extractor)
        if resolution not in (None, reference.image_set["resolution"]):
            raise EvaluationError(f"{location.text} is of {reference.image_set['resolution']} px, not of {resolution}")
        return reference, (reference.image_set["resolution"], reference.image_set["channels"])
    source = None
    if resolution is not None:
        source = open_source(images, resolution=resolution, data_root=paths.data_root, cache_root=paths.cache_root)
        source, resize_warnings = at_resolution(source, resolution, f"images of {location.text}")
        warnings += resize_warnings
    if location.kind in ("arrays", "images") and not isinstance(source, ResizedSource):
        reference = cached_reference(images, extractor, paths, resolution=resolution, num_images=num_images)
        return reference, (reference.image_set["resolution"], reference.image_set["channels"])
    source = source or open_source(images, data_root=paths.data_root, cache_root=paths.cache_root)
    n = DEFAULT_NUM_IMAGES if source.num_images is None else source.num_images
    n = n if num_images is None else num_images if source.num_images is None else min(n, num_images)
    store = extract_features(source, extractor, SeedRange(0, n), folder)
    if store.n < 2 or is_constant(store.statistics):
        raise EvaluationError(f"the images of {location.text} all have the same features")
    return store.feature_set(), (resolution_of(*source.shape[:2]), source.shape[2])
