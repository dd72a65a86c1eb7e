"""The Fréchet distance between any two sets of images, without a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.extractors.suitability import suitability_warnings
from evaluation.features.extraction import extract_features
from evaluation.features.store import FeatureSet
from evaluation.metrics import result_name
from evaluation.metrics.frechet import frechet_distance
from evaluation.references.data_paths import DataPaths
from evaluation.references.reference_file import Reference, load_statistics
from evaluation.references.reference_set import cached_reference, is_constant, size_warnings
from evaluation.scoring.job import DEFAULT_NUM_IMAGES, find_extractor
from evaluation.sources import ImagesLike, Location, SeedRange, open_source, resolve
from evaluation.sources.resized import conversion_warnings


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
    paths: DataPaths = DataPaths(),
    force: bool = False,
    on_warning: Callable[[str], None] = lambda _text: None,
) -> Distance:
    """Return the Fréchet distance between two sets of images, each at its own resolution; see `evaluation.fid`."""
    locations = resolve(a), resolve(b)
    loaded = find_extractor(extractor, paths, *locations)
    warnings = suitability_warnings(loaded, force=force)
    with tempfile.TemporaryDirectory(prefix="atelier-fid-") as folder:
        (features, shape), (reference, reference_shape) = (
            _features_of(location, loaded, num_images, paths, Path(folder) / name)
            for name, location in zip("ab", locations, strict=True)
        )
    for name, one in (("images of the first set", features), ("images of the second set", reference)):
        warnings += size_warnings(one.n, name, loaded)
        if isinstance(one, Reference):
            warnings += conversion_warnings(one.image_set, name)
    if shape != reference_shape and None not in (*shape, *reference_shape):
        (side, channels), (other, other_channels) = shape, reference_shape
        warnings.append(
            f"the images are {side}x{side} with {channels} channels and {other}x{other} with {other_channels}: the "
            "extractor converts each, which affects the score"
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
    location: Location, extractor: Extractor, num_images: int | None, paths: DataPaths, folder: Path
) -> tuple[FeatureSet, tuple[Any, ...]]:
    """Return the features of images, cached if these are real ones, and their side and channels."""
    images = location.text if location.value is None else location.value
    if location.kind in ("arrays", "images", "statistics"):
        if location.is_statistics:
            reference = load_statistics(location.text, extractor)
        else:
            reference = cached_reference(images, extractor, paths, num_images=num_images)
        return reference, (reference.image_set["resolution"], reference.image_set["channels"])
    source = open_source(images, data_root=paths.data_root, cache_root=paths.cache_root)
    store = extract_features(source, extractor, SeedRange(0, num_images or DEFAULT_NUM_IMAGES), folder)
    if store.n < 2 or is_constant(store.statistics):
        raise EvaluationError(f"the images of {location.text} all have the same features")
    return store.feature_set(), (source.shape[0], source.shape[2])
