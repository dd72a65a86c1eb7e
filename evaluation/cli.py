"""`evaluation extractor|reference|score|classify`. Heavy imports happen inside the commands.

Exit codes: 0 done, 1 a threshold or check failed, 2 the user's mistake, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from evaluation.errors import CheckFailed, EvaluationError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Score images of a running service, a generator file or an image set against real ones.",
)
extractor_app = typer.Typer(no_args_is_help=True, help="Build a feature extractor file (needs torch).")
app.add_typer(extractor_app, name="extractor")

DataRoot = Annotated[Path, typer.Option(help="Where MNIST, CIFAR-10 and CelebA lie or are downloaded to.")]
CacheRoot = Annotated[Path | None, typer.Option(help="The image cache; default: $ATELIER_CACHE or ~/.cache.")]
ExtractorFile = Annotated[Path, typer.Option("--extractor", help="An extractor file.")]


@extractor_app.command()
def classifier(
    images: Annotated[str, typer.Option(help="The labelled image set, such as mnist; tested on its @test.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The extractor file to write.")],
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
    resolution: Annotated[int | None, typer.Option(help="Side in pixels it works at.", min=8, max=64)] = None,
    seed: Annotated[int, typer.Option(help="Fixes the weights; another seed gives another judge.", min=0)] = 0,
    epochs: Annotated[int | None, typer.Option(help="Passes over the set; default by its size.", min=1)] = None,
    name: Annotated[str | None, typer.Option(help="Its name; default: the file's.")] = None,
) -> None:
    """Train a small classifier on an image set: its features for `fd_classifier`, its classes for `classify`."""
    with _plain_errors():
        from evaluation.atomic import check_writable

        check_writable(output)
        _need_torch()
        from evaluation.extractors.classifier import build_classifier

        built = build_classifier(
            images,
            output,
            data_root=data_root,
            cache_root=cache_root,
            resolution=resolution,
            seed=seed,
            epochs=epochs,
            name=name,
        )
        print(f"{built.path}: accuracy {built.metadata['accuracy']:.4f} on {built.metadata['test_dataset']}")


@extractor_app.command()
def inception(
    output: Annotated[Path, typer.Option("--output", "-o", help="The extractor file to write.")],
    resize: Annotated[str, typer.Option(help="tf1 (torch-fidelity), torch (pytorch-fid) or clean (clean-fid).")],
    weights: Annotated[Path | None, typer.Option(help="pt_inception-2015-12-05-6726825d.pth.")] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Take weights of another hash; then it is not called FID.")
    ] = False,
) -> None:
    """FID's own Inception from its published weights, with one resize protocol."""
    with _plain_errors():
        _need_torch()
        from evaluation.extractors.inception import WEIGHTS_SHA256_PREFIX, build_inception

        prefix = None if unverified else WEIGHTS_SHA256_PREFIX
        built = build_inception(weights, resize, output, expected_sha256_prefix=prefix)
        print(f"{built.path}: {built.metadata['name']}, metric {built.metadata['metric']}")


@app.command()
def reference(
    images: Annotated[str, typer.Argument(help="An image set, such as mnist@test or folder:PATH.")],
    extractor: ExtractorFile,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: reference/….npz.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side in pixels; default: the set's own.", min=1)] = None,
    channels: Annotated[int | None, typer.Option(help="1 or 3; default: the set's own.")] = None,
    num_images: Annotated[int | None, typer.Option(help="A fixed choice of N; default: all.", min=2)] = None,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """Statistics of real images, to score others against."""
    with _plain_errors():
        from evaluation.atomic import check_writable
        from evaluation.extractors import load_extractor
        from evaluation.job import make_reference
        from evaluation.report import now, versions
        from evaluation.sources import ImageSetSource
        from evaluation.statistics import save_reference
        from imagesets import load_image_set

        if output is not None:
            check_writable(output)
        loaded = load_extractor(extractor)
        real = load_image_set(
            images, resolution=resolution, channels=channels, data_root=data_root, cache_root=cache_root
        )
        source = ImageSetSource(real)
        if output is None:
            stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in real.name.removeprefix("folder:"))
            output = Path("reference") / f"{stem.strip('-')}-{source.shape[0]}px-{loaded.name}.npz"
            check_writable(output)
        statistics, provenance, warnings = make_reference(source, loaded, num_images)
        for text in warnings:
            _warn(text)
        save_reference(output, statistics, {**provenance, "versions": versions(), "created": now()})
        print(f"{output}: {statistics.n} images of {real.name}, {loaded.dim} features of {loaded.name}")


