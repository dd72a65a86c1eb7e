"""The job: pass over the images, compare what it left with the real ones, and tell everything in one document."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.extractors.suitability import suitability_warnings
from evaluation.metrics import Metric, MetricOptions, required_inputs, result_name
from evaluation.metrics.fid_infinity import min_images
from evaluation.metrics.intervals import REPETITIONS
from evaluation.references.baseline import WITHOUT, train_against_test
from evaluation.references.cache import Places, cached_reference, is_constant, other_split, size_warnings
from evaluation.references.file import Reference
from evaluation.report.samples import keep_pictures
from evaluation.report.schema import FORMAT_VERSION, check_threshold, now, score_document, write_json, write_report
from evaluation.scoring.feature_store import Collected, batch_size, collect, read_state, state_of
from evaluation.scoring.results import FRECHET, Real, check_possible, kept_by, results_of
from evaluation.scoring.workdir import Output, differences, opened, remove
from evaluation.sources import Draw, ImageSource
from evaluation.sources.arrays import conversions
from imagesets import ImageSetError


@dataclass(frozen=True)
class Settings:
    """What is asked for. `shard` (i, n): the i-th of n shares of every draw, i from 0.

    With `force`, a classifier below twice chance accuracy is used, and warned of.
    """

    metrics: tuple[Metric, ...]
    num_images: int = 10_000
    first_seed: int = 0
    intervals: bool = False
    baseline: bool = True
    fail_above: float | None = None
    shard: tuple[int, int] | None = None
    kid_subset_size: int = 1000
    force: bool = False

    @property
    def options(self) -> MetricOptions:
        """The metrics' own settings."""
        return MetricOptions(kid_subset_size=self.kid_subset_size)


@dataclass
class Job:
    """One source scored against one reference. `warn` is told each warning as it arises; all are in the document."""

    source: ImageSource
    extractor: Extractor
    settings: Settings
    places: Places
    warnings: list[str] = field(default_factory=list)
    warn: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        for text in self.warnings:
            self.warn(text)

    def note(self, *texts: str) -> None:
        self.warnings += texts
        for text in texts:
            self.warn(text)

    def draws(self) -> list[Draw]:
        """The draws to pass over: one, or with intervals five disjoint ones. EvaluationError: too few images."""
        n, limit, settings = self.settings.num_images, self.source.limit(), self.settings
        parts = REPETITIONS if settings.intervals else 1
        if limit is not None and limit < n:
            self.note(f"there are only {limit} images, fewer than the {n} asked for")
            n = limit
        if n < 2:
            raise EvaluationError(f"a Fréchet distance needs 2 images or more, not {n}")
        if limit is not None and limit < parts * n:
            raise EvaluationError(
                f"an interval needs {parts} x {n} images, and there are {limit}; take --num-images {limit // parts}"
            )
        return [Draw(settings.first_seed, n, part) for part in range(parts)]

    def arguments(self, draws: Sequence[Draw]) -> dict[str, Any]:
        """All that decides what a pass collects: work of other arguments is other work."""
        told = self.source.description
        which = ("kind", "digest", "fingerprint", "truncation", "labels", "resized", "shape", "resolution", "channels")
        return {
            "source": {key: told[key] for key in which if key in told},
            "extractor": self.extractor.digest,
            "batch": batch_size(self.extractor),
            "num_images": draws[0].n,
            "first_seed": draws[0].first_seed,
            "parts": len(draws),
            "keep": sorted(kept_by(self.settings.metrics)),
            "shard": list(self.settings.shard) if self.settings.shard else None,
        }

    def passes(self, draws: Sequence[Draw], folder: Path) -> list[Collected]:
        """Collect every draw (or this shard's share of each), going on where a former run stopped."""
        found = []
        for draw in draws:
            wanted = (
                self.settings.metrics if draw.part == 0 else [m for m in self.settings.metrics if m.name in FRECHET]
            )
            start, stop = share(draw.n, self.settings.shard)
            name = "scoring" if len(draws) == 1 else f"scoring {draw.part + 1}/{len(draws)}"
            keep = kept_by(wanted) | (frozenset({"samples"}) if draw.part == 0 else frozenset())
            found.append(
                collect(
                    self.source,
                    self.extractor,
                    draw,
                    folder / f"part-{draw.part}",
                    keep=keep,
                    start=start,
                    stop=stop,
                    description=name,
                )
            )
        return found


def share(n: int, shard: tuple[int, int] | None) -> tuple[int, int]:
    """The images of a shard, start and stop; all of them for None. Raises EvaluationError for an empty share."""
    index, count = shard or (0, 1)
    start, stop = n * index // count, n * (index + 1) // count
    if start == stop:
        raise EvaluationError(f"{n} images cannot be shared by {count}: shard {index} would have none")
    return start, stop


