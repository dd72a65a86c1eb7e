"""Open what a job needs, and check it before the work: images, reference, metrics and the ranges of seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.extractors.suitability import suitability_warnings
from evaluation.metrics import Metric, MetricOptions, parse_metrics, required_inputs
from evaluation.metrics.fid_infinity import min_images
from evaluation.metrics.intervals import REPETITIONS
from evaluation.references.cache import DataPaths, ReferenceSet, reference_features, size_warnings
from evaluation.references.file import Reference
from evaluation.report.schema import check_threshold
from evaluation.scoring.compute_metrics import check_metrics, rows_to_keep
from evaluation.scoring.features import batch_size
from evaluation.scoring.resolution import open_images
from evaluation.sources import PATIENCE_S, ImagesLike, ImageSource, SamplingOptions, SeedRange
from evaluation.sources.arrays import conversion_warnings

DEFAULT_NUM_IMAGES = 10_000


@dataclass(frozen=True)
class ScoreOptions:
    """How to score; see `evaluation.score`.

    `shard` (i, n) is the i-th of n shares of every range of images, from 0. `fail_above` limits the first metric.
    `stamp` is a generator file of the scored model, which is checked before the work.
    """

    metrics: tuple[Metric, ...]
    num_images: int | None = None
    first_seed: int = 0
    intervals: bool = False
    baseline: bool = True
    fail_above: float | None = None
    shard: tuple[int, int] | None = None
    kid_subset_size: int = 1000
    force: bool = False
    resolution: str | None = None
    model: str | None = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    patience_s: float = PATIENCE_S
    stamp: Path | None = None

    @property
    def metric_options(self) -> MetricOptions:
        """The metrics' own settings."""
        return MetricOptions(kid_subset_size=self.kid_subset_size)


@dataclass
class Job:
    """Opened images and what to score them with. `reference` may be loaded statistics.

    `on_warning` is called with every warning as it arises; `warnings` are for the report.
    """

    source: ImageSource
    reference: ImagesLike | Reference
    extractor: Extractor
    options: ScoreOptions
    paths: DataPaths
    on_warning: Callable[[str], None] = lambda _text: None
    warnings: list[str] = field(default_factory=list)

    def warn(self, *texts: str) -> None:
        """Add warnings to the report."""
        self.warnings += texts
        for text in texts:
            self.on_warning(text)

    def seed_ranges(self) -> list[SeedRange]:
        """Return the range of images to score; with intervals, five disjoint ones. EvaluationError if too few exist."""
        options, limit = self.options, self.source.num_images
        repetitions = REPETITIONS if options.intervals else 1
        n = options.num_images or (DEFAULT_NUM_IMAGES if limit is None else limit // repetitions)
        if limit is not None and limit < n:
            self.warn(f"there are only {limit} images, fewer than the {n} requested")
            n = limit
        if n < 2:
            raise EvaluationError(f"a Fréchet distance needs 2 images or more, not {n}")
        if limit is not None and limit < repetitions * n:
            raise EvaluationError(
                f"an interval needs {repetitions} x {n} images, and there are {limit}; take --num-images "
                f"{limit // repetitions}"
            )
        if n < (least := min_images(self.extractor.dim)) and any(m.name == "fid_infinity" for m in options.metrics):
            raise EvaluationError(
                f"fid_infinity needs {least} images or more for {self.extractor.dim} features, and there are {n}; "
                "leave it out, or take more with --num-images"
            )
        return [SeedRange(options.first_seed, n, repetition) for repetition in range(repetitions)]

    def arguments(self, ranges: Sequence[SeedRange]) -> dict[str, Any]:
        """Return all that decides the extracted features: unfinished work with other arguments is not resumed."""
        description = self.source.description
        keys = ("kind", "digest", "fingerprint", "truncation", "labels", "resized", "shape", "resolution", "channels")
        return {
            "source": {key: description[key] for key in (*keys, "id") if key in description},
            "extractor": self.extractor.digest,
            "batch": batch_size(self.extractor),
            "num_images": ranges[0].n,
            "first_seed": ranges[0].first_seed,
            "parts": len(ranges),
            "keep": sorted(rows_to_keep(self.options.metrics)),
            "shard": list(self.options.shard) if self.options.shard else None,
        }


def metrics_named(names: str | Iterable[str]) -> tuple[Metric, ...]:
    """Return the metrics of these names, separated by commas or in a list; EvaluationError for an unknown one."""
    try:
        return tuple(parse_metrics(names))
    except ValueError as error:
        raise EvaluationError(str(error)) from None


def open_job(
    images: ImagesLike,
    reference: ImagesLike,
    extractor: Extractor,
    options: ScoreOptions,
    paths: DataPaths,
    on_warning: Callable[[str], None],
) -> Job:
    """Open the images at the resolution of the reference; see `score` for the arguments."""
    # Both raise before any work: for a threshold on what should be high, and for a classifier near chance.
    first = options.metrics[0]
    check_threshold([{"better": first.better, "name": first.name, "value": 0.0}], options.fail_above)
    suitability_warnings(extractor, force=options.force)
    source, statistics, warnings = open_images(
        images,
        reference,
        extractor,
        paths,
        resolution=options.resolution,
        model=options.model,
        sampling=options.sampling,
        patience_s=options.patience_s,
    )
    job = Job(source, reference if statistics is None else statistics, extractor, options, paths, on_warning)
    job.warn(*warnings)
    return job


def real_features(job: Job) -> ReferenceSet:
    """Return the features of the real images, extracted at the images' size unless they are cached."""
    height, _, channels = job.source.shape
    needs = required_inputs(job.options.metrics)
    return reference_features(
        job.reference, job.extractor, job.paths, resolution=height, channels=channels, needs=needs
    )


def check_inputs(job: Job, reference: Reference) -> list[SeedRange]:
    """Check that the metrics can be computed, add warnings about both sides, and return the ranges to score."""
    options, extractor = job.options, job.extractor
    check_metrics(options.metrics, job.source, extractor, reference)
    job.warn(*suitability_warnings(extractor, reference.image_set, force=options.force))
    ranges = job.seed_ranges()
    n = ranges[0].n
    fewest = min(n, reference.n)
    if fewest < options.kid_subset_size and any(metric.name == "kid" for metric in options.metrics):
        raise EvaluationError(
            f"kid takes subsets of {options.kid_subset_size} images and a side has {fewest}; leave it out, or give "
            f"--kid-subset-size {fewest // 2}, which makes it another protocol"
        )
    job.warn(*size_warnings(n, "images", extractor), *size_warnings(reference.n, "reference images", extractor))
    if reference.provenance.get("imported"):
        job.warn(f"the reference was imported: that {extractor.name} made it was not verified")
    channels = reference.image_set.get("channels")
    if channels not in (None, job.source.shape[2]):
        job.warn(f"the images have {job.source.shape[2]} channels, the reference's have {channels}")
    if skipped := job.source.description.get("skipped"):
        job.warn(f"{skipped} broken images were skipped")
    job.warn(*conversion_warnings(job.source.description, "images"))
    job.warn(*conversion_warnings(reference.image_set, "reference images"))
    return ranges


def shard_bounds(n: int, shard: tuple[int, int] | None) -> tuple[int, int]:
    """Return the start and stop of a shard's images; all of them for None. EvaluationError for an empty share."""
    index, count = shard or (0, 1)
    start, stop = n * index // count, n * (index + 1) // count
    if start == stop:
        raise EvaluationError(f"{n} images cannot be shared by {count}: shard {index} would have none")
    return start, stop
