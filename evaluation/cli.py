"""The `evaluation` command: parse, call, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from artifacts.terminal import say
from artifacts.typer_group import FilesCommand, command_group, examples
from evaluation.cli_classify import classify, modes
from evaluation.cli_common import (
    DEFAULT_EXTRACTOR,
    PIXELS,
    CacheRoot,
    DataRoot,
    ExtractorOutput,
    Force,
    one_line_errors,
    resolution_within,
    warn,
)
from evaluation.cli_score import merge, score
from evaluation.errors import EvaluationError

app = command_group(
    "Score images of a running service, a generator, a checkpoint or any files against real ones.",
    "evaluation fid generated/ photos/ --extractor inception.onnx",
    "evaluation score http://127.0.0.1:3000 --reference mnist@test \\",
    "    --extractor mnist.onnx -o report",
    "evaluation report report-a report-b",
)
extractor_app = command_group(
    "Make a feature extractor file. All except `seal` need PyTorch.",
    "evaluation extractor classifier --images mnist -o mnist.onnx",
)
app.add_typer(extractor_app, name="extractor")
app.command(
    epilog=examples(
        "evaluation score http://127.0.0.1:3000 --reference mnist@test \\",
        "    --extractor mnist.onnx -o report",
        "evaluation score model.onnx --reference cifar10@train \\",
        "    --extractor inception.onnx --metrics fid,recall",
        "evaluation score runs/my-run --all-checkpoints \\",
        "    --reference mnist.npz --fail-above 20",
    )
)(score)
app.command(cls=FilesCommand, epilog=examples("evaluation merge parts -o report"))(merge)


@extractor_app.command(epilog=examples("evaluation extractor classifier --images mnist -o mnist.onnx"))
def classifier(
    images: Annotated[str, typer.Option(help="The labeled dataset, such as mnist; accuracy is measured on its @test.")],
    output: ExtractorOutput,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
    resolution: Annotated[
        str | None,
        typer.Option(metavar=PIXELS, help="Input side in pixels, or 48x64.", callback=resolution_within(8, 64)),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the training.", min=0)] = 0,
    epochs: Annotated[int | None, typer.Option(help="Passes over the set.", min=1, show_default="by its size")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the extractor.", show_default="that of the file")] = None,
) -> None:
    """Train a small classifier on a dataset.

    It is an extractor for `fd_classifier` scores and for `classify`.
    """
    with one_line_errors():
        from evaluation.extractors.extractor_export import require_packages
        from evaluation.output_files import check_writable

        check_writable(output)
        require_packages("train")
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


@extractor_app.command(epilog=examples("evaluation extractor inception --resize torch -o inception.onnx"))
def inception(
    output: ExtractorOutput,
    resize: Annotated[
        str,
        typer.Option(
            metavar="<tf1|torch|clean>", help="As in torch-fidelity (tf1), pytorch-fid (torch) or clean-fid (clean)."
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option(help="pt_inception-2015-12-05-6726825d.pth.", show_default="download it")
    ] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Accept weights of another hash; the metric is then not called FID.")
    ] = False,
) -> None:
    """Build FID's Inception with one resize protocol.

    Its published weights are downloaded, or read with --weights.
    """
    with one_line_errors():
        from evaluation.extractors.extractor_export import require_packages

        require_packages("train")
        from evaluation.extractors.inception import WEIGHTS_SHA256_PREFIX, build_inception

        prefix = None if unverified else WEIGHTS_SHA256_PREFIX
        built = build_inception(weights, resize, output, expected_sha256_prefix=prefix)
        say(f"{built.path}: {built.metadata['name']}, metric {built.metadata['metric']}")


@extractor_app.command(
    "efficientnet-lite0", epilog=examples("evaluation extractor efficientnet-lite0 -o imagenet.onnx")
)
def efficientnet_lite0(
    output: ExtractorOutput,
    resolution: Annotated[
        int, typer.Option(metavar="<224|160>", help="Input side in pixels, which is part of the metric's name.")
    ] = 224,
) -> None:
    """Build EfficientNet-Lite0 with ImageNet's weights.

    They are in the packages of the extra `imagenet`. Its distance is not FID.
    """
    with one_line_errors():
        from evaluation.extractors.extractor_export import require_packages

        require_packages("imagenet")
        from evaluation.extractors.from_torch import build_efficientnet_lite0

        built = build_efficientnet_lite0(output, resolution)
        say(f"{built.path}: {built.metadata['name']}, metric {built.metadata['metric']}")


@extractor_app.command(
    "random-convolutions",
    epilog=examples("evaluation extractor random-convolutions --resolution 28 --channels 1 \\", "    -o random.onnx"),
)
def random_convolutions(
    output: ExtractorOutput,
    resolution: Annotated[
        str,
        typer.Option(
            metavar=PIXELS,
            help="Input side in pixels, or 64x96; give the images' own.",
            callback=resolution_within(4, 256),
        ),
    ] = "32",
    channels: Annotated[int, typer.Option(metavar="<1|3>", help="1 for gray images, 3 for color.")] = 3,
) -> None:
    """Build a network of fixed random weights.

    It prefers no kind of image. Training measures its progress in the same features.
    """
    with one_line_errors():
        from evaluation.extractors.extractor_export import require_packages

        require_packages("train")
        from evaluation.extractors.from_torch import build_random_convolutions

        built = build_random_convolutions(output, resolution, channels)
        say(f"{built.path}: {built.metadata['name']}, metric {built.metadata['metric']}")


@extractor_app.command(
    "seal",
    epilog=examples("evaluation extractor seal dinov2.onnx --name dinov2 \\", "    --resize clean -o extractor.onnx"),
)
def seal_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="An ONNX file: uint8 [N, H, W, C] or float [N, C, S, S] to [N, d]."),
    ],
    name: Annotated[str, typer.Option(help="Names its metrics: dinov2 gives fd_dinov2_10k.")],
    output: ExtractorOutput,
    resize: Annotated[
        str | None,
        typer.Option(
            metavar="<tf1|torch|clean|linear-antialias>",
            help="Resize to add before the network, for float inputs.",
        ),
    ] = None,
    side: Annotated[int | None, typer.Option(help="Input side in pixels, if the file leaves it open.")] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Per channel, of pixels in [0, 1], separated by commas.", show_default="ImageNet's"),
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Per channel, separated by commas.", show_default="ImageNet's")
    ] = None,
    features: Annotated[str | None, typer.Option(help="The output with the features, if there are several.")] = None,
    logits: Annotated[str | None, typer.Option(help="The output with class logits, for `--metrics is`.")] = None,
) -> None:
    """Check your own ONNX file and make it an extractor.

    It is run on noise: its features must be finite and deterministic. The digest of the file shows later changes.
    """
    with one_line_errors():
        from evaluation.extractors.from_onnx import seal_onnx

        sealed, warnings = seal_onnx(
            file,
            output,
            name=name,
            resize=resize,
            side=side,
            mean=_parse_numbers("--mean", mean),
            std=_parse_numbers("--std", std),
            features=features,
            logits=logits,
        )
        for text in warnings:
            warn(text)
        metadata = sealed.metadata
        normalization = f", mean {metadata['mean']}, std {metadata['std']}" if "mean" in metadata else ""
        say(
            f"{sealed.path}: {sealed.dim} features, metric {metadata['metric']}, "
            f"resize {metadata['resize']}{normalization}"
        )


@app.command(
    epilog=examples(
        "evaluation reference cifar10@train \\",
        "    --extractor inception.onnx -o cifar10.npz",
        "evaluation reference cifar10.pkl --import-as cifar10@train \\",
        "    --resolution 32 --extractor inception.onnx",
    )
)
def reference(
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES", help="A dataset, a folder, .zip, .npy or .npz of images; or a file to import."
        ),
    ],
    extractor: Annotated[
        Path | None, typer.Option(help="The extractor file; with --import-as needed.", show_default=DEFAULT_EXTRACTOR)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The statistics file to write.", show_default="reference/….npz"),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            metavar=PIXELS,
            help="Side in pixels, or HEIGHTxWIDTH such as 64x96.",
            show_default="the dataset's own",
            callback=resolution_within(1, 65536),
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(
            metavar="<1|3|4>", help="Channels of the images; 4 keeps transparency.", show_default="the dataset's own"
        ),
    ] = None,
    num_images: Annotated[int | None, typer.Option(help="Size of a fixed subset.", min=2, show_default="all")] = None,
    features: Annotated[
        bool, typer.Option(help="Keep the features next to the statistics: most metrics need them.")
    ] = True,
    import_as: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Import another tool's .npz, .npy or .pkl, which was made with this extractor."
        ),
    ] = None,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """Compute statistics of real images as a reference.

    `score --reference SOURCE@SPLIT` does this by default.
    """
    with one_line_errors():
        from evaluation.extractors.default import default_warnings
        from evaluation.output_files import check_writable
        from evaluation.references.data_paths import DataPaths
        from evaluation.references.importers import import_reference
        from evaluation.references.reference_set import default_path, make_reference
        from evaluation.scoring.job import find_extractor
        from evaluation.sources import resolve

        if output is not None:
            check_writable(output)
        if import_as is not None and (resolution is None or extractor is None):
            missing = "--extractor, the one that made it" if extractor is None else "--resolution, the images' side"
            raise EvaluationError(f"--import-as needs {missing}: {images} does not record it")
        paths = DataPaths(data_root, cache_root)
        # A name that does not exist is reported before an absent extractor.
        loaded = find_extractor(extractor, paths, *([] if import_as else [resolve(images).require_real_images()]))
        for text in default_warnings(loaded, paths.extractors):
            warn(text)
        if import_as is not None:
            assert resolution is not None
            target = output or default_path(import_as, resolution, loaded)
            made = import_reference(
                Path(images), loaded, target, name=import_as, resolution=resolution, num_images=num_images
            )
            warn(f"{images} does not record its extractor; that it was {loaded.name} is not verified")
        else:
            real = paths.load_images(images, resolution, channels)
            target = output or default_path(real.name, real.info["resolution"], loaded)
            check_writable(target)
            keep = frozenset({"features"}) if features else frozenset()
            made = make_reference(real, loaded, target, num_images=num_images, keep=keep)
        for text in made.provenance["warnings"]:
            warn(text)
        say(f"{target}: {made.n} images of {made.image_set['name']}, {loaded.dim} features of {loaded.name}")


@app.command(
    epilog=examples(
        "evaluation fid generated/ photos/ --extractor inception.onnx",
        "evaluation fid samples.npz cifar10@train --json",
    )
)
def fid(
    a: Annotated[
        str,
        typer.Argument(metavar="IMAGES", help="A folder, .zip, .npy, .npz, dataset, generator, checkpoint or URL."),
    ],
    b: Annotated[str, typer.Argument(metavar="OTHER", help="The same, or a file of `evaluation reference`.")],
    extractor: Annotated[
        Path | None,
        typer.Option(help="The extractor file.", show_default=DEFAULT_EXTRACTOR),
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option(help="Maximum number of images of each.", min=2, show_default="all, or 10,000 of a generator"),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            metavar="<PIXELS|reference>",
            help="Side or 64x96 at which to compare, or `reference` for that of OTHER.",
            show_default="the images' own",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    force: Force = False,
    data_root: DataRoot = Path("data"),
    cache_root: CacheRoot = None,
) -> None:
    """Print the Fréchet distance between two sets of images.

    The result is called FID only with Inception. For intervals, other metrics and a report use `score`.
    """
    with one_line_errors():
        from evaluation.references.data_paths import DataPaths
        from evaluation.scoring.distance import distance_between

        paths = DataPaths(data_root, cache_root)
        distance = distance_between(
            a,
            b,
            extractor=extractor,
            num_images=num_images,
            resolution=resolution,
            paths=paths,
            force=force,
            on_warning=warn,
        )
        say(json.dumps(vars(distance), ensure_ascii=False, allow_nan=False) if as_json else distance)


app.command(
    epilog=examples("evaluation classify http://127.0.0.1:3000 \\", "    --extractor mnist.onnx --min-sure-share 0.9")
)(classify)
app.command(epilog=examples("evaluation modes models/stacked-mnist.onnx --extractor mnist.onnx"))(modes)


@app.command(
    cls=FilesCommand,
    epilog=examples("evaluation report report", "evaluation report report-a report-b -o comparison"),
)
def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="REPORT", help="Folders of `score --output`, or their report.json.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder to write to.", show_default="that of a single report"),
    ] = None,
) -> None:
    """Write the pages of a report again, or compare reports.

    Only reports of the same protocol can be compared.
    """
    with one_line_errors():
        from evaluation.output_files import check_writable
        from evaluation.report.compare import compare
        from evaluation.report.reader import report_path
        from evaluation.report.render import comparison_lines, write_comparison, write_views

        if output is not None:
            if output.exists() and not output.is_dir():
                raise EvaluationError(f"cannot write {output}: it is a file; --output is a folder")
            check_writable(output / "report.html")
        if len(paths) == 1:
            written = write_views(report_path(paths[0]), output)
        else:
            comparison = compare(paths)
            for line in comparison_lines(comparison):
                say(line)
            written = [] if output is None else write_comparison(comparison, output)
        for path in written:
            say(path)


def _parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Return numbers that are separated by commas."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise EvaluationError(f"{option} is numbers with commas, such as 0.5,0.5,0.5, not {text!r}") from None