def score(job: Job, reference: Reference, output: Output) -> dict[str, Any]:
    """Score the job's source against the reference; the document is written to `output` and returned.

    Raises EvaluationError when the two cannot be compared, or something fails on the way: what was collected by then
    stays in the output's work folder, with its scores so far, and the same call goes on from there.
    """
    settings = job.settings
    check_possible(settings.metrics, job.source, job.extractor, reference)
    job.note(*suitability_warnings(job.extractor, reference.image_set, force=settings.force))
    draws = job.draws()
    fewest = min(draws[0].n, reference.n)
    if fewest < settings.kid_subset_size and any(metric.name == "kid" for metric in settings.metrics):
        raise EvaluationError(
            f"kid takes subsets of {settings.kid_subset_size} images and a side has {fewest}; leave it out, or say "
            f"--kid-subset-size {fewest // 2}, which makes it another protocol"
        )
    check_extrapolation(job, draws[0].n)
    job.note(*size_warnings(draws[0].n, "images", job.extractor))
    job.note(*size_warnings(reference.n, "reference images", job.extractor))
    if reference.provenance.get("imported"):
        job.note(f"the reference was imported: that {job.extractor.name} made it is its importer's word")
    channels = reference.image_set.get("channels")
    if channels not in (None, job.source.shape[2]):
        job.note(f"the images have {job.source.shape[2]} channels, the reference's have {channels}")
    if skipped := job.source.description.get("skipped"):
        job.note(f"{skipped} broken images were skipped")
    job.note(*conversions(job.source.description, "images"))
    job.note(*conversions(reference.image_set, "reference images"))
    arguments = job.arguments(draws)
    job.note(*differences(output.work, arguments))
    with opened(output.work, arguments) as folder:
        if done := sum(state_of(folder / f"part-{draw.part}") for draw in draws):
            job.note(f"going on with {done} images of a job that was stopped")
        with partial_kept(job, reference, draws, folder, output.kept):
            parts = job.passes(draws, folder)
            document = finished(job, parts, reference, output)
        write_report(output.document, document)
        remove(folder)
    return document


def check_extrapolation(job: Job, n: int) -> None:
    """Raise EvaluationError, before any work, where `n` images are too few for fid_infinity."""
    least = min_images(job.extractor.dim)
    if n < least and any(metric.name == "fid_infinity" for metric in job.settings.metrics):
        raise EvaluationError(
            f"fid_infinity needs {least} images or more for {job.extractor.dim} features, and there are {n}; "
            "leave it out, or take more with --num-images"
        )


def finished(job: Job, parts: Sequence[Collected], reference: Reference, output: Output) -> dict[str, Any]:
    """The document of whole passes; its pictures are written. Raises EvaluationError for what cannot be compared."""
    settings = job.settings
    _refuse_constant(parts[0])
    real = real_side(reference, job.extractor, settings.metrics, job.places)
    results = results_of(parts, settings.metrics, job.extractor, real, job.source.class_names, settings.options)
    job.note(*_small_classes(results, job.extractor), *_negative_distances(results))
    told = job.source.description
    first = settings.first_seed
    n = parts[0].statistics.n
    return score_document(
        results,
        baseline=_baseline(job, reference, n) if settings.baseline else None,
        threshold=check_threshold(results, settings.fail_above),
        n=n,
        seeds={"first": first, "last": first + n * len(parts) - 1} if job.source.seeded else None,
        labels=told.get("labels") if job.source.class_names else None,
        truncation=told.get("truncation"),
        warnings=job.warnings,
        source=told,
        service={"url": told["url"]} if told.get("kind") == "service" else None,
        model=told.get("model"),
        digest=told.get("digest"),
        images_seen=told.get("images_seen"),
        extractor=job.extractor.provenance() | {"path": str(job.extractor.path)},
        reference={
            **reference.provenance,
            "n": reference.n,
            "sha256": reference.sha256,
            "statistics_sha256": reference.statistics_sha256,
            "path": str(reference.path),
        },
        pictures=keep_pictures(
            output.images, job.source, settings.first_seed, n, parts[0], reference, real, results, job.places
        ),
        timing=parts[0].timing.told(),
    )


