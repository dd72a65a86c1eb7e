"""The command line. Heavy imports happen inside the commands, so that --help answers at once."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from artifacts.terminal import printable, say
from artifacts.typer_group import FilesCommand, OneLineErrors, command_group, command_name, examples
from trainer.cli_errors import one_line_errors

if TYPE_CHECKING:
    from trainer.api import Run
    from trainer.own_images.report import Inspection


class Commands(OneLineErrors):
    """The commands, whose errors are one line each."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given."""
        with one_line_errors():
            return super().invoke(ctx)


app = command_group(
    "Train GANs on your images and export their generators.",
    "trainer train photos/",
    "trainer train --preset digits-dcgan --export models",
    "trainer resume runs/0001-digits-dcgan",
    "trainer export runs/0001-digits-dcgan -o models",
    cls=Commands,
)

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
DataRoot = Annotated[Path, typer.Option("--data-root", envvar="DATA_ROOT", help="Folder of the downloaded datasets.")]
OnnxOutput = Annotated[Path, typer.Option("--output", "-o", help="A folder, or the path of the .onnx file.")]
FolderOutput = Annotated[
    Path | None, typer.Option("--output", "-o", help="The folder to write.", show_default="the run folder")
]
Best = Annotated[
    bool,
    typer.Option(
        "--best",
        help="Use the checkpoint with the lowest proxy distance so far instead of the latest; also while the run is "
        "being trained.",
    ),
]
Ema = Annotated[bool, typer.Option("--ema/--no-ema", help="Use the EMA generator, or G's weights after the last step.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Change a config field; repeat for several."),
]
UserCode = Annotated[
    bool,
    typer.Option(
        "--user-code/--no-user-code", help="Allow importing your own modules that the run names (runs their code)."
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        help="Where metrics and sample grids go too: tensorboard, trackio, mlflow, wandb, or none; separate several "
        "with commas, or repeat. Nothing leaves this machine unless you have set up a server.",
        show_default="tensorboard, or run.track",
    ),
]
ExportAfter = Annotated[
    Path | None, typer.Option("--export", help="After training, export the generator to this folder or .onnx file.")
]
ExportBest = Annotated[
    bool,
    typer.Option(
        "--best", help="With --export: the checkpoint with the lowest proxy distance so far instead of the latest."
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        metavar="M",
        help="Train for M minutes at most, then save and stop with exit code 0; `trainer resume` continues. They "
        "include looking at and loading the images, not the export. optim.decay_kimg still counts kimg.",
    ),
]


