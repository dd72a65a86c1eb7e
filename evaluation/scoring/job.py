"""Score one source of images against one reference, in steps from opening both to writing the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.references.cache import DataPaths, ReferenceSet
from evaluation.report.generator_scores import check_stampable
from evaluation.report.schema import write_report
from evaluation.scoring.compute_metrics import FRECHET, rows_to_keep
from evaluation.scoring.feature_store import FeatureStore, count_images
from evaluation.scoring.features import extract_features
from evaluation.scoring.inputs import Job, ScoreOptions, check_inputs, open_job, real_features, shard_bounds
from evaluation.scoring.report import make_report, recording_partial
from evaluation.scoring.workdir import OutputPaths, key_of, open_workdir, remove_workdir, unfinished_work
from evaluation.sources import ImagesLike, SeedRange


def score(
    images: ImagesLike,
    reference: ImagesLike,
    extractor: Extractor,
    options: ScoreOptions,
    paths: DataPaths,
    output: OutputPaths,
    on_warning: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Score images against real ones and write the report.

    Args:
        images: The images, as `open_source` reads them.
        reference: Real images, or a file of statistics.
        extractor: The extractor of both.
        options: How to score.
        paths: Where data sets and the cache are.
        output: Where to write.
        on_warning: Called with every warning as it arises; all are in the report.

    Returns:
        The report.

    Raises:
        EvaluationError: If the two cannot be compared, or something fails on the way. What was extracted until then
            stays in the output's work folder with its scores so far, and the same call resumes from there.
    """
    job = open_job(images, reference, extractor, options, paths, on_warning)
    if options.stamp is not None:
        check_stampable(options.stamp, job.source.description.get("digest"))
    # The real side first: it shows, before the long work, whether every metric can be computed.
    return score_job(job, real_features(job), output)


def score_job(job: Job, real: ReferenceSet, output: OutputPaths) -> dict[str, Any]:
    """Score opened images against the features of real ones; see `score`."""
    ranges = check_inputs(job, real.reference)
    arguments = job.arguments(ranges)
    job.warn(*unfinished_work(output.work, arguments))
    with open_workdir(output.work, arguments) as folder:
        with recording_partial(job, real.reference, ranges, folder, output.kept):
            features = extract_ranges(job, ranges, folder)
            report = make_report(job, features, real, output)
        write_report(output.document, report)
        remove_workdir(folder)
    return report


def score_checkpoints(
    checkpoints: Sequence[Path],
    reference: ImagesLike,
    extractor: Extractor,
    options: ScoreOptions,
    paths: DataPaths,
    output: OutputPaths,
    on_warning: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Score every checkpoint of a run, oldest first; one that was scored before an interruption is not scored again.

    The report is that of the latest one, with the scores of each under `checkpoints`.
    """
    if not checkpoints:
        raise EvaluationError("there are no checkpoints in this run yet")
    folder = output.work / "checkpoints"
    history: list[dict[str, Any]] = []
    report: dict[str, Any] = {}
    for path in checkpoints:
        job = open_job(path, reference, extractor, options, paths, on_warning)
        real = real_features(job)
        arguments = job.arguments(job.seed_ranges()) | {
            "metrics": [metric.name for metric in options.metrics],
            "reference": real.reference.sha256,
            "threshold": options.fail_above,
        }
        file = folder / f"{path.stem}-{key_of(arguments)}.json"
        if file.is_file():
            report = json.loads(file.read_text(encoding="utf-8"))
        else:
            images = output.images if path == checkpoints[-1] else None
            report = score_job(job, real, OutputPaths(file, output.work, images, output.kept))
        source = report["source"]
        entry = {"checkpoint": path.name, "step": source.get("step"), "images_seen": source.get("images_seen")}
        history.append(entry | {key: report[key] for key in ("digest", "scores", "results", "warnings")})
    report |= {"checkpoints": history}
    write_report(output.document, report)
    remove_workdir(folder)
    return report


def extract_ranges(job: Job, ranges: Sequence[SeedRange], folder: Path) -> list[FeatureStore]:
    """Extract the features of every range, or of this shard's share of each, resuming where an earlier run stopped."""
    if done := sum(count_images(folder / f"part-{seeds.repetition}") for seeds in ranges):
        job.warn(f"resuming: {done} images already scored")
    stores = []
    for seeds in ranges:
        first = seeds.repetition == 0
        metrics = job.options.metrics if first else [one for one in job.options.metrics if one.name in FRECHET]
        start, stop = shard_bounds(seeds.n, job.options.shard)
        stores.append(
            extract_features(
                job.source,
                job.extractor,
                seeds,
                folder / f"part-{seeds.repetition}",
                keep=rows_to_keep(metrics) | (frozenset({"samples"}) if first else frozenset()),
                start=start,
                stop=stop,
                description="scoring" if len(ranges) == 1 else f"scoring {seeds.repetition + 1}/{len(ranges)}",
            )
        )
    return stores