@app.command()
def score(
    source: Annotated[str, typer.Argument(help="http://… of a service, a generator .onnx, or an image set.")],
    reference: Annotated[Path, typer.Option(help="Statistics made by `evaluation reference`.")],
    extractor: Annotated[
        Path | None, typer.Option(help="The extractor file; default: where the reference was made with it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model of the service; default: the service's default.")] = None,
    num_images: Annotated[int, typer.Option(help="N, which is part of the score's name.", min=2)] = 10_000,
    seed: Annotated[int, typer.Option(help="The first seed; image i is of seed + i.", min=0)] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The JSON report to write.")] = None,
    fail_above: Annotated[float | None, typer.Option(help="Exit 1 when the distance is larger.", min=0)] = None,
    baseline: Annotated[bool, typer.Option(help="Show train-against-test beside the score.")] = True,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """The Fréchet distance of a source's images to real ones: `fid10k`, or `fd_classifier10k`."""
    with _plain_errors():
        from evaluation import job
        from evaluation.atomic import check_writable
        from evaluation.extractors import load_extractor
        from evaluation.report import score_report, summary, write_json
        from evaluation.sources import open_source
        from evaluation.statistics import load_reference

        if output is not None:
            check_writable(output)
        real = load_reference(reference)
        loaded = load_extractor(extractor or _recorded_extractor(real.provenance))
        image_set = real.provenance["image_set"]
        images = open_source(
            source,
            model=model,
            resolution=image_set.get("resolution"),
            channels=image_set.get("channels"),
            data_root=data_root,
            cache_root=cache_root,
        )
        result = job.score(
            images,
            real,
            loaded,
            num_images=num_images,
            first_seed=seed,
            baseline=baseline,
            data_root=data_root,
            cache_root=cache_root,
            warn=_warn,
        )
        if output is not None:
            write_json(output, score_report(result, images, real, loaded, first_seed=seed, fail_above=fail_above))
        print("\n".join(summary(result, real)))
        if fail_above is not None and result.value > fail_above:
            raise CheckFailed(f"{result.name} {result.value:.4f} is above {fail_above:g}")


@app.command()
def classify(
    source: Annotated[str, typer.Argument(help="http://… of a service, a generator .onnx, or an image set.")],
    extractor: ExtractorFile,
    model: Annotated[str | None, typer.Option(help="A model of the service; default: the service's default.")] = None,
    num_images: Annotated[int, typer.Option(min=1)] = 256,
    seed: Annotated[int, typer.Option(help="The first seed; image i is of seed + i.", min=0)] = 0,
    sure: Annotated[float, typer.Option(help="Probability from which the classifier is sure.", min=0, max=1)] = 0.9,
    min_sure_share: Annotated[
        float | None, typer.Option(help="Exit 1 when fewer images are sure.", min=0, max=1)
    ] = None,
    min_class_share: Annotated[
        float | None, typer.Option(help="Exit 1 when any class makes up less.", min=0, max=1)
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The JSON report to write.")] = None,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """How sure a classifier of the real images is of these, and how many of each class it sees."""
    with _plain_errors():
        from evaluation.atomic import check_writable
        from evaluation.classification import check, classify_images
        from evaluation.extractors import load_extractor
        from evaluation.report import write_json
        from evaluation.sources import open_source

        if output is not None:
            check_writable(output)
        loaded = load_extractor(extractor)
        images = open_source(source, model=model, data_root=data_root, cache_root=cache_root)
        result = classify_images(images, loaded, num_images=num_images, first_seed=seed, sure=sure)
        failures = check(result, min_sure_share, min_class_share)
        if output is not None:
            limits = {"min_sure_share": min_sure_share, "min_class_share": min_class_share}
            write_json(output, {**result, "threshold": {**limits, "passed": not failures, "failures": failures}})
        print(f"at least {sure:g} sure: {result['sure_share']:.1%} of {result['n']} images")
        for name, share in result["class_shares"].items():
            print(f"  {name}: {share:.1%}")
        if failures:
            raise CheckFailed("; ".join(failures))


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Failures a person can act on are one line on stderr and an exit code, never a traceback."""
    from imagesets import ImageSetError

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        yield
    except CheckFailed as failed:
        print(f"failed: {failed}", file=sys.stderr)
        raise typer.Exit(1) from None
    except (EvaluationError, ImageSetError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        raise typer.Exit(130) from None


def _warn(text: str) -> None:
    print(f"WARNING: {text}", file=sys.stderr)


def _need_torch() -> None:
    import importlib.util

    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise EvaluationError(f"building an extractor needs {package}: pip install 'gan-atelier[train]'")


def _recorded_extractor(provenance: dict[str, object]) -> Path:
    recorded = provenance["extractor"]
    path = Path(str(recorded.get("path", ""))) if isinstance(recorded, dict) else Path()
    if not path.is_file():
        raise EvaluationError(f"the extractor that made the reference is not at {path} any more; give --extractor")
    return path
