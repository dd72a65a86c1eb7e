"""Training and exporting from Python; the command line calls the same functions."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import torch
from rich.console import Console

from artifacts.typer_group import command_name
from imagesets import ImageSet
from trainer import devices, distributed, networks
from trainer.config.loading import flatten, override, to_json
from trainer.config.schema import Config
from trainer.console import progress_console
from trainer.data import Batches, ImageRecord, load_images, record_images, with_channels
from trainer.distributed import environment
from trainer.errors import TrainerError
from trainer.finetune import initialize
from trainer.finetune.config import inherit_config
from trainer.finetune.parent import Parent, read_parent
from trainer.own_images import inspection
from trainer.own_images.report import Inspection
from trainer.plugins import require_user_code
from trainer.quality import patience
from trainer.quality.memorization import MAX_IMAGES, load_held_out
from trainer.reports import pages, plots
from trainer.run_names import name_of_output
from trainer.trackers import require_installed
from trainer.training import checkpoint, loop, resume, run_folder
from trainer.training.logger import RunLogger
from trainer.training.proxy_metrics import MIN_FOR_RECALL, ProxyMetrics
from trainer.training.state import TrainState


class Checkpoints(NamedTuple):
    """The checkpoints of a run; None where there is none."""

    latest: Path | None
    best: Path | None


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        path: The run folder.
        config: The config, without `auto`.
        finished: Whether it has reached its length or used up `run.patience_ticks`; False if it was stopped.
        interrupted: Whether a signal such as Ctrl-C stopped it, not the end of `minutes`.
    """

    path: Path
    config: Config
    finished: bool = True
    interrupted: bool = False

    @property
    def checkpoints(self) -> Checkpoints:
        """The latest checkpoint, and the one with the lowest Fréchet distance."""
        saved = checkpoint.paths(self.path)
        has_best = (self.path / checkpoint.BEST).is_file()
        return Checkpoints(saved[-1] if saved else None, checkpoint.best_path(self.path) if has_best else None)

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The metrics of each tick, as `metrics.jsonl` has them."""
        metrics = self.path / "metrics.jsonl"
        return plots.read_metrics(metrics) if metrics.is_file() else []


def train(
    config: Config | None = None,
    *,
    runs: Path | str = "runs",
    data_root: Path | str | None = None,
    device: str = "auto",
    resume: Run | Path | str | None = None,
    init_from: Run | Path | str | None = None,
    minutes: float | None = None,
    quiet: bool = False,
    user_code: bool = False,
) -> Run:
    """Train a new run, or resume one, to its end, until Ctrl-C or for some minutes.

    Args:
        config: A config of `load_config` or `finetune_config`. When resuming it may be None, or change fields of its
            `run` section. With `init_from`, None is `finetune_config(init_from)`.
        runs: Where the new, numbered run folder is created.
        data_root: Folder of the downloaded datasets. Default: "data", or that of the resumed run.
        device: cpu, cuda or mps; "auto" is the config's choice.
        resume: A run, or its folder, to continue instead of training a new one.
        init_from: A run, its folder, a checkpoint or a generator file whose weights the new run starts from.
        minutes: Wall time after which the run saves and stops, counted from this call; `resume` continues it.
        quiet: Print no progress.
        user_code: Whether the modules of yours that a resumed run, or `init_from`, names may be imported, which runs
            their code.

    Returns:
        The run: its folder, config, checkpoints and metrics.

    Raises:
        TrainerError: If the config, the images or the run folder cannot be used.
        TrainingDiverged: If a loss or a gradient became NaN or infinite.
    """
    if config is not None and not isinstance(config, Config):
        preset = str(config) if isinstance(config, str | PurePath) else "digits-dcgan"
        raise TrainerError(
            f"config must be a Config, not {type(config).__name__}: "
            f"trainer.train(trainer.load_config({json.dumps(preset, ensure_ascii=False)}))"
        )
    out_of_time = run_folder.time_budget(minutes)
    overrides = [] if device == "auto" else [f"run.device={device}"]
    root = None if data_root is None else Path(data_root)
    if resume is not None and init_from is not None:
        raise TrainerError("train takes resume=RUN or init_from=RUN, not both: a resumed run has its weights")
    if resume is not None:
        run_dir = resume.path if isinstance(resume, Run) else Path(resume)
        if config is not None:
            overrides = [*_changes(run_dir, config), *overrides]
        return resume_run(run_dir, overrides, data_root=root, out_of_time=out_of_time, quiet=quiet, user_code=user_code)
    parent = None
    if init_from is not None:
        parent = read_parent(_path_of(init_from), Path(runs), user_code=user_code)
        config = config or inherit_config(parent, user_code=user_code)
    if config is None:
        raise TrainerError("train needs a config, such as trainer.load_config('digits-dcgan'), or resume=RUN")
    if overrides:
        config = override(config, overrides)
    root = root or Path("data")
    return start_run(config, Path(runs), parent=parent, data_root=root, out_of_time=out_of_time, quiet=quiet)


def inspect(
    source: Path | str,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    preset: str | None = None,
    init_from: Run | Path | str | None = None,
    name: str | None = None,
    runs: Path | str = "runs",
    data_root: Path | str = "data",
    estimate: bool = True,
    user_code: bool = False,
) -> Inspection:
    """Look at a set of images and choose the config of a run on it, as `trainer train SOURCE` does.

    Its `config` is what `train` takes; `print(inspection)` shows what was found and chosen, and why.

    Args:
        source: A folder, an archive, or another image set.
        overrides: As `load_config` takes them; they replace what would be chosen.
        preset: A preset to keep, except for what the images decide.
        init_from: A run, its folder, a checkpoint or a generator file that the run will start from.
        name: Name of the run. Default: that of the images.
        runs: The folder in which the name or number of `init_from` is looked up.
        data_root: Folder of the downloaded datasets.
        estimate: Whether to measure time and memory on a few steps, which takes some seconds.
        user_code: Whether the modules of yours that `init_from` names may be imported, which runs their code.

    Raises:
        TrainerError: If there are too few images, or a field is wrong.
        ImageSetError: If the images cannot be loaded.
    """
    parent = None if init_from is None else read_parent(_path_of(init_from), Path(runs), user_code=user_code)
    return inspection.inspect(
        str(source),
        overrides,
        preset=preset,
        parent=parent,
        name=name,
        data_root=Path(data_root),
        estimate=estimate,
        user_code=user_code,
    )


def finetune_config(
    init_from: Run | Path | str,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    name: str | None = None,
    runs: Path | str = "runs",
    user_code: bool = False,
) -> Config:
    """Return the config of a run that starts from another one's weights: its networks and training, and new images.

    `model`, `objective`, `optim` (without `d_freeze`; `decay_kimg` is scaled to the new length), `ema` and
    `data.resolution` are the parent's. The other `data` fields are too, unless an override gives another `data.source`;
    `run` is new.

    Args:
        init_from: A run, its folder, a checkpoint or a generator file.
        overrides: As `load_config` takes them.
        name: Name of the run. Default: that of the user's images, or the parent's with the source's.
        runs: The folder in which a run's name or number is looked up.
        user_code: Whether the modules of yours that the parent names may be imported, which runs their code.

    Raises:
        TrainerError: If the parent cannot be read, or a field is wrong.
    """
    parent = read_parent(_path_of(init_from), Path(runs), user_code=user_code)
    return inherit_config(parent, overrides, name=name, user_code=user_code)


def _path_of(run: Run | Path | str) -> Path | str:
    return run.path if isinstance(run, Run) else run


def _changes(run_dir: Path, config: Config) -> list[str]:
    """Return the overrides that turn a run's config into `config`, for the fields that were set in it."""
    recorded = flatten(checkpoint.config_of(checkpoint.load_latest(run_dir)[1]))
    return [
        f"{field}={value if isinstance(value, str) else json.dumps(value)}"
        for field, value in flatten(config, only_set=True).items()
        if value != recorded[field]
    ]


