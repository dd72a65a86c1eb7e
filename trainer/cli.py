"""The command line. Heavy imports happen inside the commands, so that --help answers at once."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from artifacts.command_line import NO_HOME, OneLineErrors, as_typed, is_homeless
from artifacts.terminal import printable, say

if TYPE_CHECKING:
    from trainer.config.schema import Config
    from trainer.distributed.process_group import World
    from trainer.onnx_export.exporter import ExportResult

app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    help="Train GANs on an image set and export their generators.\n\n"
    "Try it: trainer train --preset digits-dcgan --export models",
)

DataRoot = Annotated[Path, typer.Option("--data-root", envvar="DATA_ROOT", help="Folder of the downloaded image sets.")]
Best = Annotated[
    bool, typer.Option("--best", help="Of the checkpoint with the lowest Fréchet distance, not the newest.")
]
Average = Annotated[
    bool, typer.Option("--ema/--no-ema", help="The averaged generator, or G's weights as the last step left them.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Change a config field; repeat for several."),
]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """A user's mistake is one line on stderr and exit code 2; a diverged run is exit code 1."""
    from imagesets import ImageSetError
    from trainer import interrupt
    from trainer.errors import PeersLost, TrainerError, TrainingDiverged

    try:
        interrupt.Guard.working = True
        yield
    except (PeersLost, TrainingDiverged) as error:
        _complain(str(error), unless_others=isinstance(error, PeersLost))
        raise typer.Exit(1) from None
    except (TrainerError, ImageSetError) as error:
        _complain(str(error))
        raise typer.Exit(2) from None
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        _complain(f"{error}; " + ("pip install 'gan-atelier[train]'" if missing else "is the memory or the disk full?"))
        raise typer.Exit(2) from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or _is_out_of_memory(error):
            _complain("the memory is full; lower optim.batch_size. Checkpoints that were saved are kept")
        elif is_homeless(error):
            _complain(NO_HOME)
        else:
            raise
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        say("interrupted", error=True)
        raise typer.Exit(130) from None
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        _complain(f"{error.strerror or error}{where}")
        raise typer.Exit(2) from None


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether PyTorch could not allocate memory, on the CPU or on a GPU."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _complain(message: str, *, unless_others: bool = False) -> None:
    """A line on stderr: one, however many processes say it. `unless_others`: none, if another said anything."""
    from trainer.distributed import launch

    launch.ignore_signals()
    if launch.is_first_to_tell(message, unless_others=unless_others):
        say(f"error: {message}", error=True)


@app.command()
def train(
    preset: Annotated[
        str, typer.Option(help="A preset's name (see `trainer presets`) or the path of a YAML file.")
    ] = "digits-dcgan",
    set_: Set = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the run, its generator file and the served model. Default: the name of the .onnx file in "
            "--export, else of your images, else of the preset."
        ),
    ] = None,
    data_root: DataRoot = Path("data"),
    runs: Annotated[Path, typer.Option(help="Where the new, numbered run folder is made.")] = Path("runs"),
    run_dir: Annotated[Path | None, typer.Option(help="The new run folder itself, in place of a numbered one.")] = None,
    export: Annotated[
        Path | None, typer.Option(help="Afterwards export the generator to this folder or .onnx file.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved config and stop.")] = False,
) -> None:
    """Train a new run: a run folder with checkpoints, metrics, TensorBoard events and sample grids.

    Ctrl-C finishes the step, saves, and says how to go on.
    """
    with one_line_errors():
        from trainer.config import schema as configuration

        if export is not None and not dry_run:
            from trainer.onnx_export.exporter import require_runtime, require_writable

            require_runtime()
            require_writable(export)
        from trainer.names import is_onnx_path, name_of_file

        default = name_of_file(export) if export is not None and is_onnx_path(export) else None
        config = configuration.resolve(preset, set_ or (), name, default)
        if dry_run:
            from trainer.distributed import launch
            from trainer.training import devices, run_folder

            if launch.rank() == 0:
                config = run_folder.with_channels(config, data_root)
                typer.echo(configuration.to_json(devices.choose(config)), nl=False)
            return
        _train_new(config, data_root, runs, run_dir, export)