def real_side(reference: Reference, extractor: Extractor, metrics: Sequence[Metric], places: Places) -> Real:
    """The reference, and for memorization the training and the held-out images beside it."""
    if "train_features" not in required_inputs(metrics):
        return Real(reference)
    real = reference.image_set
    size = {"resolution": real["resolution"], "channels": real["channels"]}
    try:
        other = cached_reference(other_split(real), extractor, places, **size, keep=frozenset({"features"}))
    except ImageSetError as error:
        raise EvaluationError(f"memorization needs the other split of {real.get('source')} too: {error}") from error
    if reference.features is None:
        raise EvaluationError(f"memorization needs the features beside {reference.path}; make it again")
    train, held_out = (reference, other) if real["split"] == "train" else (other, reference)
    return Real(reference, train, held_out)


def _baseline(job: Job, reference: Reference, n: int) -> dict[str, Any] | None:
    if all(metric.name in WITHOUT for metric in job.settings.metrics):
        return None
    try:
        beside = train_against_test(reference, job.extractor, job.settings.metrics, n, job.places, job.settings.options)
    except (EvaluationError, ImageSetError) as error:
        job.note(f"no train-against-test baseline: {error}")
        return None
    if beside["n"] != n:
        job.note(
            f"the baseline is of {beside['n']} images and the score of {n}: N biases the distance, compare with care"
        )
    return beside


def _small_classes(results: Sequence[dict[str, Any]], extractor: Extractor) -> list[str]:
    """Loud words on classes with no more images, on either side, than there are features."""
    classes = [one for result in results for one in result["details"].get("classes", ())]
    small = [one for one in classes if min(one["n"], one["n_reference"]) <= extractor.dim]
    if not small:
        return []
    least = min(small, key=lambda one: min(one["n"], one["n_reference"]))
    return [
        f"{len(small)} of {len(classes)} classes have too few images for {extractor.dim} features (class "
        f"{least.get('class', least['label'])}: {least['n']} and {least['n_reference']} real ones): their covariance "
        "is singular and the distance by class all but meaningless; take more"
    ]


def _negative_distances(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return a warning for each extrapolated distance below 0."""
    return [
        f"{result['name']} is {result['value']:.4f}, and no distance is negative: the line through the distances of "
        f"{result['n']} images misses 0 by its own error"
        + (f" (standard error {result['std']:.4f})" if result["std"] is not None else "")
        + "; take more images"
        for result in results
        if result["metric"] == "fid_infinity" and result["value"] < 0
    ]


def _refuse_constant(part: Collected) -> None:
    """A model that makes one image, or an extractor that sees no difference, gets no score."""
    if is_constant(part.statistics):
        samples = part.rows("samples")
        if samples is not None and (samples == samples[0]).all():
            raise EvaluationError(
                "the images are all identical: the generator has collapsed, or its latents do nothing"
            )
        raise EvaluationError("the images all have the same features: the extractor does not see what differs in them")


@contextlib.contextmanager
def partial_kept(
    job: Job, reference: Reference | None, draws: Sequence[Draw], folder: Path, kept: bool = True
) -> Iterator[None]:
    """On a failure, `partial.json` in the work folder: how far it came, why it stopped, and the distance so far.

    Not `kept`: the folder is removed, and the message says so.
    """
    try:
        yield
    except (EvaluationError, ImageSetError, KeyboardInterrupt) as error:
        wanted = sum(stop - start for start, stop in (share(draw.n, job.settings.shard) for draw in draws))
        seen = sum(state_of(folder / f"part-{draw.part}") for draw in draws)
        document = {
            "format_version": FORMAT_VERSION,
            "kind": "partial",
            "stopped": str(error) or type(error).__name__,
            "n": seen,
            "of": wanted,
            "scores": _so_far(job.extractor, reference, folder / "part-0"),
            "source": job.source.description,
            "extractor": job.extractor.provenance(),
            "warnings": job.warnings,
            "created": now(),
        }
        with contextlib.suppress(EvaluationError):
            write_json(folder / "partial.json", document)
        if isinstance(error, EvaluationError) and seen:
            where = f"are kept in {folder}" if kept else "were seen; give --output to keep them"
            raise EvaluationError(f"{error} ({seen} of {wanted} images {where})") from error
        raise


def _so_far(extractor: Extractor, reference: Reference | None, folder: Path) -> dict[str, float]:
    """The Fréchet distance of what there is: no score of the N asked for, and named after its own."""
    if reference is None:
        return {}
    from evaluation.metrics.frechet import frechet_distance

    try:
        kept, _ = read_state(folder)
        with np.errstate(over="ignore", invalid="ignore"):
            value = frechet_distance(kept.mu, kept.sigma, reference.mu, reference.sigma)
    except (OSError, ValueError):
        return {}
    return {result_name("fid", extractor.metric, kept.n): value} if np.isfinite(value) else {}