@app.command(
    epilog=examples(
        "# look at your images, choose settings, train, export:",
        "trainer train photos/",
        "trainer train photos.zip --dry-run",
        "# or choose yourself:",
        "trainer train --preset mnist-dcgan --export models",
        "trainer train --preset digits-dcgan --set optim.g_lr=1e-3 --dry-run",
        "trainer train --preset mnist-dcgan --track tensorboard,wandb",
        "# ten minutes, then the best generator so far:",
        "trainer train --minutes 10 --export models --best",
        "# fine-tune a run on your images:",
        "trainer train photos/ --init-from 0001-cifar10-small",
    )
)
def train(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="Your images: a folder, a .zip or another form, folder:PATH@SPLIT, or a dataset such as mnist. The "
            "settings that you do not give are chosen for them, and the generator is exported to `models`.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="A preset's name (see `trainer presets`) or the path of a YAML file.",
            show_default="chosen for SOURCE, else digits-dcgan; with --init-from the parent's settings",
        ),
    ] = None,
    set_: Set = None,
    track: Track = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|CHECKPOINT|GENERATOR",
            help="Start from the weights of a run (path, name or number in --runs; its latest checkpoint), a "
            "checkpoint-*.pt or a generator file (.onnx; G only). G and the EMA generator start from the EMA "
            "generator, the optimizers from zero. Without --preset, model, objective, ema, optim (except d_freeze; "
            "decay_kimg is scaled to the length) and data.resolution are the parent's; without data.source, all data "
            "fields are.",
        ),
    ] = None,
    freeze_d: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With --init-from: keep the weights of D's first N blocks, nearest the image (sets optim.d_freeze).",
            min=0,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the run, its generator file and the served model.",
            show_default="the `name` in the preset file, else that of the .onnx file in --export, of your images, or "
            "of the preset",
        ),
    ] = None,
    data_root: DataRoot = Path("data"),
    runs: Annotated[Path, typer.Option(help="Folder in which the numbered run folder is created.")] = Path("runs"),
    run_dir: Annotated[Path | None, typer.Option(help="Path of the new run folder, instead of a numbered one.")] = None,
    minutes: Minutes = None,
    export: ExportAfter = None,
    best: ExportBest = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the resolved config, and what --init-from would give it, and stop. With SOURCE, look at the "
            "images too; only their cache is written.",
        ),
    ] = False,
    user_code: UserCode = False,
) -> None:
    """Train a new run and write its folder.

    With SOURCE, look at the images first, print what was found and chosen and why, and how long it will take. Nothing
    is asked.

    The run folder holds checkpoints, metrics, TensorBoard events and sample grids. Ctrl-C finishes the step, saves, and
    prints how to continue. A tracker of --track that fails never stops the training.
    """
    from trainer.config import loading
    from trainer.run_names import name_of_output
    from trainer.training.run_folder import time_budget

    out_of_time = time_budget(minutes)
    if source is not None:
        export = export or Path("models")
    if not dry_run:
        _check_export(export, best)
    settings = [*_with_track(set_, track), *([] if freeze_d is None else [f"optim.d_freeze={freeze_d}"])]
    default = name_of_output(export) if export else None
    parent = None
    if init_from is not None:
        from trainer.finetune.parent import read_parent

        parent = read_parent(init_from, runs, user_code=user_code)
    found = None
    if source is not None:
        from trainer.own_images.inspection import inspect

        found = inspect(
            source,
            settings,
            preset=preset,
            parent=parent,
            name=name,
            default=default,
            data_root=data_root,
            user_code=user_code,
        )
        config = found.config
        _report(found, error=dry_run, is_late=out_of_time() and not dry_run)
    elif parent is None or preset is not None:
        config = loading.resolve(preset or "digits-dcgan", settings, name, default)
    else:
        from trainer.finetune.config import inherit_config

        config = inherit_config(parent, settings, name=name, default=default, user_code=user_code)
    if best and not config.run.quality_ticks:
        from trainer.errors import TrainerError

        raise TrainerError("--best needs a measure of quality: set run.quality_ticks above 0")
    if dry_run:
        from trainer import devices
        from trainer.data import with_channels
        from trainer.distributed import environment

        if environment.rank() == 0:
            from trainer.finetune.initialize import check_freezing, preview

            config = devices.resolve_auto(with_channels(config, data_root))
            if parent is None:
                check_freezing(config)
            else:
                for line in preview(parent, config):
                    say(line, error=True)
            typer.echo(loading.to_json(config), nl=False)
        return
    from trainer import api

    run = api.start_run(config, runs, run_dir=run_dir, parent=parent, data_root=data_root, out_of_time=out_of_time)
    _finish(run, export, best=best, user_code=True, found=found, data_root=data_root)


@app.command(
    epilog=examples("trainer resume runs/0001-mnist-dcgan", "trainer resume runs/0001-mnist-dcgan --kimg 1200")
)
def resume(
    run_dir: RunArgument,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change run.device, run.threads or another run field, or data.source if the images were moved.",
        ),
    ] = None,
    kimg: Annotated[float | None, typer.Option(help="A new length, in thousands of real images.", min=0.001)] = None,
    track: Track = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            "--data-root",
            envvar="DATA_ROOT",
            help="Folder of the downloaded datasets.",
            show_default="the folder that the run used before",
        ),
    ] = None,
    other_images: Annotated[
        bool, typer.Option("--other-images", help="Continue even though the images have changed since the run began.")
    ] = False,
    minutes: Minutes = None,
    export: ExportAfter = None,
    best: ExportBest = False,
    user_code: UserCode = False,
) -> None:
    """Continue an interrupted run as if it had never stopped.

    On a CPU with the same number of threads it continues bit for bit.
    """
    from trainer import api
    from trainer.training.run_folder import time_budget

    out_of_time = time_budget(minutes)
    _check_export(export, best)
    run = api.resume_run(
        run_dir,
        _with_track(set_, track),
        kimg=kimg,
        data_root=data_root,
        other_images=other_images,
        out_of_time=out_of_time,
        user_code=user_code,
    )
    _finish(run, export, best=best, user_code=user_code)


