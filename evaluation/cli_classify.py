"""`evaluation classify` and `evaluation modes`. Heavy imports happen inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from artifacts.terminal import say
from evaluation.cli_common import (
    PIXELS,
    CacheRoot,
    DataRoot,
    ExtractorFile,
    Force,
    Seed,
    ServiceModel,
    finite,
    one_line_errors,
    resolution_within,
    warn,
)
from evaluation.errors import CheckFailedError

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="http://… of a service, a generator .onnx, or a dataset.")
]
ReportFile = Annotated[Path | None, typer.Option("--output", "-o", help="The JSON report to write.")]


def classify(
    source: Source,
    extractor: ExtractorFile,
    model: ServiceModel = None,
    num_images: Annotated[int, typer.Option(help="How many images to classify.", min=1)] = 256,
    seed: Seed = 0,
    resolution: Annotated[
        str | None,
        typer.Option(
            metavar=PIXELS,
            help="Side in pixels to resize to, or 64x96.",
            show_default="the images' own",
            callback=resolution_within(1, 4096),
        ),
    ] = None,
    sure: Annotated[
        float,
        typer.Option(
            help="An image counts as recognized if the probability of its most likely class is at least this.",
            min=0,
            max=1,
            callback=finite,
        ),
    ] = 0.9,
    min_sure_share: Annotated[
        float | None, typer.Option(help="Exit 1 if a smaller share is recognized.", min=0, max=1, callback=finite)
    ] = None,
    min_class_share: Annotated[
        float | None, typer.Option(help="Exit 1 if a class has a smaller share.", min=0, max=1, callback=finite)
    ] = None,
    output: ReportFile = None,
    force: Force = False,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """Print the share of images that a classifier recognizes.

    Also print the share of each class.
    """
    with one_line_errors():
        from evaluation.classify import classify_images, failed_limits
        from evaluation.extractors import load_extractor
        from evaluation.extractors.suitability import suitability_warnings
        from evaluation.output_files import check_writable
        from evaluation.report.document import write_report
        from evaluation.sources import open_source, resolve
        from evaluation.sources.resized import at_resolution

        if output is not None:
            check_writable(output)
        resolve(source)  # a name that does not exist is reported before an absent extractor
        loaded = load_extractor(extractor)
        warnings = suitability_warnings(loaded, force=force)
        images = open_source(source, model=model, resolution=resolution, data_root=data_root, cache_root=cache_root)
        if resolution is not None:
            images, resize_warnings = at_resolution(images, resolution)
            warnings += resize_warnings
        for text in warnings:
            warn(text)
        report = classify_images(images, loaded, num_images=num_images, first_seed=seed, threshold=sure)
        failures = failed_limits(report, min_sure_share, min_class_share)
        if output is not None:
            limits = {"min_sure_share": min_sure_share, "min_class_share": min_class_share}
            threshold = {**limits, "passed": not failures, "failures": failures}
            write_report(output, report | {"warnings": warnings, "threshold": threshold})
        say(f"confidence of at least {sure:g}: {report['sure_share']:.1%} of {report['n']} images")
        for name, share in report["class_shares"].items():
            say(f"  {name}: {share:.1%}")
        if failures:
            raise CheckFailedError("; ".join(failures))


def modes(
    source: Source,
    extractor: ExtractorFile,
    model: ServiceModel = None,
    num_images: Annotated[int, typer.Option(help="How many images to classify.", min=1000)] = 26_000,
    seed: Seed = 0,
    baseline: Annotated[
        bool, typer.Option(help="Count the modes of stacked-mnist@test too, which needs MNIST in --data-root.")
    ] = True,
    output: ReportFile = None,
    force: Force = False,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """Count the modes of StackedMNIST that a generator covers.

    Trained on stacked-mnist, a generator draws a digit in each of three channels: 1,000 modes. The extractor is a
    classifier of MNIST. Also print the KL divergence of the modes' shares from equal shares (0 is best), and the
    classifier's mean confidence.
    """
    with one_line_errors():
        from evaluation.classify import STACKED_MNIST_TEST, count_modes
        from evaluation.extractors import load_extractor
        from evaluation.extractors.suitability import suitability_warnings
        from evaluation.output_files import check_writable
        from evaluation.report.document import write_report
        from evaluation.sources import open_source, resolve

        if output is not None:
            check_writable(output)
        resolve(source)  # a name that does not exist is reported before an absent extractor
        loaded = load_extractor(extractor)
        warnings = suitability_warnings(loaded, {"source": "mnist"}, force=force)
        for text in warnings:
            warn(text)
        roots: dict[str, Any] = {"data_root": data_root, "cache_root": cache_root}
        images = open_source(source, model=model, **roots)
        real = open_source(STACKED_MNIST_TEST, **roots) if baseline else None
        report = count_modes(images, loaded, num_images=num_images, first_seed=seed)
        say(f"{_coverage(report)} ({report['n']} images)")
        if real is not None:
            n = min(num_images, real.num_images or num_images)
            report["baseline"] = count_modes(real, loaded, num_images=n, first_seed=seed)
            say(f"real images: {_coverage(report['baseline'])} ({n} of {STACKED_MNIST_TEST})")
        if output is not None:
            write_report(output, report | {"warnings": warnings})


def _coverage(report: dict[str, Any]) -> str:
    return (
        f"{report['modes']} of {report['num_modes']} modes, KL {report['kl']:.4f}, "
        f"mean confidence {report['mean_confidence']:.1%}"
    )