def _train_new(config: Config, data_root: Path, runs: Path, at: Path | None, export: Path | None) -> None:
    from trainer import networks
    from trainer.console import progress_console
    from trainer.distributed import launch
    from trainer.training import devices, run_folder

    config = devices.choose(config)
    with launch.first_on_this_machine():
        images, config = run_folder.load_images(config, data_root)
    world, config = launch.join(config, {"command": "train", "image set": images.info.get("fingerprint")})
    console = progress_console(quiet=not world.leads)
    run_dir = runs
    if world.leads:
        run_dir = run_folder.create_at(at, config) if at else run_folder.create(runs, config)
    run_dir = world.broadcast(run_dir)
    G, D = networks.build(config)
    console.print(
        f"{config.name}: {len(images.images):,} images of {config.data.source} at {config.data.resolution} px; "
        f"G {networks.parameter_count(G):,} and D {networks.parameter_count(D):,} parameters; "
        f"{config.run.device}, {config.run.precision}, {config.run.threads} threads"
        f"{f' in each of {world.size} processes' if world.size > 1 else ''} → {run_dir}"
    )
    _finish(lambda: run_folder.start(config, images, run_dir, console, world, data_root), run_dir, export, world)


@app.command()
def resume(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change run.device, run.threads and other run fields, or data.source: where the same images are now.",
        ),
    ] = None,
    kimg: Annotated[float | None, typer.Option(help="A new length, in thousands of real images.", min=0.001)] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            "--data-root",
            envvar="DATA_ROOT",
            help="Folder of the downloaded image sets. Default: the one that the run began with.",
        ),
    ] = None,
    other_images: Annotated[
        bool, typer.Option("--other-images", help="Continue even though the images have changed since the run began.")
    ] = False,
    export: Annotated[Path | None, typer.Option(help="Afterwards export to this folder or .onnx file.")] = None,
) -> None:
    """Go on with an interrupted run, as if it had never stopped (bit-exactly, on a CPU with as many threads)."""
    with one_line_errors():
        from trainer.config import schema as configuration
        from trainer.console import progress_console
        from trainer.distributed import launch
        from trainer.errors import TrainerError
        from trainer.training import checkpoint, devices, run_folder

        if export is not None:
            from trainer.onnx_export.exporter import require_runtime, require_writable

            require_runtime()
            require_writable(export)
        console = progress_console(quiet=launch.rank() > 0)
        path, payload, complaints = checkpoint.newest(run_dir)
        for complaint in complaints:
            console.print(f"warning: {complaint}; using the one before")
        checkpoint.check_same_config(run_dir, payload)
        recorded = checkpoint.config_of(payload)
        decay = recorded.optim.decay_kimg
        if kimg and decay and kimg > decay[1]:
            raise TrainerError(
                f"{run_dir} ends at {decay[1]:g} kimg, where its learning rates have fallen to 0 (optim.decay_kimg); "
                f"train a longer run anew, with --set run.total_kimg={kimg:g} and a later optim.decay_kimg"
            )
        config = configuration.override(recorded, [*(set_ or ()), *([f"run.total_kimg={kimg}"] if kimg else ())])
        fixed = [
            line
            for line in configuration.differences(recorded, config)
            if not line.startswith(("run.", "data.source: ")) or line.startswith("run.seed")
        ]
        if fixed:
            raise TrainerError(f"these fields cannot change when resuming: {'; '.join(fixed)}")
        given = {line.partition("=")[0] for line in set_ or ()}
        if "run.device" not in given and not devices.is_here(config.run.device):
            console.print(f"note: {run_dir} was trained on {config.run.device}, which is not here: not bit-exact")
            automatic = [f"{field}=auto" for field in ("run.device", "run.precision") if field not in given]
            config = configuration.override(config, automatic)
        if config.run.device != recorded.run.device and "run.cuda_graphs" not in given:
            config = configuration.override(config, ["run.cuda_graphs=auto"])  # it was decided for the other device
        config = devices.choose(config)
        seen = payload["counters"]["images_seen"]
        if seen >= config.run.total_kimg * 1000:
            console.print(f"{run_dir} is finished at {seen / 1000:g} kimg; train on with --kimg, above {seen / 1000:g}")
            _export_if_asked(run_dir, export)
            return
        found = run_folder.images_of(run_dir, config, data_root, moved="data.source" in given, other=other_images)
        images = found.images
        if found.note:
            console.print(found.note)
        if found.changed:
            payload["best"] = None  # it was measured against other images
        told = {"command": f"resume from {path.name}", "image set": images.info.get("fingerprint")}
        world, config = launch.join(config, told)
        console.print(f"{run_dir}: from {path.name}, {seen / 1000:.1f} kimg")
        _finish(
            lambda: run_folder.resume(run_dir, payload, config, images, console, world, found.record),
            run_dir,
            export,
            world,
        )