def _with_track(overrides: list[str] | None, track: list[str] | None) -> list[str]:
    """Return the overrides of --set, and that of --track, which is short for run.track."""
    return [*(overrides or ()), *([f"run.track={','.join(track)}"] if track else ())]


def _check_export(output: Path | None, best: bool) -> None:
    """Raise TrainerError before the training if its export could not be made."""
    if best and output is None:
        from trainer.errors import TrainerError

        raise TrainerError("--best chooses what --export writes; add --export models, or export later")
    if output is not None:
        from trainer.onnx_export.exporter import require_runtime, require_writable

        require_runtime()
        require_writable(output)


def _report(found: Inspection, *, error: bool, is_late: bool) -> None:
    """Print an inspection, on stderr if stdout has the config, and whether it used up the time."""
    from trainer.distributed import environment
    from trainer.own_images.report import lines

    if environment.rank() == 0:
        for line in lines(found):
            say(line, error=error)
        if is_late:
            say("note: the look used up all --minutes: the training takes one step; give more to learn from the images")


def _finish(
    run: Run,
    output: Path | None,
    *,
    best: bool,
    user_code: bool,
    found: Inspection | None = None,
    data_root: Path = Path("data"),
) -> None:
    """Export a trained run if requested and print what to do with it; exit with 130 if a signal stopped it."""
    from trainer.config.loading import has_default_name
    from trainer.distributed import environment
    from trainer.onnx_export.exporter import export
    from trainer.run_names import name_of_output

    path, flag = shlex.quote(str(run.path)), " --user-code" if ":" in run.config.model.architecture else ""
    if run.interrupted:
        if found is not None and output is not None and environment.rank() == 0:
            to = shlex.quote(str(output))
            say(f"to export what it has learned so far: {command_name('trainer')} export {path} -o {to}{flag}")
        raise typer.Exit(130)
    if environment.rank() > 0:
        return
    if output is None:
        say(f"to serve its generator: {command_name('trainer')} export {path}{flag}")
        return
    name = name_of_output(output) if has_default_name(run.config) else None
    if best and run.checkpoints.best is None:
        say(f"note: quality was not measured until now; exporting the latest checkpoint of {run.path}", error=True)
        best = False
    content = _load_checkpoint(run.path, best)
    exported = export(content, output, name=name, user_code=user_code)
    if found is None:
        _print_lines(exported.summary())
        return
    from trainer.own_images.next_steps import score_lines, serve_lines

    _print_lines(exported.summary()[:-1])
    _print_lines(serve_lines(exported.name, exported.path.parent))
    _print_lines(score_lines(found, exported.path, data_root))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def _load_checkpoint(source: Path, best: bool = False) -> dict[str, Any]:
    from trainer import api

    content = api.load_checkpoint(source, best=best, warn=lambda line: say(line, error=True))
    if best:
        from trainer.training.checkpoint import describe_best

        say(describe_best(content))
    return content


