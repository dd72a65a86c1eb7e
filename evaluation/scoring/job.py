"""Open what a job needs, and check it before the work: images and reference at one resolution, and metrics.

A resize between images and reference would change the score, so it must be requested by name, and the report names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifacts.images.alpha import RGBA
from artifacts.images.resolution import Resolution, height_and_width, parse_resolution, resolution_of, size_text
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor, load_extractor
from evaluation.extractors.default import default_extractor, default_warnings
from evaluation.extractors.suitability import suitability_warnings
from evaluation.metrics import Metric, MetricOptions, parse_metrics, required_inputs, rows_to_keep
from evaluation.metrics.fid_infinity import min_images
from evaluation.metrics.intervals import REPETITIONS
from evaluation.references.data_paths import DataPaths
from evaluation.references.reference_file import Reference, load_reference, load_statistics
from evaluation.references.reference_set import ReferenceSet, reference_features, size_warnings
from evaluation.report.document import check_threshold
from evaluation.report.stamp_generator import check_stampable
from evaluation.scoring.compute_metrics import check_metrics
from evaluation.sources import (
    PATIENCE_S,
    ImagesLike,
    ImageSource,
    Location,
    SamplingOptions,
    SeedRange,
    open_source,
    resolve,
)
from evaluation.sources.arrays import RESIZE_PROTOCOL
from evaluation.sources.resized import at_resolution, conversion_warnings
from imagesets import list_sources

DEFAULT_NUM_IMAGES = 10_000


@dataclass(frozen=True)
class ScoreOptions:
    """How to score; see `evaluation.score`.

    `shard` (i, n) is the i-th of n shards of every range of images, from 0. `fail_above` limits the first metric.
    `stamp` is a generator file of the scored model, which is checked before the work. `paths` are where datasets and
    the cache are, and `on_warning` is called with every warning as it arises; all are in the report.
    """

    metrics: tuple[Metric, ...]
    num_images: int | None = None
    first_seed: int = 0
    intervals: bool = False
    baseline: bool = True
    fail_above: float | None = None
    shard: tuple[int, int] | None = None
    metric_options: MetricOptions = field(default_factory=MetricOptions)
    force: bool = False
    resolution: str | None = None
    model: str | None = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    patience_s: float = PATIENCE_S
    stamp: Path | None = None
    paths: DataPaths = field(default_factory=DataPaths)
    on_warning: Callable[[str], None] = lambda _text: None


@dataclass
class Job:
    """Opened images and what to score them with.

    Attributes:
        source: The images.
        extractor: The extractor of both sides.
        options: How to score.
        warnings: The warnings, for the report.
        ranges: The images to score; with intervals, disjoint ranges of equal length.
        bounds: The start and stop of the images to score in each range: all of it, or this shard's share.
        arguments: All that decides the extracted features: unfinished work with other arguments is not resumed.
        real: The features of the real images; None in a shard, which is compared after it is merged.
    """

    source: ImageSource
    extractor: Extractor
    options: ScoreOptions
    warnings: list[str] = field(default_factory=list)
    ranges: tuple[SeedRange, ...] = ()
    bounds: tuple[int, int] = (0, 0)
    arguments: dict[str, Any] = field(default_factory=dict)
    real: ReferenceSet | None = None

    def warn(self, *texts: str) -> None:
        """Add warnings to the report."""
        self.warnings += texts
        for text in texts:
            self.options.on_warning(text)


def metrics_named(names: str | Metric | Iterable[str | Metric]) -> tuple[Metric, ...]:
    """Return the metrics of these names, separated by commas or in a list; EvaluationError for an unknown one."""
    try:
        return tuple(parse_metrics(names))
    except ValueError as error:
        raise EvaluationError(str(error)) from None


def find_extractor(extractor: str | Path | Extractor | None, paths: DataPaths, *images: Location) -> Extractor:
    """Return the given extractor; by default the one that made the statistics among `images`, or else the default."""
    if isinstance(extractor, Extractor):
        return extractor
    if extractor is not None:
        return load_extractor(extractor)
    statistics = next((one for one in images if one.is_statistics), None)
    if statistics is not None:
        return load_extractor(recorded_extractor(statistics))
    return default_extractor(paths.extractors, lambda: any((paths.channels_of(one) or 1) > 1 for one in images))


def recorded_extractor(reference: Location) -> Path:
    """Return the path of the extractor that made a reference file; EvaluationError if it is not there."""
    assert reference.path is not None
    path = Path(load_reference(reference.path).provenance["extractor"].get("path") or "")
    if not path.is_file():
        raise EvaluationError(f"the extractor that made the reference is not at {path} any more; give --extractor")
    return path


def open_job(images: ImagesLike, reference: ImagesLike, extractor: Extractor, options: ScoreOptions) -> Job:
    """Open both sides at one resolution and check that the metrics can be computed; see `run_job.score`."""
    # Both raise before any work: for a threshold on what should be high, and for a classifier near chance.
    first = options.metrics[0]
    check_threshold([{"better": first.better, "name": first.name, "value": 0.0}], options.fail_above)
    suitability_warnings(extractor, force=options.force)
    source, statistics, warnings = _open_images(images, reference, extractor, options)
    job = Job(source, extractor, options)
    job.warn(*warnings)
    if options.stamp is not None:
        check_stampable(options.stamp, source.description.get("digest"))
    if options.shard is None:
        # The real side first: it shows, before the long work, whether every metric can be computed.
        add_reference(job, reference if statistics is None else statistics)
    else:
        _choose_ranges(job)
    return job


def add_reference(job: Job, reference: ImagesLike | Reference) -> None:
    """Add the features of real images at the images' size, or of loaded statistics, and warnings about both sides.

    Raises:
        EvaluationError: If a metric cannot be computed from the two.
    """
    options, source, extractor = job.options, job.source, job.extractor
    height, width, channels = source.shape
    needs = required_inputs(options.metrics)
    job.real = reference_features(
        reference, extractor, options.paths, resolution=resolution_of(height, width), channels=channels, needs=needs
    )
    real = job.real.reference
    check_metrics(options.metrics, source, extractor, real)
    job.warn(*default_warnings(extractor, options.paths.extractors))
    job.warn(*suitability_warnings(extractor, real.image_set, force=options.force))
    _choose_ranges(job)
    n = job.ranges[0].n
    fewest, size = min(n, real.n), options.metric_options.kid_subset_size
    if fewest < size and any(metric.name == "kid" for metric in options.metrics):
        raise EvaluationError(
            f"kid takes subsets of {size} images and a side has {fewest}; leave it out, or give "
            f"--kid-subset-size {fewest // 2}, which makes it another protocol"
        )
    if any(metric.uses_covariance for metric in options.metrics):
        job.warn(*size_warnings(n, "images", extractor), *size_warnings(real.n, "reference images", extractor))
    if real.provenance.get("imported"):
        job.warn(f"the reference was imported: that {extractor.name} made it was not verified")
    colors = [real.image_set["channels"], channels]
    if RGBA in colors:
        job.warn("RGBA images were drawn over white for the features, generated and real ones alike")
    if None not in colors and len({min(3, count) for count in colors}) > 1:
        job.warn(f"the images have {channels} channels, the reference's have {real.image_set['channels']}")
    if skipped := source.description.get("skipped"):
        job.warn(f"{skipped} broken images were skipped")
    job.warn(*conversion_warnings(source.description, "images"))
    job.warn(*conversion_warnings(real.image_set, "reference images"))


def shard_bounds(n: int, shard: tuple[int, int] | None) -> tuple[int, int]:
    """Return the start and stop of a shard's images; all of them for None. EvaluationError for an empty share."""
    index, count = shard or (0, 1)
    start, stop = n * index // count, n * (index + 1) // count
    if start == stop:
        raise EvaluationError(f"{n} images cannot be shared by {count}: shard {index} would have none")
    return start, stop


