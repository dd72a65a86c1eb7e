"""`evaluation score` and `evaluation merge`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.terminal import say
from evaluation.app import CacheRoot, DataRoot, app, finite, plain_errors, warn
from evaluation.errors import CheckFailed, EvaluationError
from evaluation.metrics.registry import METRICS

if TYPE_CHECKING:
    from evaluation.metrics import Metric
    from evaluation.scoring.job import Job
    from evaluation.scoring.shards import Shard
    from evaluation.scoring.workdir import Output

Metrics = Annotated[
    str,
    typer.Option(help=f"{', '.join(METRICS)}; with commas."),
]
OutputPath = Annotated[
    Path | None, typer.Option("--output", "-o", help="The folder of the report; or a .json file, the numbers alone.")
]
FailAbove = Annotated[
    float | None, typer.Option(help="Exit 1 when the first metric is larger.", min=0, callback=finite)
]
KidSubsetSize = Annotated[int, typer.Option(help="Images a subset of the kernel distance; 1,000 are usual.", min=2)]
Force = Annotated[
    bool, typer.Option("--force", help="Score in a classifier's features though its accuracy is below twice chance.")
]
Baseline = Annotated[bool, typer.Option(help="Show what real images get, train against test, beside the score.")]


@app.command()
def score(
    source: Annotated[
        str,
        typer.Argument(
            help="http://… of a service, a generator .onnx, a checkpoint .pt or run folder, a folder or .zip of "
            "images, a .npy or .npz, or an image set."
        ),
    ],
    reference: Annotated[
        str,
        typer.Option(
            help="An image set, such as mnist@test, a folder or .zip of images, a .npy or .npz, or a file of "
            "`evaluation reference`."
        ),
    ],
    extractor: Annotated[
        Path | None, typer.Option(help="The extractor file; default: where the reference file was made with it.")
    ] = None,
    metrics: Metrics = "fid",
    model: Annotated[str | None, typer.Option(help="A model of the service; default: the service's default.")] = None,
    num_images: Annotated[int, typer.Option(help="N, which is part of the score's name.", min=2)] = 10_000,
    seed: Annotated[int, typer.Option(help="The first seed; image i is of seed + i.", min=0)] = 0,
    intervals: Annotated[
        bool,
        typer.Option("--intervals", help="Fréchet figures as mean and 95% interval over 5 disjoint ranges of N seeds."),
    ] = False,
    truncation: Annotated[
        float | None, typer.Option(help="Truncate normal latents at this.", min=0.01, callback=finite)
    ] = None,
    labels: Annotated[
        str, typer.Option(help="Of a conditional generator: drawn (by the seeds), balanced, or one class.")
    ] = "drawn",
    resolution: Annotated[
        str | None,
        typer.Option(help="Compare at this side in pixels, or at the `reference`'s own; default: the images' own."),
    ] = None,
    kid_subset_size: KidSubsetSize = 1000,
    output: OutputPath = None,
    fail_above: FailAbove = None,
    baseline: Baseline = True,
    stamp: Annotated[
        Path | None, typer.Option(help="Write the scores into this generator file, whose model was scored.")
    ] = None,
    all_checkpoints: Annotated[
        bool,
        typer.Option("--all-checkpoints", help="Score each checkpoint of a run folder: score against images seen."),
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do the I-th of N shares, from 0; then `evaluation merge`.")
    ] = None,
    force: Force = False,
    patience: Annotated[
        float, typer.Option(help="Seconds to wait for a service that is away.", min=0, callback=finite)
    ] = 120.0,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """Score a source's images against real ones. Interrupted or killed, the same command goes on where it was."""
    with plain_errors(), _work(output) as at:
        from evaluation.extractors import load_extractor
        from evaluation.extractors.suitability import suitability_warnings
        from evaluation.references.cache import Places
        from evaluation.report.schema import check_threshold
        from evaluation.report.stamp import check_stampable
        from evaluation.report.stamp import stamp as stamp_
        from evaluation.scoring import shards
        from evaluation.scoring.job import Job, Settings
        from evaluation.scoring.resolution import open_both, recorded_extractor
        from evaluation.scoring.results import kept_of_reference
        from evaluation.sources import Conditions, checkpoints_of, is_run

        chosen = _metrics(metrics)
        if fail_above is not None:
            check_threshold([{"better": chosen[0].better, "name": chosen[0].name, "value": 0.0}], fail_above)
        if shard is not None and (output is None or output.suffix == ".json"):
            raise EvaluationError("--shard needs an --output folder to leave its share in")
        if all_checkpoints and (shard is not None or not is_run(Path(source))):
            raise EvaluationError("--all-checkpoints is for a run folder, and goes without --shard")
        loaded = load_extractor(extractor or recorded_extractor(reference))
        # Before the reference is made, which can take long.
        suitability_warnings(loaded, force=force)
        places = Places(data_root, cache_root)
        share = None if shard is None else shards.parse(shard)
        settings = Settings(chosen, num_images, seed, intervals, baseline, fail_above, share, kid_subset_size, force)

        def job_of(text: str) -> tuple[Job, Any]:
            warnings: list[str] = []
            images, real = open_both(
                text,
                reference,
                loaded,
                places,
                resolution=resolution,
                keep=kept_of_reference(chosen),
                warnings=warnings,
                make=share is None,
                model=model,
                conditions=Conditions(truncation, labels),
                patience_s=patience,
            )
            return Job(images, loaded, settings, places, warnings, warn), real

        if all_checkpoints:
            from evaluation.scoring.history import score_checkpoints

            document = score_checkpoints(job_of, checkpoints_of(Path(source)), at)
        else:
            job, real = job_of(source)
            if stamp is not None:
                check_stampable(stamp, job.source.description.get("digest"))
            if share is not None:
                told: dict[str, Any] = {"metrics": [m.name for m in chosen], "reference": {"name": reference}}
                told["extractor"] = {"path": str(loaded.path), "digest": loaded.digest}
                told["kid_subset_size"] = kid_subset_size
                assert output is not None
                say(shards.score_shard(job, output, told))
                return
            from evaluation.scoring import job as jobs

            document = jobs.score(job, real, at)
        if stamp is not None:
            for text in stamp_(stamp, document):
                warn(text)
        _tell(document, output, at)