def _finish(train: Callable[[], bool], run_dir: Path, export: Path | None, world: World) -> None:
    with world.together():
        finished = train()
        if not finished:
            if world.leads:
                resuming = "torchrun … -m trainer" if world.size > 1 else as_typed("trainer")
                say(f"stopped and saved; go on with: {resuming} resume {shlex.quote(str(run_dir))}")
            world.wait()  # torchrun ends the others as soon as one has left
            raise typer.Exit(130)
    if not world.leads:
        return
    say(f"trained: {run_dir}; open {shlex.quote(str(run_dir / 'report.html'))}")
    if export is None:
        say(f"to serve its generator: {as_typed('trainer')} export {shlex.quote(str(run_dir))}")
    _export_if_asked(run_dir, export)


def _export_if_asked(run_dir: Path, output: Path | None) -> None:
    from trainer.distributed import launch

    if output is not None and launch.rank() == 0:
        from trainer.config import schema as configuration
        from trainer.onnx_export.exporter import export
        from trainer.training import checkpoint

        payload = checkpoint.newest(run_dir)[1]
        unnamed = configuration.has_default_name(checkpoint.config_of(payload))
        _tell(export(payload, output, name=_name_of(output) if unnamed else None))


def _name_of(output: Path) -> str | None:
    """Return the name that an output path gives to the model in it; None where the path is a folder."""
    from trainer.names import is_onnx_path, name_of_file

    return name_of_file(output) if is_onnx_path(output) else None


def _tell(made: ExportResult) -> None:
    levels = "1 level" if made.max_difference == 1 else f"{made.max_difference} levels"
    say(
        f"exported: {made.path} ({made.size / 1000:,.0f} kB, sha256 {made.digest[:12]}…); torch and ONNX Runtime "
        f"differ by at most {levels}, in {made.changed_values:,} of {made.compared:,} values"
    )

    if made.replaced is not None:
        say(f"it replaced {made.replaced}; --name or --output keeps both")
    folder = shlex.quote(str(made.path.parent))
    say(
        f"to serve it: MODEL_DIR={folder} {as_typed('python')} -m service serve; an image of it: "
        f"curl -o {made.name}-7.png http://127.0.0.1:3000/v1/models/{made.name}/images/7.png"
    )


