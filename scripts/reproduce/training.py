"""The first half: train runs side by side, export their generators, collect what the second half needs."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import imagesets
from artifacts.files import atomic_path
from artifacts.processes import child_environment, python_module
from artifacts.resources import available_cpus
from scripts.reproduce.runs import POINTS, TOLERANCE, ReproductionContext, Trial, fail, read_ticks, say
from trainer.config import loading

STOPPED = 130  # the exit code of a training that saved and stopped


@dataclass
class Processes:
    """The present child processes. Each has one thread, and its own group, which Ctrl-C does not reach."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    stopped: bool = False

    def run(self, module: str, *words: object, log: Path | None) -> int:
        """Run a command and return its exit code."""
        command = [*python_module(module), *map(str, words)]
        environment = child_environment() | {"OMP_NUM_THREADS": "1"}
        note = "" if log is None else f"    # log: {log}"
        with ExitStack() as stack:
            output = None
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                output = stack.enter_context(log.open("ab"))
            with self.lock:
                if self.stopped:
                    return STOPPED
                shown = shlex.join([*([] if module == "trainer" else ["python", "-m"]), module, *map(str, words)])
                say(f"\n$ {shown}{note}")
                errors = None if output is None else subprocess.STDOUT
                process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors, process_group=0)
                self.running.add(process)
            code = process.wait()
        with self.lock:
            self.running.discard(process)
        return code

    def interrupt(self) -> None:
        """Make every process save and stop, and start no other."""
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.send_signal(signal.SIGINT)


def train_all(context: ReproductionContext, trials: Iterable[Trial], jobs: int | None = None) -> None:
    """Train every trial whose images are there, `jobs` at a time, and collect each as soon as it is trained.

    Raises:
        SystemExit: With code 1 where a training failed; the others were trained.
    """
    trials = list(trials)
    available = {
        dataset: is_available(context, dataset) for dataset in dict.fromkeys(trial.run.dataset for trial in trials)
    }
    ready = [trial for trial in trials if available[trial.run.dataset]]
    for trial in ready:
        if has_checkpoint(context.run_dir(trial)):
            check_settings(context, trial)
    jobs = min(jobs or default_jobs(), len(ready)) or 1
    processes, failed = Processes(), list[str]()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = {trial: pool.submit(train, context, trial, processes, jobs > 1) for trial in ready}
            failed = [f"{trial.name} (exit code {code})" for trial, one in futures.items() if (code := one.result())]
        except BaseException:
            processes.interrupt()
            raise
    if failed:
        say(f"\nnot finished: {', '.join(failed)}")
        raise SystemExit(1)


def default_jobs() -> int:
    """Return how many runs fit side by side: one per CPU, or one on a GPU."""
    from trainer.devices import is_available as has_device

    return 1 if has_device("cuda") else available_cpus()


def is_available(context: ReproductionContext, dataset: str) -> bool:
    """Whether images can be loaded; prints why where they cannot."""
    try:
        imagesets.load(context.images[dataset], data_root=context.data_root)
    except imagesets.ImageSetError as error:
        say(f"not run: {dataset}: {error}")
        return False
    return True


def train(context: ReproductionContext, trial: Trial, processes: Processes, quiet: bool = False) -> int:
    """Train a trial to its full length or for the allowed minutes, or resume it, and collect it; return an exit code.

    Args:
        context: Where and for how long.
        trial: The run with its seed.
        processes: Runs the commands.
        quiet: Whether their output goes to a log file, because others run at the same time.
    """
    run, run_dir = trial.run, context.run_dir(trial)
    log = context.folder / "logs" / f"{trial.name}.log" if quiet else None
    ticks = read_ticks(run_dir)
    left = None if context.minutes is None else context.minutes * 60 - (float(ticks[-1]["seconds"]) if ticks else 0.0)
    if has_checkpoint(run_dir):
        words = ["resume", str(run_dir)]
    else:
        settings = (
            f"data.source={context.training_images(run.dataset)}",
            f"run.total_kimg={run.kimg:g}",
            f"run.tick_kimg={run.short_tick_kimg if context.minutes else run.tick_kimg:g}",
            "run.checkpoint_ticks=1",
            "run.keep_checkpoints=1000",
            "run.threads=1",
            f"run.seed={trial.seed}",
            *context.sets,
        )
        words = ["train", "--preset", run.preset, "--run-dir", str(run_dir)]
        words += [word for setting in settings for word in ("--set", setting)]
    words += ["--data-root", str(context.data_root)]
    if left is None or left > 0:
        words += [] if left is None else ["--minutes", f"{left / 60:.4g}"]
        code = processes.run("trainer", *words, log=log)
        if code not in (0, STOPPED):
            return code
    places = ["--work", context.folder, *([] if context.points else ["--no-points"])]
    code = processes.run("scripts.reproduce", "collect", trial.name, *places, log=log)
    if code == 0 and quiet and (end := last_tick(run_dir)):
        say(f"\ntrained: {trial.name}, {end['images_seen'] / 1000:,.0f} kimg in {end['seconds'] / 60:.1f} min")
    return 0 if processes.stopped else code