@app.command()
def merge(
    paths: Annotated[list[Path], typer.Argument(help="The folder that the shards were left in, or the shards.")],
    metrics: Annotated[str | None, typer.Option(help="Default: those that the shards were made for.")] = None,
    reference: Annotated[str | None, typer.Option(help="Default: the shards' own.")] = None,
    extractor: Annotated[Path | None, typer.Option(help="Default: where the shards were made with it.")] = None,
    kid_subset_size: Annotated[
        int | None, typer.Option(help="Default: that which the shards were made for.", min=2)
    ] = None,
    output: OutputPath = None,
    fail_above: FailAbove = None,
    baseline: Baseline = True,
    stamp: Annotated[Path | None, typer.Option(help="Write the scores into this generator file.")] = None,
    force: Force = False,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """Add what shards left to one score: the same as one job's."""
    with plain_errors(), _work(output) as at:
        from evaluation.extractors import load_extractor
        from evaluation.extractors.suitability import suitability_warnings
        from evaluation.references.cache import Places, cached_reference, size_warnings
        from evaluation.references.file import load_reference
        from evaluation.report.schema import write_report
        from evaluation.report.stamp import stamp as stamp_
        from evaluation.scoring import shards
        from evaluation.scoring.job import Job, Settings, finished
        from evaluation.scoring.resolution import check_extractor, is_file
        from evaluation.scoring.results import check_possible, kept_of_reference

        found = shards.find(paths)
        told = found[0].told
        chosen = _metrics(metrics or ",".join(told["metrics"]))
        loaded = load_extractor(extractor or Path(told["extractor"]["path"]))
        if loaded.digest != told["extractor"]["digest"]:
            raise EvaluationError(f"the shards were made with another extractor than {loaded.path}")
        places = Places(data_root, cache_root)
        name, (height, _, channels) = reference or told["reference"]["name"], told["shape"]
        keep = kept_of_reference(chosen)
        if is_file(name):
            real = load_reference(name)
            check_extractor(real, loaded)
        else:
            real = cached_reference(name, loaded, places, resolution=height, channels=channels, keep=keep)
        arguments = told["arguments"]
        settings = Settings(
            chosen,
            arguments["num_images"],
            arguments["first_seed"],
            arguments["parts"] > 1,
            baseline,
            fail_above,
            kid_subset_size=kid_subset_size or _subset_size(found),
            force=force,
        )
        source = shards.RecordedSource(told)
        warnings = list(dict.fromkeys(text for shard in found for text in shard.told["warnings"]))
        job = Job(source, loaded, settings, places, warnings, warn)
        check_possible(chosen, source, loaded, real)
        job.note(
            *suitability_warnings(loaded, real.image_set, force=force),
            *size_warnings(arguments["num_images"], "images", loaded),
            *size_warnings(real.n, "reference images", loaded),
        )
        at.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="merge-", dir=at.work) as folder:
            document = finished(job, shards.merged(found, Path(folder)), real, at)
        document["timing"] = {"shards": [shard.told["timing"] for shard in found]}
        write_report(at.document, document)
        if stamp is not None:
            for text in stamp_(stamp, document):
                warn(text)
        _tell(document, output, at)


@contextlib.contextmanager
def _work(output: Path | None) -> Iterator[Output]:
    """Where the report goes; without --output a temporary folder, so that nothing is left and nothing resumed."""
    from evaluation.scoring.workdir import Output

    if output is not None:
        yield Output.at(output)
        return
    with tempfile.TemporaryDirectory(prefix="atelier-score-") as folder:
        yield Output(Path(folder) / "report.json", Path(folder) / ".partial", None, kept=False)


def _subset_size(found: Sequence[Shard]) -> int:
    """Images a subset of the kernel distance that the shards were made for. EvaluationError: they differ."""
    sizes = {shard.told.get("kid_subset_size", 1000) for shard in found}
    if len(sizes) > 1 or not all(isinstance(size, int) and size >= 2 for size in sizes):
        raise EvaluationError("the shards tell no one size of the kernel distance's subsets; say --kid-subset-size")
    return int(sizes.pop())


def _metrics(text: str) -> tuple[Metric, ...]:
    from evaluation.metrics import parse_metrics

    try:
        return tuple(parse_metrics(text))
    except ValueError as error:
        raise EvaluationError(str(error)) from None


def _tell(document: dict[str, Any], output: Path | None, at: Output) -> None:
    """Print the scores and write the report's views; CheckFailed when a threshold was missed."""
    from evaluation.report.schema import summary_lines

    for line in summary_lines(document):
        say(line)
    if at.images is not None:
        from evaluation.report.render import write_views

        write_views(at.document)
    if output is not None:
        say(f"report: {at.document if at.images is None else at.document.with_suffix('.html')}")
    limit = document["threshold"]
    if limit is not None and not limit["passed"]:
        value = document["scores"][limit["name"]]
        if value < 0:
            raise CheckFailed(f"{limit['name']} {value:.4f} is negative, which no distance is: take more images")
        raise CheckFailed(f"{limit['name']} {value:.4f} is above {limit['fail_above']:g}")