@app.command(
    epilog=examples(
        "trainer export runs/0001-mnist-dcgan -o models",
        "trainer export models/mnist-dcgan.onnx --name digits",
        "trainer export models/mnist-dcgan.onnx --optimize int8 -o fast",
    )
)
def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run folder or a checkpoint file; with --name or --optimize also a generator file."
        ),
    ],
    output: OnnxOutput = Path("models"),
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the served model.", show_default="that of the .onnx file in --output, else of the run"
        ),
    ] = None,
    best: Best = False,
    ema: Ema = True,
    optimize: Annotated[
        Literal["none", "fp16", "int8"], typer.Option(help="int8: faster on CPUs with VNNI; fp16: on GPUs.")
    ] = "none",
    reference: Annotated[
        Path | None, typer.Option(help="Reference statistics to score both versions against, with --extractor.")
    ] = None,
    extractor: Annotated[Path | None, typer.Option(help="The extractor file that made --reference.")] = None,
    num_images: Annotated[
        int | None, typer.Option(help="Number of images to score.", min=2, show_default="10000")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write the optimized version even if a check fails.")] = False,
    user_code: UserCode = False,
) -> None:
    """Export a run's generator to a generator file.

    It is the EMA generator (exponential moving average of G's weights) unless --no-ema is given, and is compared with
    PyTorch. With --optimize, build an optimized version too; write it if it passes the checks on speed, pixels and
    score.
    """
    from trainer.errors import TrainerError
    from trainer.onnx_export import exporter
    from trainer.run_names import is_onnx_path, name_of_output

    is_file = is_onnx_path(source) and not best
    if (reference is None) != (extractor is None):
        raise TrainerError("a score needs both --reference and --extractor")
    if optimize == "none" and (reference or force):
        raise TrainerError("--reference, --extractor and --force belong to --optimize int8 or fp16")
    if num_images is not None and reference is None:
        raise TrainerError("--num-images needs a score: --reference and --extractor")
    if optimize == "none" and is_file and name is None:
        raise TrainerError(
            f"{source} is a generator file already; --name renames its model, --optimize int8 or fp16 "
            "makes a faster version of it"
        )
    if not ema and is_file:
        raise TrainerError(f"--no-ema chooses between a checkpoint's two generators; {source} holds one")
    if optimize == "none" and is_file and name is not None:
        path, digest = exporter.rename(source, output, name)
        say(f"renamed: {path} (model {name}, sha256 {digest[:12]}…)")
        return
    content = {} if is_file else _load_checkpoint(source, best)
    if content:
        name = name or name_of_output(output)
    if optimize == "none":
        _print_lines(exporter.export(content, output, name=name, ema=ema, user_code=user_code).summary())
        return

    from trainer.onnx_export.benchmark import Scorer
    from trainer.onnx_export.quantize import load_plain
    from trainer.onnx_export.quantize import optimize as make_optimized

    exporter.require_runtime()
    scorer = Scorer(reference, extractor) if reference and extractor else None
    made = exporter.make_model(content, name, ema=ema, user_code=user_code) if content else None
    plain = made[0] if made else load_plain(source, name)
    images = num_images or 10_000
    result = make_optimized(plain, output, optimize, source=source, scorer=scorer, num_images=images, force=force)
    _print_lines(result.summary())
    say(f"exported: {result.path} (sha256 {result.digest[:12]}…), the report {result.report_path}")


@app.command(
    "import",
    epilog=examples(
        "trainer import netG_epoch_24.pth --architecture dcgan \\", "    --dataset celeba --name faces -o models"
    ),
)
def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A third-party state dict (.pth, .pt, .ckpt, .safetensors)."),
    ],
    architecture: Annotated[Literal["dcgan", "mlp"], typer.Option(help="Architecture of the generator.")],
    output: OnnxOutput = Path("models"),
    name: Annotated[str | None, typer.Option(help="Name of the served model.", show_default="the file's name")] = None,
    dataset: Annotated[str, typer.Option(help="Dataset name to store in the file's metadata.")] = "unknown",
    z_distribution: Annotated[
        Literal["normal", "uniform"], typer.Option(help="The distribution of its latents.")
    ] = "normal",
    images_seen: Annotated[int, typer.Option(help="Number of real images in its training, if known.", min=0)] = 0,
    activation: Annotated[
        str | None,
        typer.Option(
            help="Activation between its layers: relu, leaky-relu, leaky-relu:0.1, elu, selu, gelu, silu, tanh.",
            show_default="relu",
        ),
    ] = None,
    output_activation: Annotated[
        str | None,
        typer.Option(metavar="<tanh|sigmoid|none>", help="Activation after its last layer.", show_default="tanh"),
    ] = None,
    batchnorm_eps: Annotated[
        float | None, typer.Option(help="ε of its BatchNorm layers.", show_default="1e-05")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The key of the generator in the file: g_ema, params_ema, state_dict.generator …"),
    ] = None,
) -> None:
    """Convert a third-party generator to a generator file.

    An example is netG_epoch_N.pth of the PyTorch examples. Layers are matched by shape and order, not by name; layers
    that do not match are reported. A state dict does not contain activations, BatchNorm's ε, strides or the
    distribution of latents: the command prints what it assumes.
    """
    from trainer.networks.imported_activations import Layers
    from trainer.onnx_export import exporter, state_dict_import
    from trainer.run_names import name_of_file, name_of_output

    given = {"activation": activation, "output_activation": output_activation, "batchnorm_eps": batchnorm_eps}
    layers = Layers(**{field: value for field, value in given.items() if value is not None})  # type: ignore[arg-type]
    exporter.require_runtime()
    name = name or name_of_output(output) or name_of_file(file)
    made = state_dict_import.import_state_dict(
        file,
        architecture,
        name=name,
        dataset=dataset,
        z_distribution=z_distribution,
        images_seen=images_seen,
        layers=layers,
        key=key,
    )
    _print_lines(exporter.export(made, output, name=name).summary())
    say(state_dict_import.assumptions(layers, architecture, z_distribution, file))