def has_checkpoint(run_dir: Path) -> bool:
    return any(run_dir.glob("checkpoint-*.pt"))


def check_settings(context: ReproductionContext, trial: Trial) -> None:
    """Exit when a run to resume was started with other images or another --set."""
    run_dir = context.run_dir(trial)
    started = loading.parse(json.loads((run_dir / "config.json").read_text(encoding="utf-8")))
    resolved = tuple(setting for setting in context.sets if not setting.endswith("=auto"))
    requested = (f"data.source={context.training_images(trial.run.dataset)}", f"run.seed={trial.seed}", *resolved)
    if changed := loading.differences(started, loading.override(started, requested)):
        raise fail(f"{run_dir} was started with other settings ({'; '.join(changed)}); give another --work")


def last_tick(run_dir: Path) -> dict[str, float] | None:
    """Return the last tick that has a checkpoint."""
    return next((tick for tick in reversed(read_ticks(run_dir)) if checkpoint_of(run_dir, tick).is_file()), None)


def checkpoint_of(run_dir: Path, tick: dict[str, float]) -> Path:
    return run_dir / f"checkpoint-{tick['step']:08.0f}.pt"


def ticks_on_the_way(run_dir: Path) -> Iterator[dict[str, float]]:
    """Yield the tick of each point that the run has passed, where it has a checkpoint."""
    ticks = read_ticks(run_dir)
    for kimg in POINTS:
        tick = next((tick for tick in ticks if tick["images_seen"] >= kimg * 1000), None)
        if tick and tick["images_seen"] <= kimg * 1000 * TOLERANCE and checkpoint_of(run_dir, tick).is_file():
            yield tick


def collect(context: ReproductionContext, trial: Trial) -> None:
    """Export a trial's generators and copy its metrics and pictures into the collected folder.

    They are the average at the end and at each point on the way, and for a source's run also the last step's generator.
    """
    run_dir, record = context.run_dir(trial), context.record(trial)
    end = last_tick(run_dir)
    if end is None:
        say(f"not collected: {run_dir} has no checkpoint of a tick yet")
        return
    exports = [(end, True, context.model(trial, end["step"]))]
    if trial.run.sources:
        exports.append((end, False, context.model(trial, end["step"], averaged=False)))
    if context.points:
        on_the_way = (tick for tick in ticks_on_the_way(run_dir) if tick["step"] != end["step"])
        exports += [(tick, True, context.point(trial, tick["step"])) for tick in on_the_way]
    for tick, averaged, path in exports:
        checkpoint = checkpoint_of(run_dir, tick)
        if not path.is_file() or path.stat().st_mtime < checkpoint.stat().st_mtime:  # of an earlier run
            export(checkpoint, path, averaged)
    from trainer.reports import plots

    record.mkdir(parents=True, exist_ok=True)
    ticks = [tick for tick in read_ticks(run_dir) if tick["step"] <= end["step"]]
    contents = {name: (run_dir / name).read_bytes() for name in ("config.json", "made_by.json")}
    contents["samples.png"] = (run_dir / "samples" / f"fixed-{end['images_seen']:09.0f}.png").read_bytes()
    contents["metrics.jsonl"] = "".join(json.dumps(tick) + "\n" for tick in ticks).encode()
    for name, content in contents.items():
        with atomic_path(record / name) as partial:
            partial.write_bytes(content)
    plots.write_curves(record)
    for step in {tick["step"] for tick in ticks} - {end["step"]}:
        for averaged in (True, False):
            context.model(trial, step, averaged).unlink(missing_ok=True)  # what was the end before
    say(f"collected: {trial.name}, {end['images_seen'] / 1000:,.0f} kimg → {context.collected}")


def export(checkpoint: Path, path: Path, averaged: bool) -> None:
    """Export a checkpoint, named after the file."""
    import trainer

    path.parent.mkdir(parents=True, exist_ok=True)
    say(f"exporting {path}")
    trainer.export(checkpoint, path, name=path.stem, ema=averaged)
