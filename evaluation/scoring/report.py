"""Make the report of a job and choose its files; when a job stops early, write how far it came."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.features.store import FeatureStore, count_images, read_state
from evaluation.json_files import now, write_json
from evaluation.metrics import result_name
from evaluation.metrics.frechet import frechet_distance
from evaluation.output_files import check_writable, reraise_write_errors
from evaluation.references.reference_file import Reference
from evaluation.references.reference_set import is_constant
from evaluation.report.document import check_threshold, score_document
from evaluation.report.schema import FORMAT_VERSION, NAME
from evaluation.scoring.compute_metrics import compute_metrics
from evaluation.scoring.job import Job
from evaluation.scoring.real_baseline import WITHOUT_BASELINE, real_baseline
from evaluation.scoring.report_images import save_sample_images
from imagesets import ImageSetError


@dataclass(frozen=True)
class OutputPaths:
    """The JSON document, its folders of unfinished work and sample images, and whether they outlive the process."""

    document: Path
    work: Path
    images: Path | None = None
    kept: bool = True


@contextlib.contextmanager
def output_paths(output: Path | None) -> Iterator[OutputPaths]:
    """Yield the paths of a report in the folder `output`, or of a `.json` file; None is a temporary folder.

    Paths that cannot be written raise EvaluationError now rather than after minutes of work.
    """
    if output is None:
        with tempfile.TemporaryDirectory(prefix="atelier-score-") as folder:
            yield OutputPaths(Path(folder) / NAME, Path(folder) / ".partial", kept=False)
        return
    if output.suffix == ".json":
        paths = OutputPaths(output, output.with_name(f".{output.name}.partial"))
    else:
        with reraise_write_errors(output):
            is_file = output.exists() and not output.is_dir()
        if is_file:
            raise EvaluationError(f"cannot write {output}: it is a file; --output is a folder, or ends in .json")
        paths = OutputPaths(output / NAME, output / ".partial", output / "images")
    check_writable(paths.document)
    check_writable(paths.work / "x")
    yield paths


def make_report(job: Job, features: Sequence[FeatureStore], output: OutputPaths) -> dict[str, Any]:
    """Compute the metrics of the features of every range, write sample images, and return the report."""
    assert job.real is not None
    options, first, reference = job.options, features[0], job.real.reference
    _reject_constant(first)
    sets = [store.feature_set() for store in features]
    results = compute_metrics(
        sets, job.real, options.metrics, job.extractor, job.source.class_names, options.metric_options
    )
    job.warn(*_small_classes(results, job.extractor), *_negative_distances(results))
    description, n = job.source.description, first.n
    return score_document(
        results,
        baseline=_baseline(job, reference, n) if options.baseline else None,
        threshold=check_threshold(results, options.fail_above),
        n=n,
        seeds={"first": options.first_seed, "last": options.first_seed + n * len(features) - 1}
        if job.source.seeded
        else None,
        labels=description.get("labels") if job.source.class_names else None,
        truncation=description.get("truncation"),
        warnings=job.warnings,
        source=description,
        service={"url": description["url"]} if description.get("kind") == "service" else None,
        model=description.get("model"),
        digest=description.get("digest"),
        images_seen=description.get("images_seen"),
        extractor=job.extractor.provenance() | {"path": str(job.extractor.path)},
        reference={
            **reference.provenance,
            "n": reference.n,
            "sha256": reference.sha256,
            "statistics_sha256": reference.statistics_sha256,
            "path": str(reference.path),
        },
        pictures=save_sample_images(output.images, job, first, results),
        timing=first.timing.to_dict(),
    )


def _baseline(job: Job, reference: Reference, n: int) -> dict[str, Any] | None:
    """Return the score of real images, or None with a warning if there is none."""
    options = job.options
    if all(metric.name in WITHOUT_BASELINE for metric in options.metrics):
        return None
    try:
        baseline = real_baseline(reference, job.extractor, options.metrics, n, options.paths, options.metric_options)
    except (EvaluationError, ImageSetError) as error:
        job.warn(f"no train-against-test baseline: {error}")
        return None
    if baseline["n"] != n:
        job.warn(
            f"the baseline is of {baseline['n']} images and the score of {n}: N biases the distance, compare with care"
        )
    return baseline


def _small_classes(results: Sequence[dict[str, Any]], extractor: Extractor) -> list[str]:
    """Return a warning if classes have no more images, on either side, than there are features."""
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


def _reject_constant(features: FeatureStore) -> None:
    """Raise EvaluationError for a model that makes one image, or an extractor that sees no difference."""
    if is_constant(features.statistics):
        samples = features.rows("samples")
        if samples is not None and (samples == samples[0]).all():
            raise EvaluationError(
                "the images are all identical: the generator has collapsed, or its latents have no effect"
            )
        raise EvaluationError("the images all have the same features: the extractor does not see how they differ")


@contextlib.contextmanager
def recording_partial(job: Job, folder: Path, kept: bool = True) -> Iterator[None]:
    """On a failure, write `partial.json`: how many images were scored, the reason, and the distance so far.

    Without `kept` the folder will be removed, and the message says so.
    """
    try:
        yield
    except (EvaluationError, ImageSetError, KeyboardInterrupt) as error:
        start, stop = job.bounds
        total = (stop - start) * len(job.ranges)
        done = sum(count_images(folder / f"part-{seeds.repetition}") for seeds in job.ranges)
        document = {
            "format_version": FORMAT_VERSION,
            "kind": "partial",
            "stopped": str(error) or type(error).__name__,
            "n": done,
            "of": total,
            "scores": _partial_scores(job, folder / "part-0"),
            "source": job.source.description,
            "extractor": job.extractor.provenance(),
            "warnings": job.warnings,
            "created": now(),
        }
        with contextlib.suppress(EvaluationError):
            write_json(folder / "partial.json", document)
        if isinstance(error, EvaluationError) and done:
            where = f"are kept in {folder}" if kept else "were scored; give --output to keep them"
            raise EvaluationError(f"{error} ({done} of {total} images {where})") from error
        raise


def _partial_scores(job: Job, folder: Path) -> dict[str, float]:
    """Return the Fréchet distance of the images so far, named after their number."""
    if job.real is None:
        return {}
    reference = job.real.reference
    try:
        statistics, _ = read_state(folder)
        with np.errstate(over="ignore", invalid="ignore"):
            value = frechet_distance(statistics.mu, statistics.sigma, reference.mu, reference.sigma)
    except (OSError, ValueError):
        return {}
    return {result_name("fid", job.extractor.metric, statistics.n): value} if np.isfinite(value) else {}
