"""Score one source of images against one reference, in steps from opening both to writing the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.features.extraction import extract_features
from evaluation.features.store import FeatureStore, count_images
from evaluation.features.workdir import key_of, open_workdir, remove_workdir, unfinished_work
from evaluation.metrics import rows_to_keep
from evaluation.report.document import write_report
from evaluation.scoring.compute_metrics import FRECHET
from evaluation.scoring.job import Job, ScoreOptions, open_job
from evaluation.scoring.report import OutputPaths, make_report, recording_partial
from evaluation.sources import ImagesLike


def score(
    images: ImagesLike,
    reference: ImagesLike,
    extractor: Extractor,
    options: ScoreOptions,
    output: OutputPaths,
) -> dict[str, Any]:
    """Score images, as `open_source` reads them, against real ones or statistics; write and return the report.

    Raises:
        EvaluationError: If the two cannot be compared, or something fails on the way. What was extracted until then
            stays in the output's work folder with its scores so far, and the same call resumes from there.
    """
    return score_job(open_job(images, reference, extractor, options), output)


def score_job(job: Job, output: OutputPaths) -> dict[str, Any]:
    """Score opened images against the features of real ones; see `score`."""
    job.warn(*unfinished_work(output.work, job.arguments))
    with open_workdir(output.work, job.arguments) as folder:
        with recording_partial(job, folder, output.kept):
            features = extract_ranges(job, folder)
            report = make_report(job, features, output)
        write_report(output.document, report)
        remove_workdir(folder)
    return report


def score_checkpoints(
    checkpoints: Sequence[Path],
    reference: ImagesLike,
    extractor: Extractor,
    options: ScoreOptions,
    output: OutputPaths,
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
        job = open_job(path, reference, extractor, options)
        assert job.real is not None
        arguments = job.arguments | {
            "metrics": [metric.name for metric in options.metrics],
            "reference": job.real.reference.sha256,
            "threshold": options.fail_above,
        }
        file = folder / f"{path.stem}-{key_of(arguments)}.json"
        if file.is_file():
            report = json.loads(file.read_text(encoding="utf-8"))
        else:
            images = output.images if path == checkpoints[-1] else None
            report = score_job(job, OutputPaths(file, output.work, images, output.kept))
        source = report["source"]
        entry = {"checkpoint": path.name, "step": source.get("step"), "images_seen": source.get("images_seen")}
        history.append(entry | {key: report[key] for key in ("digest", "scores", "results", "warnings")})
    report |= {"checkpoints": history}
    write_report(output.document, report)
    remove_workdir(folder)
    return report


def extract_ranges(job: Job, folder: Path) -> list[FeatureStore]:
    """Extract the features of every range, or of this shard's share of each, resuming where an earlier run stopped."""
    if done := sum(count_images(folder / f"part-{seeds.repetition}") for seeds in job.ranges):
        job.warn(f"resuming: {done} images already scored")
    start, stop = job.bounds
    stores = []
    for seeds in job.ranges:
        first = seeds.repetition == 0
        metrics = job.options.metrics if first else [one for one in job.options.metrics if one.name in FRECHET]
        stores.append(
            extract_features(
                job.source,
                job.extractor,
                seeds,
                folder / f"part-{seeds.repetition}",
                keep=rows_to_keep(metrics) | (frozenset({"samples"}) if first else frozenset()),
                start=start,
                stop=stop,
                description="scoring" if len(job.ranges) == 1 else f"scoring {seeds.repetition + 1}/{len(job.ranges)}",
            )
        )
    return stores