@app.command()
def export(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder or a checkpoint file; with --optimize a generator file too."),
    ],
    output: Annotated[Path, typer.Option(help="A folder, or the path of the .onnx file.")] = Path("models"),
    name: Annotated[
        str | None,
        typer.Option(help="Name of the served model. Default: of the .onnx file in --output, else of the run."),
    ] = None,
    best: Best = False,
    ema: Average = True,
    optimize: Annotated[
        Literal["none", "fp16", "int8"], typer.Option(help="int8: faster on CPUs with VNNI; fp16: on GPUs.")
    ] = "none",
    reference: Annotated[
        Path | None, typer.Option(help="Reference statistics: score both forms, with --extractor.")
    ] = None,
    extractor: Annotated[Path | None, typer.Option(help="The extractor file that made --reference.")] = None,
    num_images: Annotated[int | None, typer.Option(help="Latents that are scored; 10,000 by default.", min=2)] = None,
    force: Annotated[bool, typer.Option("--force", help="Write the optimised form even where it is no gain.")] = False,
) -> None:
    """Turn the generator of a run (its average, unless --no-ema) into a generator file, verified against torch.

    With --optimize the faster form is compared with float32 (size, images/s, pixels, score), and kept where it gains.
    """
    with one_line_errors():
        from trainer.errors import TrainerError
        from trainer.names import is_onnx_path
        from trainer.onnx_export.exporter import export as export_

        source = _best(source) if best else source
        if (reference is None) != (extractor is None):
            raise TrainerError("a score needs both --reference and --extractor")
        if optimize == "none" and (reference or force):
            raise TrainerError("--reference, --extractor and --force belong to --optimize int8 or fp16")
        if num_images is not None and reference is None:
            raise TrainerError("--num-images is of a score, which needs --reference and --extractor")
        if optimize == "none" and is_onnx_path(source) and name is None:
            raise TrainerError(
                f"{source} is a generator file already; --name renames its model, --optimize int8 or fp16 "
                "makes a faster form of it"
            )
        if not ema and is_onnx_path(source):
            raise TrainerError(f"--no-ema chooses between a checkpoint's two generators; {source} holds one")
        if optimize == "none" and is_onnx_path(source) and name is not None:
            from trainer.onnx_export.exporter import rename

            path, digest = rename(source, output, name)
            say(f"renamed: {path} (model {name}, sha256 {digest[:12]}…)")
            return
        if optimize == "none":
            _tell(export_(_payload(source), output, name=name or _name_of(output), ema=ema))
            return
        _optimized(source, output, name, ema, optimize, reference, extractor, num_images or 10_000, force)


def _optimized(
    source: Path,
    output: Path,
    name: str | None,
    ema: bool,
    how: Literal["fp16", "int8"],
    reference: Path | None,
    extractor: Path | None,
    num_images: int,
    force: bool,
) -> None:
    import tempfile

    from trainer.errors import TrainerError
    from trainer.names import is_onnx_path
    from trainer.onnx_export import optimize
    from trainer.onnx_export.exporter import export, output_path, read_metadata, require_runtime

    require_runtime()
    scorer = optimize.Scorer(reference, extractor) if reference and extractor else None
    with tempfile.TemporaryDirectory() as folder:
        if is_onnx_path(source):
            plain = optimize.load_plain(source, name)
        else:
            name = name or _name_of(output)
            plain = optimize.load_plain(export(_payload(source), Path(folder), name=name, ema=ema).path)
    path = output_path(read_metadata(plain)["name"], output)
    if path.exists() and source.exists() and path.samefile(source):
        raise TrainerError(
            f"this would replace {source}, the float32 file it is made from; give another --output or --name"
        )
    result = optimize.optimize(plain, path, how, scorer=scorer, num_images=num_images, force=force)
    for line in result.summary():
        say(line)
    say(f"exported: {result.path} (sha256 {result.digest[:12]}…), the report {result.report_path}")


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A foreign generator's state dict (.pth, .pt, .ckpt, .safetensors)."),
    ],
    architecture: Annotated[str, typer.Option(help="dcgan or mlp: what kind of layers it has.")],
    output: Annotated[Path, typer.Option(help="A folder, or the path of the .onnx file.")] = Path("models"),
    name: Annotated[str | None, typer.Option(help="Name of the served model; the file's by default.")] = None,
    dataset: Annotated[str, typer.Option(help="What it was trained on, to be told.")] = "unknown",
    z_distribution: Annotated[str, typer.Option(help="normal or uniform: what its latents are drawn from.")] = "normal",
    images_seen: Annotated[int, typer.Option(help="How many real images its training showed, if known.", min=0)] = 0,
    activation: Annotated[
        str | None,
        typer.Option(
            help="Between its layers: relu (default), leaky-relu, leaky-relu:0.1, elu, selu, gelu, silu, tanh."
        ),
    ] = None,
    output_activation: Annotated[
        str | None, typer.Option(help="After its last layer: tanh (default), sigmoid or none.")
    ] = None,
    batchnorm_eps: Annotated[float | None, typer.Option(help="Of its BatchNorm layers; 1e-05 by default.")] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The part of the file that holds the generator: g_ema, params_ema, state_dict.generator …"),
    ] = None,
) -> None:
    """Turn a generator of other code into a generator file: the PyTorch examples' netG_epoch_N.pth, for one.

    Its layers are found by their shapes and order, whatever they are called; what does not fit is named. A state dict
    does not contain activations, BatchNorm's eps, strides and the distribution of latents: what was assumed is printed.
    """
    with one_line_errors():
        from trainer.errors import TrainerError
        from trainer.names import name_of_file
        from trainer.networks.imported import Layers
        from trainer.onnx_export import state_dict_import
        from trainer.onnx_export.exporter import export as export_
        from trainer.onnx_export.exporter import require_runtime

        for option, value, allowed in (
            ("--architecture", architecture, state_dict_import.ARCHITECTURES),
            ("--z-distribution", z_distribution, ("normal", "uniform")),
        ):
            if value not in allowed:
                raise TrainerError(f"{option} is {' or '.join(allowed)}, not {value}")
        given = {"activation": activation, "output_activation": output_activation, "batchnorm_eps": batchnorm_eps}
        layers = Layers(**{field: value for field, value in given.items() if value is not None})  # type: ignore[arg-type]
        require_runtime()
        name = name or _name_of(output) or name_of_file(file)
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
        _tell(export_(made, output, name=name))
        say(state_dict_import.assumptions(layers, architecture, z_distribution, file))


