"""`evaluation extractor|reference|score|merge|report|classify`. Heavy imports happen inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from artifacts.terminal import say
from evaluation import cli_score, report_cli  # noqa: F401 - their commands are the app's too
from evaluation.app import CacheRoot, DataRoot, app, finite, plain_errors, warn
from evaluation.errors import CheckFailed, EvaluationError

extractor_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make a feature extractor file (all but `seal` need torch)."
)
app.add_typer(extractor_app, name="extractor")

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
    with plain_errors():
        from evaluation.atomic import check_writable

        check_writable(output)
        _need_torch()
        from evaluation.extractors import load_extractor
        from evaluation.extractors.classifier import build_classifier
        from evaluation.extractors.suitability import suitability_warnings

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
        for text in suitability_warnings(load_extractor(built.path), force=True):
            warn(text)
        say(f"{built.path}: accuracy {built.metadata['accuracy']:.4f} on {built.metadata['test_dataset']}")


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
    with plain_errors():
        _need_torch()
        from evaluation.extractors.inception import WEIGHTS_SHA256_PREFIX, build_inception

        prefix = None if unverified else WEIGHTS_SHA256_PREFIX
        built = build_inception(weights, resize, output, expected_sha256_prefix=prefix)
        say(f"{built.path}: {built.metadata['name']}, metric {built.metadata['metric']}")


@extractor_app.command("seal")
def seal_(
    file: Annotated[Path, typer.Argument(help="An ONNX file: uint8 [N, H, W, C] or float [N, C, S, S] to [N, d].")],
    name: Annotated[str, typer.Option(help="Names its metrics: dinov2 gives fd_dinov2_10k.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The extractor file to write.")],
    resize: Annotated[
        str | None, typer.Option(help="For float inputs: tf1, torch, clean or linear-antialias, put in front of it.")
    ] = None,
    side: Annotated[int | None, typer.Option(help="The network's side in pixels, if its file leaves it open.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="By color, of pixels in [0, 1], with commas; default: ImageNet's.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="By color, with commas; default: ImageNet's.")] = None,
    features: Annotated[str | None, typer.Option(help="The output with the features, if there are several.")] = None,
    logits: Annotated[str | None, typer.Option(help="The output with class logits, for `--metrics is`.")] = None,
) -> None:
    """Check an ONNX file of your own, run it on noise, and write it as an extractor file."""
    with plain_errors():
        from evaluation.extractors.onnx_network import seal_onnx

        sealed = seal_onnx(
            file,
            output,
            name=name,
            resize=resize,
            side=side,
            mean=_numbers("--mean", mean),
            std=_numbers("--std", std),
            features=features,
            logits=logits,
        )
        for text in sealed.warnings:
            warn(text)
        told = sealed.metadata
        normalization = f", mean {told['mean']}, std {told['std']}" if "mean" in told else ""
        say(f"{sealed.path}: {sealed.dim} features, metric {told['metric']}, resize {told['resize']}{normalization}")


@app.command()
def reference(
    images: Annotated[
        str, typer.Argument(help="An image set, a folder, .zip, .npy or .npz of images; or a file to import.")
    ],
    extractor: ExtractorFile,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: reference/….npz.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side in pixels; default: the set's own.", min=1)] = None,
    channels: Annotated[int | None, typer.Option(help="1 or 3; default: the set's own.")] = None,
    num_images: Annotated[int | None, typer.Option(help="A fixed choice of N; default: all.", min=2)] = None,
    features: Annotated[
        bool, typer.Option(help="Keep the features beside the statistics: most metrics need them.")
    ] = True,
    import_as: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The argument is another tool's .npz, .npy or .pkl, made with this extractor."
        ),
    ] = None,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """Statistics of real images, to score others against; `score --reference SOURCE@SPLIT` makes its own."""
    with plain_errors():
        from evaluation.atomic import check_writable
        from evaluation.extractors import load_extractor
        from evaluation.extractors.extractor import file_stem
        from evaluation.references.cache import Places, make_reference
        from evaluation.references.importers import import_reference

        if output is not None:
            check_writable(output)
        loaded = load_extractor(extractor)
        if import_as is not None:
            if resolution is None:
                raise EvaluationError(f"--import-as needs --resolution, the size of the images that {images} is of")
            target = output or Path("reference") / f"{_slug(import_as)}-{resolution}px-{file_stem(loaded.name)}.npz"
            made = import_reference(
                Path(images), loaded, target, called=import_as, resolution=resolution, num_images=num_images
            )
            warn(f"{images} does not tell which extractor made it; that it was {loaded.name} is now your word")
        else:
            real = Places(data_root, cache_root).image_set(images, resolution, channels)
            side = real.info["resolution"]
            target = output or Path("reference") / f"{_slug(real.name)}-{side}px-{file_stem(loaded.name)}.npz"
            check_writable(target)
            keep = frozenset({"features"}) if features else frozenset()
            made = make_reference(real, loaded, target, num_images=num_images, keep=keep)
        for text in made.provenance["warnings"]:
            warn(text)
        say(f"{target}: {made.n} images of {made.image_set['name']}, {loaded.dim} features of {loaded.name}")


@app.command()
def classify(
    source: Annotated[str, typer.Argument(help="http://… of a service, a generator .onnx, or an image set.")],
    extractor: ExtractorFile,
    model: Annotated[str | None, typer.Option(help="A model of the service; default: the service's default.")] = None,
    num_images: Annotated[int, typer.Option(min=1)] = 256,
    seed: Annotated[int, typer.Option(help="The first seed; image i is of seed + i.", min=0)] = 0,
    sure: Annotated[
        float, typer.Option(help="Probability from which the classifier is sure.", min=0, max=1, callback=finite)
    ] = 0.9,
    min_sure_share: Annotated[
        float | None, typer.Option(help="Exit 1 when fewer images are sure.", min=0, max=1, callback=finite)
    ] = None,
    min_class_share: Annotated[
        float | None, typer.Option(help="Exit 1 when any class makes up less.", min=0, max=1, callback=finite)
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The JSON report to write.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take a classifier though its accuracy is below twice chance.")
    ] = False,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """How sure a classifier of the real images is of these, and how many of each class it sees."""
    with plain_errors():
        from evaluation.atomic import check_writable
        from evaluation.classification import check, classify_images
        from evaluation.extractors import load_extractor
        from evaluation.extractors.suitability import suitability_warnings
        from evaluation.report.schema import write_report
        from evaluation.sources import open_source

        if output is not None:
            check_writable(output)
        loaded = load_extractor(extractor)
        warnings = suitability_warnings(loaded, force=force)
        for text in warnings:
            warn(text)
        images = open_source(source, model=model, data_root=data_root, cache_root=cache_root)
        result = classify_images(images, loaded, num_images=num_images, first_seed=seed, sure=sure)
        failures = check(result, min_sure_share, min_class_share)
        if output is not None:
            limits = {"min_sure_share": min_sure_share, "min_class_share": min_class_share}
            result = {**result, "warnings": warnings}
            write_report(output, {**result, "threshold": {**limits, "passed": not failures, "failures": failures}})
        say(f"at least {sure:g} sure: {result['sure_share']:.1%} of {result['n']} images")
        for name, share in result["class_shares"].items():
            say(f"  {name}: {share:.1%}")
        if failures:
            raise CheckFailed("; ".join(failures))


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Return numbers that are separated by commas."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise EvaluationError(f"{option} is numbers with commas, such as 0.5,0.5,0.5, not {text!r}") from None


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name.removeprefix("folder:")).strip("-")


def _need_torch() -> None:
    import importlib.util

    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise EvaluationError(f"building an extractor needs {package}: pip install 'gan-atelier[train]'")