def _choose_ranges(job: Job) -> None:
    """Choose the range of images to score; with intervals, five disjoint ones. EvaluationError if too few exist."""
    options, limit, dim = job.options, job.source.num_images, job.extractor.dim
    repetitions = REPETITIONS if options.intervals else 1
    n = options.num_images
    if n is None:
        n = DEFAULT_NUM_IMAGES if limit is None else limit // repetitions
    if limit is not None and limit < n:
        job.warn(f"there are only {limit} images, fewer than the {n} requested")
        n = limit
    if n < 2:
        raise EvaluationError(f"a Fréchet distance needs 2 images or more, not {n}")
    if limit is not None and limit < repetitions * n:
        raise EvaluationError(
            f"an interval needs {repetitions} x {n} images, and there are {limit}; take --num-images "
            f"{limit // repetitions}"
        )
    if n < (least := min_images(dim)) and any(metric.name == "fid_infinity" for metric in options.metrics):
        raise EvaluationError(
            f"fid_infinity needs {least} images or more for {dim} features, and there are {n}; "
            "leave it out, or take more with --num-images"
        )
    job.ranges = tuple(SeedRange(options.first_seed, n, repetition) for repetition in range(repetitions))
    job.bounds = shard_bounds(n, options.shard)
    description = job.source.description
    keys = ("kind", "digest", "fingerprint", "truncation", "labels", "resized", "shape", "resolution", "channels", "id")
    job.arguments = {
        "source": {key: description[key] for key in keys if key in description},
        "extractor": job.extractor.digest,
        "batch": job.extractor.batch_size,
        "num_images": n,
        "first_seed": options.first_seed,
        "parts": repetitions,
        "keep": sorted(rows_to_keep(options.metrics)),
        "shard": list(options.shard) if options.shard else None,
    }