@app.command()
def sample(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a checkpoint file.")],
    output: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("samples.png"),
    seed: Annotated[int, typer.Option(help="Seed of the first image; the others follow.", min=0)] = 0,
    count: Annotated[int, typer.Option("--num-images", help="How many.", min=1, max=4096)] = 64,
    best: Best = False,
    ema: Average = True,
) -> None:
    """Draw a grid of a run's images: those the service would answer for the same seeds."""
    with one_line_errors():
        from artifacts.latents import NUM_SEEDS
        from trainer.errors import TrainerError
        from trainer.reports import image_grids
        from trainer.training import checkpoint

        if seed + count > NUM_SEEDS:
            raise TrainerError(f"the last seed is {NUM_SEEDS - 1}; --seed {seed} and {count} images pass it")
        if output.suffix != ".png":
            raise TrainerError(f"a grid is written as PNG; name it {output.with_suffix('.png')}")
        payload = _payload(_best(source) if best else source)
        z_distribution = checkpoint.config_of(payload).model.z_distribution
        images = image_grids.sample(
            checkpoint.generator_of(payload, ema=ema), range(seed, seed + count), z_distribution
        )
        image_grids.write_png(image_grids.grid(images), output)
        say(f"{output}: seeds {seed} to {seed + count - 1}")


@app.command()
def animate(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    fps: Annotated[float, typer.Option(help="Ticks shown a second.", min=0.5, max=50)] = 8.0,
) -> None:
    """Draw a run's progress: fixed.gif and .webp (the same seeds each tick), random.gif and .webp (fresh ones)."""
    with one_line_errors():
        from trainer.reports import pages

        for kind in pages.KINDS:
            say("  ".join(str(path) for path in pages.animate(run_dir, kind, fps)))


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Write a run's curves.png, animations and report.html, as its end does: for one that is still going."""
    with one_line_errors():
        from trainer.reports import pages

        say(pages.write_report(run_dir))


@app.command()
def compare(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN RUN …", help="Run folders, two or more.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("compare"),
) -> None:
    """Runs side by side at equal images seen: compare.html with parameters, time, curves, images, quality."""
    with one_line_errors():
        from rich.table import Table

        from trainer.console import print_table
        from trainer.reports import pages

        page = pages.compare(run_dirs, output)
        told = pages.read_json(output / "compare.json")
        table = Table("", *map(printable, told["runs"]), box=None)
        for title, values in told["rows"].items():
            table.add_row(printable(title), *map(printable, values))
        print_table(table)
        say(f"{page}: at {told['images_seen'] / 1000:g} kimg")