@app.command(epilog=examples("trainer sample runs/0001-mnist-dcgan --seed 100 --num-images 16 -o early.png"))
def sample(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a checkpoint file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")] = Path("samples.png"),
    seed: Annotated[int, typer.Option(help="Seed of the first image; the others follow.", min=0)] = 0,
    count: Annotated[int, typer.Option("--num-images", help="Number of images.", min=1, max=4096)] = 64,
    best: Best = False,
    ema: Ema = True,
    user_code: UserCode = False,
) -> None:
    """Draw a grid of a run's images.

    The service returns the same images for the same seeds.
    """
    from artifacts.latents import NUM_SEEDS
    from trainer.errors import TrainerError
    from trainer.reports import image_grids
    from trainer.training import checkpoint

    if seed + count > NUM_SEEDS:
        raise TrainerError(f"the last seed is {NUM_SEEDS - 1}; --seed {seed} and {count} images exceed it")
    if output.suffix != ".png":
        raise TrainerError(f"a grid is written as PNG; name it {output.with_suffix('.png')}")
    content = _load_checkpoint(source, best)
    z_distribution = checkpoint.config_of(content).model.z_distribution
    G = checkpoint.generator_of(content, ema=ema, user_code=user_code)
    images = image_grids.sample(G, range(seed, seed + count), z_distribution)
    image_grids.write_png(image_grids.grid(images), output)
    say(f"{output}: seeds {seed} to {seed + count - 1}")


@app.command(epilog=examples("trainer animate runs/0001-mnist-dcgan --fps 2 -o animations"))
def animate(
    run_dir: RunArgument,
    output: FolderOutput = None,
    fps: Annotated[float, typer.Option(help="Ticks per second.", min=0.5, max=50)] = 8.0,
) -> None:
    """Draw a run's progress as animations.

    Write fixed.gif and .webp (the same seeds each tick), random.gif and .webp (new seeds).
    """
    from trainer.reports import pages

    for kind in pages.KINDS:
        say("  ".join(str(path) for path in pages.animate(run_dir, kind, fps, output)))


@app.command(epilog=examples("trainer report runs/0001-mnist-dcgan -o report"))
def report(run_dir: RunArgument, output: FolderOutput = None) -> None:
    """Write a run's curves.png, animations and report.html now.

    A run also writes them at its end.
    """
    from trainer.reports import pages

    say(pages.write_report(run_dir, output))


@app.command(cls=FilesCommand, epilog=examples("trainer compare runs/0001-mnist-gan runs/0002-mnist-dcgan -o compare"))
def compare(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, two or more.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("compare"),
) -> None:
    """Compare runs after equally many real images.

    Write compare.html with parameters, time, curves, images and quality.
    """
    from rich.table import Table

    from trainer.console import print_table
    from trainer.reports import comparison, pages

    page = comparison.compare(run_dirs, output)
    document = pages.read_json(output / "compare.json")
    table = Table("", *map(printable, document["runs"]), box=None)
    for title, values in document["rows"].items():
        table.add_row(printable(title), *map(printable, values))
    print_table(table)
    say(f"{page}: at {document['images_seen'] / 1000:g} kimg")


