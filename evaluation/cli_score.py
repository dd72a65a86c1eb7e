"""The commands `evaluation score` and `evaluation merge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.terminal import say
from evaluation.cli_common import (
    DEFAULT_EXTRACTOR,
    CacheRoot,
    DataRoot,
    Force,
    Seed,
    ServiceModel,
    finite,
    one_line_errors,
    warn,
)
from evaluation.errors import CheckFailedError, EvaluationError
from evaluation.metrics.registry import METRICS, MetricOptions

if TYPE_CHECKING:
    from evaluation.scoring.report import OutputPaths

Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="The folder of the report, or a .json file for the numbers only.")
]
FailAbove = Annotated[float | None, typer.Option(help="Exit 1 if the first metric is larger.", min=0, callback=finite)]
Baseline = Annotated[bool, typer.Option(help="Also score real images, train against test, for comparison.")]
METRICS_HELP = (
    f"{', '.join(METRICS)}, or your own as my_package.metrics:MY_METRIC; separated by commas. fid requests the Fréchet "
    "distance; the result is called FID only with Inception."
)


def score(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="http://… of a service, a generator .onnx, a checkpoint .pt or run folder, a folder or .zip of "
            "images, a .npy or .npz, or a dataset.",
        ),
    ],
    reference: Annotated[
        str,
        typer.Option(
            help="A dataset, such as mnist@test, a folder or .zip of images, a .npy or .npz, or a file of "
            "`evaluation reference`."
        ),
    ],
    extractor: Annotated[
        Path | None,
        typer.Option(
            help="The extractor file.", show_default=f"the one that made the reference file; {DEFAULT_EXTRACTOR}"
        ),
    ] = None,
    metrics: Annotated[str, typer.Option(help=METRICS_HELP)] = "fid",
    model: ServiceModel = None,
    num_images: Annotated[int, typer.Option(help="N, which is part of the score's name.", min=2)] = 10_000,
    seed: Seed = 0,
    intervals: Annotated[
        bool,
        typer.Option(
            "--intervals", help="Fréchet distances as mean and 95% interval over 5 disjoint ranges of N seeds."
        ),
    ] = False,
    truncation: Annotated[
        float | None, typer.Option(help="Truncate normal latents to [-t, t].", min=0.01, callback=finite)
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            metavar="<drawn|balanced|CLASS>",
            help="Labels for a conditional generator: drawn by the seeds, balanced, or one class.",
        ),
    ] = "drawn",
    resolution: Annotated[
        str | None,
        typer.Option(
            metavar="<PIXELS|reference>",
            help="Side or 64x96 at which to compare, or `reference` for the reference's.",
            show_default="the images' own",
        ),
    ] = None,
    kid_subset_size: Annotated[int, typer.Option(help="Images per subset of KID; 1,000 is usual.", min=2)] = 1000,
    output: Output = None,
    fail_above: FailAbove = None,
    baseline: Baseline = True,
    stamp: Annotated[
        Path | None, typer.Option(help="Store the scores in this generator file, which must be the scored model.")
    ] = None,
    all_checkpoints: Annotated[
        bool,
        typer.Option("--all-checkpoints", help="Score every checkpoint of a run folder."),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Score shard I of N, I from 0; combine the shards with `evaluation merge`."),
    ] = None,
    force: Force = False,
    patience: Annotated[
        float, typer.Option(help="Seconds to repeat a request while a service does not answer.", min=0, callback=finite)
    ] = 120.0,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """Score images against real ones. After an interruption the same command resumes."""
    with one_line_errors("; `score` with the same --output resumes from here"):
        from evaluation.references.data_paths import DataPaths
        from evaluation.scoring import run_job
        from evaluation.scoring.job import ScoreOptions, find_extractor, metrics_named
        from evaluation.scoring.report import output_paths
        from evaluation.scoring.shards import parse_shard, score_shard
        from evaluation.sources import SamplingOptions, checkpoints_of, is_run, resolve

        options = ScoreOptions(
            metrics_named(metrics),
            num_images=num_images,
            first_seed=seed,
            intervals=intervals,
            baseline=baseline,
            fail_above=fail_above,
            shard=None if shard is None else parse_shard(shard),
            metric_options=MetricOptions(kid_subset_size=kid_subset_size),
            force=force,
            resolution=resolution,
            model=model,
            sampling=SamplingOptions(truncation, labels),
            patience_s=patience,
            stamp=stamp,
            paths=DataPaths(data_root, cache_root),
            on_warning=warn,
        )
        if all_checkpoints and (shard is not None or not is_run(Path(source))):
            raise EvaluationError("--all-checkpoints needs a run folder, and cannot be combined with --shard")
        if shard is not None and (output is None or output.suffix == ".json"):
            raise EvaluationError("--shard needs an --output folder to write its share to")
        with output_paths(output) as files:
            real = resolve(reference).require_real_images()
            resolve(source)  # a name that does not exist is reported before an absent extractor
            loaded = find_extractor(extractor, options.paths, real)
            if shard is not None and output is not None:
                say(score_shard(source, reference, loaded, options, output))
                return
            if all_checkpoints:
                document = run_job.score_checkpoints(checkpoints_of(Path(source)), reference, loaded, options, files)
            else:
                document = run_job.score(source, reference, loaded, options, files)
            _finish(document, files, stamp)


def merge(
    paths: Annotated[
        list[Path], typer.Argument(metavar="SHARD", help="The folder that the shards are in, or the shards.")
    ],
    metrics: Annotated[
        str | None, typer.Option(help="Metrics, separated by commas.", show_default="those of the shards")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="The reference.", show_default="that of the shards")] = None,
    extractor: Annotated[
        Path | None, typer.Option(help="The extractor file.", show_default="that of the shards")
    ] = None,
    kid_subset_size: Annotated[
        int | None, typer.Option(help="Images per subset of KID.", min=2, show_default="that of the shards")
    ] = None,
    output: Output = None,
    fail_above: FailAbove = None,
    baseline: Baseline = True,
    stamp: Annotated[Path | None, typer.Option(help="Store the scores in this generator file.")] = None,
    force: Force = False,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """Merge shards into one score, equal to that of one job."""
    with one_line_errors():
        from evaluation.references.data_paths import DataPaths
        from evaluation.scoring.report import output_paths
        from evaluation.scoring.shards import merge_shards

        with output_paths(output) as files:
            document = merge_shards(
                paths,
                files,
                DataPaths(data_root, cache_root),
                metrics=metrics,
                reference=reference,
                extractor=extractor,
                kid_subset_size=kid_subset_size,
                baseline=baseline,
                fail_above=fail_above,
                force=force,
                on_warning=warn,
            )
            _finish(document, files, stamp)


def _finish(document: dict[str, Any], files: OutputPaths, stamp: Path | None) -> None:
    """Stamp and print the scores, and write the report's views; raise CheckFailedError if a threshold was missed."""
    from evaluation.report.document import summary_lines
    from evaluation.report.render import write_views
    from evaluation.report.stamp_generator import stamp as stamp_scores

    for text in [] if stamp is None else stamp_scores(stamp, document):
        warn(text)
    for line in summary_lines(document):
        say(line)
    if files.images is not None:
        write_views(files.document)
    if files.kept:
        say(f"report: {files.document if files.images is None else files.document.with_suffix('.html')}")
    limit = document["threshold"]
    if limit is not None and not limit["passed"]:
        value = document["scores"][limit["name"]]
        if value < 0:
            raise CheckFailedError(f"{limit['name']} {value:.4f} is negative, so not a distance: use more images")
        raise CheckFailedError(f"{limit['name']} {value:.4f} is above {limit['fail_above']:g}")