def export(
    run: Run | Path | str,
    output: Path | str | None = None,
    *,
    name: str | None = None,
    best: bool = False,
    ema: bool = True,
    user_code: bool = False,
) -> Path:
    """Export the generator of a run to a generator file, verified against torch.

    Args:
        run: A run, its folder, or a checkpoint file.
        output: A folder, or the path of the .onnx file. Default: "models".
        name: Name of the served model. Default: that of the .onnx file, else of the run.
        best: Whether to export the checkpoint with the lowest Fréchet distance instead of the latest.
        ema: Whether to export the averaged generator instead of G itself.
        user_code: Whether a module of yours that the checkpoint names as its architecture may be imported, which runs
            its code.

    Returns:
        The path of the generator file.

    Raises:
        TrainerError: If there is no such checkpoint, its architecture may not be imported, or the file cannot be
            written.
    """
    from trainer.onnx_export import exporter

    source, output = run.path if isinstance(run, Run) else Path(run), Path(output or "models")
    exporter.require_runtime()
    name = name or name_of_output(output)
    content = load_checkpoint(source, best=best)
    return exporter.export(content, output, name=name, ema=ema, user_code=user_code).path


def load_checkpoint(source: Path, *, best: bool = False, warn: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Return the content of a checkpoint file, or of a run folder's latest or best checkpoint.

    Args:
        source: A run folder or a checkpoint file.
        best: Whether to read the checkpoint with the lowest Fréchet distance so far.
        warn: Called with a line per later checkpoint that is not readable.
    """
    if best and not source.is_dir():
        raise TrainerError(f"--best needs a run folder, and {source} is not one")
    if best:
        return checkpoint.read_best(source)
    if source.is_file() or source.suffix == ".pt":
        return checkpoint.read(source)
    path, content, skipped = checkpoint.load_latest(source)
    for line in skipped:
        if warn is not None:
            warn(f"warning: {line}; using {path.name}")
    checkpoint.check_same_config(source, content)
    return content


def start_run(
    config: Config,
    runs: Path,
    *,
    run_dir: Path | None = None,
    parent: Parent | None = None,
    data_root: Path = Path("data"),
    out_of_time: Callable[[], bool] = run_folder.never,
    quiet: bool = False,
) -> Run:
    """Train a new run; see `train`.

    Args:
        config: The config.
        runs: The folder of the numbered run folders.
        run_dir: The run folder itself, instead of a numbered one in `runs`.
        parent: What the weights start from.
        data_root: Folder of the datasets.
        out_of_time: Returns whether to save and stop, as `run_folder.time_budget` makes it.
        quiet: Print no progress.
    """
    require_installed(config.run.track)
    config = devices.resolve_auto(config)
    if parent is None:
        initialize.check_freezing(config)
    else:
        initialize.preview(parent, with_channels(config, data_root))
    with environment.first_on_this_machine():
        images, config = load_images(config, data_root)
    identity = {"command": "train", "image set": images.info.get("fingerprint")}
    if parent is not None:
        identity["parent"] = parent.record["digest"]
    group, config = distributed.join(config, identity)
    console = progress_console(quiet=quiet or not group.is_main)
    with group.guard():
        devices.configure_process(config)
        state = TrainState.create(config, group)
        notes = [] if parent is None else initialize.initialize(state, parent)
        folder = runs
        if group.is_main:
            folder = run_folder.create_at(run_dir, config) if run_dir else run_folder.create(runs, config)
        folder = group.broadcast(folder)
        console.print(
            f"{config.name}: {len(images.images):,} images of {config.data.source} at {config.data.resolution} px; "
            f"G {networks.parameter_count(state.G):,} and D {networks.parameter_count(state.D):,} parameters; "
            f"{config.run.device}, {config.run.precision}, {config.run.threads} threads"
            f"{f' in each of {group.size} processes' if group.size > 1 else ''} → {folder}"
        )
        for note in notes:
            console.print(note)
        with run_folder.exclusive(folder) if group.is_main else nullcontext():
            if group.is_main:
                machine = devices.describe() | group.describe()
                record = record_images(images, data_root) | {"machine": machine}
                if parent is not None:
                    record["parent"] = parent.record
                run_folder.write_record(folder, record)
            return _run_loop(state, images, folder, console, out_of_time)


def resume_run(
    run_dir: Path,
    overrides: Iterable[str] = (),
    *,
    kimg: float | None = None,
    data_root: Path | None = None,
    other_images: bool = False,
    out_of_time: Callable[[], bool] = run_folder.never,
    quiet: bool = False,
    user_code: bool = False,
) -> Run:
    """Resume a run from its latest checkpoint; see `train`.

    Args:
        run_dir: The run folder.
        overrides: `section.field=value` each; see `resume.plan_resume`.
        kimg: A new length, in thousands of images.
        data_root: Folder of the datasets; None for the one that the run was started with.
        other_images: Whether to continue even though the images have changed.
        out_of_time: Returns whether to save and stop, as `run_folder.time_budget` makes it.
        quiet: Print no progress.
        user_code: Whether the modules of a user that the run names may be imported.
    """
    console = progress_console(quiet=quiet or environment.rank() > 0)
    plan = resume.plan_resume(run_dir, overrides, kimg)
    for note in plan.notes:
        console.print(note)
    config, content = plan.config, plan.content
    if plan.end:
        console.print(f"{run_dir} {plan.end}")
        return Run(run_dir, config)
    require_installed(config.run.track)
    needed = [plugin for plugin in config.plugins() if plugin[0] != "data.source" or not plan.changes_source]
    require_user_code(user_code, needed, str(run_dir))
    found = resume.find_images(run_dir, config, data_root, moved=plan.changes_source, accept_changes=other_images)
    if found.note:
        console.print(found.note)
    if found.changed:
        content["best"] = None  # it was measured against other images
    identity = {"command": f"resume from {plan.path.name}", "image set": found.images.info.get("fingerprint")}
    group, config = distributed.join(config, identity)
    console.print(f"{run_dir}: from {plan.path.name}, {plan.kimg:.1f} kimg")
    for what, before, now in (
        ("threads", content["threads"], config.run.threads),
        ("processes", content.get("processes", 1), group.size),
    ):
        if before != now:
            console.print(f"note: {before} {what} before, {now} now: not bit-exact")
    if group.size > 2:  # DistributedDataParallel regroups gradients after its first step, which changes the order
        console.print(f"note: resuming with {group.size} processes is not bit-exact: sums are added in another order")
    with group.guard():
        devices.configure_process(config)
        with run_folder.exclusive(run_dir) if group.is_main else nullcontext():
            state = checkpoint.restore(content, config, group)
            if group.is_main:
                run_folder.write_text(run_dir / "config.json", to_json(config))
                if found.record is not None:
                    run_folder.write_record(run_dir, found.record)
                checkpoint.write_best(state, run_dir)
            return _run_loop(state, found.images, run_dir, console, out_of_time)


def _run_loop(
    state: TrainState,
    images: ImageSet,
    run_dir: Path,
    console: Console,
    out_of_time: Callable[[], bool] = run_folder.never,
) -> Run:
    """Train a state to its end or to a stop, write the report, and print what to do next."""
    config, group = state.config, state.group
    batches = Batches.of_run(config, images, state.device, group.share(config.optim.batch_size))
    measure = _quality_measure(state, images, run_dir, console) if config.run.quality_ticks else None
    if measure and len(images.images) < MIN_FOR_RECALL:
        console.print(
            f"note: recall needs at least {MIN_FOR_RECALL} images and there are {len(images.images)}: only the Fréchet "
            "distance is measured"
        )

    def save(state: TrainState) -> None:
        checkpoint.save(state, run_dir, keep=config.run.keep_checkpoints)

    callback: AbstractContextManager[loop.Callback] = (
        RunLogger(state, run_dir, console, images.images) if group.is_main else nullcontext(loop.Callback())
    )
    steps_before = state.steps  # one step at least, so that repeated short budgets make progress
    with run_folder.graceful_stop(impatient=group.size == 1) as stop_requested, callback as logger:

        def should_stop() -> bool:
            return group.any(stop_requested() or (state.steps > steps_before and out_of_time()))

        finished = loop.train(state, batches, logger, save, should_stop, measure)
        signaled = torch.tensor(float(stop_requested()), device=state.device)
        interrupted = not finished and bool(group.mean({"signaled": signaled})["signaled"] > 0)
    run = Run(run_dir, config, finished, interrupted)
    _report_end(run, state, console)
    if not finished:
        group.wait()  # torchrun ends the others as soon as one has exited
    return run


def _report_end(run: Run, state: TrainState, console: Console) -> None:
    """Print why a run ended and what to do next, and write its report unless it was interrupted."""
    quoted = shlex.quote(str(run.path))
    if not run.finished:
        command = "torchrun … -m trainer" if state.group.size > 1 else command_name("trainer")
        flag = " --user-code" if any(run.config.plugins()) else ""
        reason = "stopped" if run.interrupted else f"the minutes are used up at {state.kimg:g} kimg: stopped"
        console.print(f"{reason} and saved; continue with: {command} resume {quoted}{flag}")
    elif end := patience.describe_end(run.config, state.best, state.images_seen):
        console.print(f"stopped: {end}")
    if not state.group.is_main or run.interrupted or not run.metrics:
        return
    try:
        pages.write_report(run.path)
    except (ImportError, OSError) as error:  # a missing library or a full disk: the run is complete all the same
        console.print(f"warning: no report ({error}); `trainer report {quoted}` writes it later")
    done = f"trained: {run.path}; open" if run.finished else "report so far:"
    console.print(f"{done} {shlex.quote(str(run.path / 'report.html'))}")


def _quality_measure(
    state: TrainState, images: ImageSet, run_dir: Path, console: Console
) -> Callable[[TrainState], dict[str, float]]:
    """Return what measures a state against the images it trains on. Rank 0 measures, for all processes."""
    if not state.group.is_main:
        return lambda state: state.group.broadcast({})
    held_out = None
    if len(images.images) <= MAX_IMAGES:
        held_out = load_held_out(images, ImageRecord.read(run_dir).data_root or Path("data"))
    metrics = ProxyMetrics(
        images.images,
        state.config.run.quality_images,
        seed=state.config.run.seed,
        z_distribution=state.config.model.z_distribution,
        device=state.device,
        held_out=None if held_out is None else held_out.images,
    )
    if metrics.memorization is not None and held_out is None:
        console.print(
            f"note: {images.name} has no held-out images: near-copies are counted against those among its images"
        )
    return lambda state: state.group.broadcast(metrics.measure(state.G_ema))