@app.command()
def sweep(
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="SECTION.FIELD=VALUES", help="A field and its values, or a range; repeat for several."),
    ] = None,
    preset: Annotated[str, typer.Option(help="What every run begins with: a preset or a YAML file.")] = "digits-dcgan",
    set_: Set = None,
    seeds: Annotated[int, typer.Option(help="Runs of each setting, told as mean ± std.", min=1, max=100)] = 1,
    sampler: Annotated[
        str, typer.Option(help="grid: every combination; random or tpe: --trials settings, drawn from ranges too.")
    ] = "grid",
    trials: Annotated[int | None, typer.Option(help="How many to draw; 20 by default.", min=1, max=100_000)] = None,
    jobs: Annotated[int, typer.Option(help="Runs at a time; the cores are divided between them.", min=1, max=256)] = 1,
    data_root: DataRoot = Path("data"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The sweep's folder; sweeps/PRESET-FIELD by default.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trials, count the images, and stop.")] = False,
) -> None:
    """Train one preset under many settings, and show which is best: pictures, plots and a table in sweep.html.

    Which latent size?

        trainer sweep --vary model.z_dim=8,24,100 --set run.total_kimg=40

    Two learning rates, three seeds of each pair, two runs at a time:

        trainer sweep --preset mnist-dcgan --seeds 3 --jobs 2 \\
            --vary optim.g_lr=1e-4,2e-4,4e-4 --vary optim.d_lr=1e-4,2e-4

    Narrower or wider, fewer or more layers (a value may be a list):

        trainer sweep --vary 'model.g_widths=[96,32,8],[192,64,16]'

    Thirty settings that Optuna chooses within ranges:

        trainer sweep --sampler tpe --trials 30 \\
            --vary optim.g_lr=1e-5..1e-2:log --vary optim.batch_size=16..128

    Stop it any way (Ctrl-C, kill -9, a power cut): the same command goes on.

    A run that fails is recorded with its reason, and the sweep goes on. The score is a run's lowest Fréchet distance.
    """
    with one_line_errors():
        from trainer.sweep import runner, study

        plan = study.make_plan(preset, set_ or (), vary or (), sampler=sampler, trials=trials, seeds=seeds)
        plan = runner.with_channels(plan, data_root)
        folder = output or plan.default_folder
        if dry_run:
            for line in plan.list_trials(folder):
                say(line)
            return

        from trainer.console import progress_console

        code = runner.run_sweep(plan, folder, data_root, jobs, progress_console())
    raise typer.Exit(code)


def _best(source: Path) -> Path:
    from trainer.errors import TrainerError
    from trainer.training import checkpoint

    if not source.is_dir():
        raise TrainerError(f"--best is of a run folder, which {source} is not")
    return checkpoint.best(source)


def _payload(source: Path) -> dict[str, Any]:
    from trainer.training import checkpoint

    if source.is_file() or source.suffix == ".pt":
        return checkpoint.read(source)
    path, payload, complaints = checkpoint.newest(source)
    for complaint in complaints:
        say(f"warning: {complaint}; using {path.name}", error=True)
    checkpoint.check_same_config(source, payload)
    return payload


@app.command()
def presets() -> None:
    """List the presets: data, networks with their parameters, objective, length."""
    with one_line_errors():
        from rich.table import Table

        from trainer import networks
        from trainer.config import schema as configuration
        from trainer.console import print_table

        table = Table("preset", "data", "networks", "G / D parameters", "objective", "batch", "kimg", box=None)
        for name in configuration.preset_names():
            config = configuration.resolve(name)
            G, D = networks.build(config)
            table.add_row(
                name,
                f"{config.data.source} {config.data.resolution} px",
                config.model.architecture,
                f"{networks.parameter_count(G):,} / {networks.parameter_count(D):,}",
                config.objective.name,
                str(config.optim.batch_size),
                f"{config.run.total_kimg:g}",
            )
        print_table(table)


@app.command()
def datasets() -> None:
    """List the image sets, and how to bring one's own."""
    with one_line_errors():
        from rich.table import Table

        from imagesets import list_sources
        from trainer.console import print_table

        table = Table("source", "splits", "size", "what it is", box=None)
        for source in list_sources():
            size = "any" if source.resolution is None else f"{source.resolution} px x {source.channels}"
            table.add_row(source.name, ", ".join(source.splits), size, source.description)
        print_table(table)
        typer.echo(
            "\nSay SOURCE or SOURCE@SPLIT: trainer train --preset digits-dcgan --set data.source=folder:photos "
            "--set model.conditional=false"
        )


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["MPLBACKEND"] = "agg"  # figures are only saved, and matplotlib refuses to import with an unknown one
    app()
