"""`trainer sweep`: the options become a plan, the plan is checked and told, then trained, then shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from imagesets import ImageSet
from trainer.data import ImageRecord, load_images
from trainer.data import with_channels as with_image_channels
from trainer.distributed import environment
from trainer.errors import TrainerError
from trainer.sweep import report, space
from trainer.sweep.progress import View
from trainer.sweep.runner import Runner
from trainer.sweep.study import SAMPLERS, Plan, Study, check_same, import_optuna, recorded_plan
from trainer.training import devices, run_folder

DRAWN = 20  # trials of a sampler, when none are asked for
LISTED = 200  # of a dry run


def plan(
    preset: str, sets: Sequence[str], varies: Sequence[str], *, sampler: str, trials: int | None, seeds: int
) -> Plan:
    """What the options ask for, every value and every combination checked. Raises TrainerError."""
    if sampler not in SAMPLERS:
        raise TrainerError(f"--sampler is {', '.join(SAMPLERS[:-1])} or {SAMPLERS[-1]}, not {sampler}")
    found = space.read(varies, sampler)
    base = space.base_config(preset, sets, found)
    if not base.run.quality_ticks:
        raise TrainerError("a sweep scores its runs, and run.quality_ticks=0 measures none; leave it at 1 or more")
    if base.run.seed + seeds > 2**32:
        raise TrainerError(f"the last seed is {2**32 - 1}; run.seed={base.run.seed} and --seeds {seeds} pass it")
    settings = space.check_combinations(base, found)
    if sampler == "grid":
        if trials is not None:
            raise TrainerError(
                f"a grid tries all its {len(settings)} settings; --trials is for --sampler random or tpe"
            )
        trials = len(settings)
    return Plan(base, found, sampler, trials or DRAWN, seeds)


def with_channels(plan: Plan, data_root: Path) -> Plan:
    """Return the plan with the images' channels where none are given, so that every run trains on the same images."""
    return replace(plan, config=with_image_channels(plan.config, data_root))


def default_folder(plan: Plan) -> Path:
    """`sweeps/PRESET-FIELD-FIELD`: a sweep of other fields of the same preset has another."""
    return Path("sweeps", "-".join([plan.config.name, *(vary.field.rpartition(".")[2] for vary in plan.varies)]))


def list_trials(plan: Plan, folder: Path) -> list[str]:
    """What --dry-run prints."""
    check_same(folder, plan)
    lines = []
    if plan.sampler == "grid":
        settings = list(space.combinations(plan.varies))
        lines += [f"{number:04d}  {space.words(setting)}" for number, setting in enumerate(settings[:LISTED])]
        if len(settings) > LISTED:
            lines.append(f"… and {len(settings) - LISTED:,} more")
    else:
        lines.append(f"{plan.trials} settings, drawn one by one by the sampler {plan.sampler}:")
        lines += [f"  {vary.field} from {vary.describe()}" for vary in plan.varies]
    seeds = f" x {plan.seeds} seeds = {plan.trials * plan.seeds} runs" if plan.seeds > 1 else ""
    lines.append(f"{plan.trials} trials{seeds}, {plan.images / 1000:,g} kimg ({plan.images:,} real images) in all")
    if recorded_plan(folder):
        lines.append(f"{folder} holds this sweep already; it would go on where it stopped")
    return lines


def sweep(plan: Plan, folder: Path, data_root: Path, jobs: int, console: Console) -> int:
    """Train what is left of the plan, and write its report; the exit code: 0, 1 (a run failed), 130 (stopped)."""
    import_optuna()
    if environment.world_size() > 1:
        raise TrainerError("a sweep starts its runs itself: leave out torchrun, and say --jobs for several at a time")
    threads = plan.config.run.threads or max(1, devices.default_threads() // jobs)
    check_same(folder, plan)
    images = _check_images(plan, data_root)
    folder.mkdir(parents=True, exist_ok=True)
    with run_folder.exclusive(folder, "sweeping"):
        study = Study(folder, plan)
        check_same_images(folder, images)
        before = study.trials()
        done = sum(trial.state in ("finished", "failed") for trial in before)
        seeds = f", {plan.seeds} seeds each" if plan.seeds > 1 else ""
        console.print(
            f"{plan.config.name}: {plan.trials} trials{seeds}, {plan.images / 1000:,g} kimg in all; "
            f"{jobs} at a time with {threads} threads each → {folder}" + (f" ({done} are done)" if done else "")
        )

        def show() -> None:
            try:
                report.write(folder, plan, study.trials())
            except (ImportError, OSError) as error:  # a missing library, a full disk: the runs are there all the same
                console.print(f"warning: no report ({error}); the same command writes it later")

        with run_folder.graceful_stop() as should_stop:
            with View(console, plan) as view:
                runner = Runner(
                    study,
                    folder,
                    view,
                    jobs=jobs,
                    threads=threads,
                    data_root=data_root,
                    should_stop=should_stop,
                    trial_told=show,
                )
                finished = runner.run()
            show()
        return _conclude(plan, study, folder / report.PAGE, finished, console)


def _check_images(plan: Plan, data_root: Path) -> ImageSet:
    """Check that the device and the image set suit every setting, and decode the images before any child does."""
    devices.resolve_auto(plan.config)
    seen: set[tuple[int, bool]] = set()
    for setting in space.combinations(plan.varies):
        config = space.apply(plan.config, setting)
        needs = config.optim.batch_size, config.model.conditional
        if needs not in seen:
            seen.add(needs)
            images, _ = load_images(config, data_root)
    return images


def check_same_images(folder: Path, images: ImageSet) -> None:
    """Record the images of a sweep, or refuse others than the recorded ones: their scores would not compare."""
    record = ImageRecord.read(folder)
    if changed := record.describe_change(images):
        raise TrainerError(
            f"the images of {images.name} are not those that the sweep in {folder} began with: {changed}. "
            "Put the same images back, or give another --output"
        )
    if not record.has_fingerprint:
        run_folder.write_text(folder / ImageRecord.FILE, json.dumps({"image_set": images.info}, indent=2) + "\n")


def _conclude(plan: Plan, study: Study, page: Path, finished: bool, console: Console) -> int:
    trials = study.trials()
    ranked = sorted((trial for trial in trials if trial.state == "finished"), key=report.score_of)
    failed = [trial for trial in trials if trial.state == "failed"]
    if ranked:
        best = ranked[0]
        score = report.mean_and_spread(best.runs, "frechet")
        console.print(f"best: {best.number:04d} {space.words(best.setting)}  Fréchet distance {score}")
    if failed:
        console.print(f"{len(failed)} of {len(trials)} trials failed, the first: {failed[0].reason}")
    if not finished:
        console.print(f"stopped; {page} shows what there is so far. The same command goes on from there")
        return 130
    console.print(f"open {page}")
    return 1 if failed else 0