@app.command(
    epilog=examples(
        "# which latent size?",
        "trainer sweep --vary model.z_dim=8,24,100 --set run.total_kimg=40",
        "# two learning rates, three seeds of each pair, two runs at a time:",
        "trainer sweep --preset mnist-dcgan --seeds 3 --jobs 2 \\",
        "    --vary optim.g_lr=1e-4,2e-4,4e-4 --vary optim.d_lr=1e-4,2e-4",
        "# narrower or wider, fewer or more layers (a value may be a list):",
        "trainer sweep --vary 'model.g_widths=[96,32,8],[192,64,16],[192,96,32,8]'",
        "# thirty settings that Optuna chooses within ranges:",
        "trainer sweep --sampler tpe --trials 30 \\",
        "    --vary optim.g_lr=1e-5..1e-2:log --vary optim.batch_size=16..128",
    )
)
def sweep(
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="SECTION.FIELD=VALUES", help="A field and its values, or a range; repeat for several."),
    ] = None,
    preset: Annotated[str, typer.Option(help="The preset or YAML file of every run.")] = "digits-dcgan",
    set_: Set = None,
    seeds: Annotated[int, typer.Option(help="Runs per setting, reported as mean ± std.", min=1, max=100)] = 1,
    sampler: Annotated[
        str,
        typer.Option(
            metavar="<grid|random|tpe>",
            help="grid: every combination; random or tpe: --trials settings, also from ranges.",
        ),
    ] = "grid",
    trials: Annotated[int | None, typer.Option(help="Settings to draw.", min=1, max=100_000, show_default="20")] = None,
    jobs: Annotated[int, typer.Option(help="Runs at a time; they share the cores.", min=1, max=256)] = 1,
    data_root: DataRoot = Path("data"),
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The sweep's folder.", show_default="sweeps/PRESET-FIELD"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trials, count the images, and stop.")] = False,
) -> None:
    """Train one preset with many settings and find the best.

    Write sweep.html with images, plots and a table. However the sweep was stopped (Ctrl-C, kill -9, a power cut), the
    same command resumes it.

    A failed run is recorded with its reason, and the sweep continues. The score is a run's lowest proxy distance
    (random features).
    """
    from trainer.sweep import runner
    from trainer.sweep.plan import make_plan

    plan = make_plan(preset, set_ or (), vary or (), sampler=sampler, trials=trials, seeds=seeds)
    plan = runner.with_channels(plan, data_root)
    folder = output or plan.default_folder
    if dry_run:
        _print_lines(plan.list_trials(folder))
        return

    from trainer.console import progress_console

    code = runner.run_sweep(plan, folder, data_root, jobs, progress_console())
    raise typer.Exit(code)


@app.command()
def presets() -> None:
    """List the presets with their networks, objective and length."""
    from rich.table import Table

    from trainer import networks
    from trainer.config import loading
    from trainer.console import print_table

    columns = ("preset", "data", "networks", "G / D parameters", "objective", "batch", "length (kimg)")
    table = Table(*columns, box=None)
    for name in loading.preset_names():
        config = loading.resolve(name)
        data = f"{config.data.source} {config.data.resolution} px"
        parameters = " / ".join(f"{networks.parameter_count(network):,}" for network in networks.build(config))
        objective, batch = config.objective.name, str(config.optim.batch_size)
        kimg = f"{config.run.total_kimg:g}"
        table.add_row(name, data, config.model.architecture, parameters, objective, batch, kimg)
    print_table(table)


@app.command()
def datasets() -> None:
    """List the datasets, and how to use your own images."""
    from rich.table import Table

    from imagesets import list_sources
    from trainer.console import print_table

    table = Table("source", "splits", "size", "channels", "description", box=None)
    for source in list_sources():
        size = "any" if source.resolution is None else f"{source.resolution} px"
        channels = "any" if source.resolution is None else str(source.channels)
        table.add_row(source.name, ", ".join(source.splits), size, channels, source.description)
    print_table(table)
    typer.echo(
        "\nUse SOURCE or SOURCE@SPLIT: trainer train photos/, or with a preset: trainer train --preset digits-dcgan "
        "--set data.source=folder:photos --set model.conditional=false"
    )


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["MPLBACKEND"] = "agg"  # figures are only saved, and matplotlib refuses to import with an unknown one
    app()
