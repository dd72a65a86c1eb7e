"""Sources of images: services, generator files, checkpoints, functions, folders, zips, arrays and image sets."""

from __future__ import annotations

from evaluation.sources.arrays import ArraySource, array_image_set, array_source
from evaluation.sources.base import ImageBatch, ImageSource, SamplingOptions, SeedRange, random_subset
from evaluation.sources.checkpoint import CheckpointSource, checkpoints_of, is_run
from evaluation.sources.function import FunctionSource
from evaluation.sources.generator import GeneratorSource
from evaluation.sources.image_sets import ImageSetSource
from evaluation.sources.location import ImagesLike, Location, open_source, resolve
from evaluation.sources.resized import ResizedSource
from evaluation.sources.service import PATIENCE_S, ServiceSource

__all__ = [
    "PATIENCE_S",
    "ArraySource",
    "CheckpointSource",
    "FunctionSource",
    "GeneratorSource",
    "ImageBatch",
    "ImageSetSource",
    "ImageSource",
    "ImagesLike",
    "Location",
    "ResizedSource",
    "SamplingOptions",
    "SeedRange",
    "ServiceSource",
    "array_image_set",
    "array_source",
    "checkpoints_of",
    "is_run",
    "open_source",
    "random_subset",
    "resolve",
]