def _open_images(
    images: ImagesLike, reference: ImagesLike, extractor: Extractor, options: ScoreOptions
) -> tuple[ImageSource, Reference | None, list[str]]:
    """Open the images at the resolution of the reference, or raise EvaluationError if the two have none in common.

    Returns the images, the reference if it is a file of statistics, and warnings about resizes.

    `options.resolution` is None: the images' own, which statistics must have, and to which real images will be
    resized; "reference": the reference's own; or another, for both.
    """
    statistics = None
    if resolve(reference).require_real_images().is_statistics:
        statistics = load_statistics(str(reference), extractor)
    requested = requested_resolution(options.resolution, statistics, reference, options.paths)
    source = open_source(
        images,
        model=options.model,
        sampling=options.sampling,
        patience_s=options.patience_s,
        resolution=requested,
        channels=None if statistics is None else statistics.image_set["channels"],
        data_root=options.paths.data_root,
        cache_root=options.paths.cache_root,
    )
    warnings: list[str] = []
    required = requested if statistics is None else statistics.image_set["resolution"]
    own = resolution_of(*source.shape[:2])
    if options.resolution is None and required is not None and own != required:
        raise EvaluationError(
            f"the images are {size_text(own)} and the reference's {size_text(required)}: a resize between them "
            f"would change the score; give --reference SOURCE@SPLIT to resize the real ones to {own} px, "
            f"--resolution reference to resize these to {required} px ({RESIZE_PROTOCOL}), or make a reference "
            f"with --resolution {own}"
        )
    if requested is not None:
        source, resize_warnings = at_resolution(source, requested)
        warnings += resize_warnings
    if statistics is not None:
        return source, statistics, warnings
    own = resolution_of(*source.shape[:2])
    if (native := _native_resolution(reference)) not in (None, own):
        warnings.append(
            f"the real images were resized from {size_text(native)} to {size_text(own)}, as `reference` records"
        )
    return source, None, warnings


def _native_resolution(images: ImagesLike) -> Resolution | None:
    """Return the native resolution of a named image set; None for folders, files and arrays."""
    name = resolve(images).image_set
    return next((info.resolution for info in list_sources() if info.name == name), None)


def requested_resolution(
    resolution: str | None, statistics: Reference | None, reference: ImagesLike, paths: DataPaths
) -> Resolution | None:
    """Return the resolution that `--resolution` requests, or None.

    Args:
        resolution: None, "reference" for the reference's own, a side in pixels, or HEIGHTxWIDTH.
        statistics: The reference, if it is a file of statistics.
        reference: The reference as the user named it.
        paths: Where the datasets are.

    Raises:
        EvaluationError: If it is something else, or not that of the statistics.
    """
    if resolution is None:
        return None
    if resolution == "reference":
        if statistics is not None:
            return parse_resolution(statistics.image_set["resolution"])
        return _native_resolution(reference) or parse_resolution(paths.load_images(reference).info["resolution"])
    try:
        found = parse_resolution(resolution)
        if not all(1 <= side <= 4096 for side in height_and_width(found)):
            raise ValueError
    except ValueError:
        raise EvaluationError(
            f"--resolution is `reference` or a side in pixels or HEIGHTxWIDTH, not {resolution!r}"
        ) from None
    if statistics is not None and found != statistics.image_set["resolution"]:
        raise EvaluationError(
            f"{reference} is of {statistics.image_set['resolution']} px; make one with --resolution {resolution}"
        )
    return found
