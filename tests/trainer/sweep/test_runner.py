"""A sweep in processes: progress, faults, kills and interrupts."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.support.paths import ROOT
from tests.support.trainer.sweep_plans import plan_of
from trainer import api
from trainer.cli import app
from trainer.config import loading
from trainer.errors import TrainerError
from trainer.sweep import runner
from trainer.sweep.plan import Plan
from trainer.sweep.runner import SweepProgress
from trainer.sweep.study import Study, Trial
from trainer.sweep.workers import Job, jobs_of

FIELDS = """
    data.resolution=8 model.architecture=mlp model.g_widths=[8] model.d_widths=[8] model.z_dim=4 model.init_std=1
    model.conditional=false model.d_norm=none objective.r1_gamma=0 optim.batch_size=32
    run.total_kimg=1.28 run.tick_kimg=0.064 run.quality_ticks=5 run.quality_images=20
    run.device=cpu run.precision=fp32
"""
PATIENT = ["--set", "run.patience_ticks=5"]


def run_with(script: str, study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The runner, with a shell script in place of each child."""
    child = folder / "child"
    child.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    child.chmod(0o755)
    with monkeypatch.context() as patch, SweepProgress(Console(file=io.StringIO()), study.plan) as progress:
        patch.setattr(sys, "executable", str(child))
        return runner.Runner(study, folder, progress, 1, 1, folder, lambda: False, lambda: None).run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'error: could not write it (No space left on device)'; exit 2", "could not write it (No space left"),
        ("kill -9 $$", "killed by SIGKILL (out of memory?)"),
    ],
)
def test_runner_outside_fault_stops_and_fails_no_trial(
    script: str, says: str, begin: Callable[[Plan], Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(plan_of("model.z_dim=4,8"))
    with pytest.raises(TrainerError) as stopped:
        run_with(script, study, tmp_path, monkeypatch)
    assert f"z_dim=4, seed 0 cannot continue: {says}" in str(stopped.value)
    assert "run the same command to resume" in str(stopped.value)
    assert [trial.state for trial in study.trials()] == ["running", "waiting"]

    again = begin(plan_of("model.z_dim=4,8"))
    assert run_with("echo 'error: loss/D became NaN'; exit 1", again, tmp_path, monkeypatch)
    assert [(trial.state, trial.reason) for trial in again.trials()] == [("failed", "loss/D became NaN")] * 2


@pytest.mark.parametrize("terminal", [False, True])
def test_sweep_progress_shows_brackets_literally(terminal: bool, tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=200, force_terminal=terminal, color_system=None, markup=False)
    plan = plan_of("data.augment=[color],[]")
    trial = Trial(0, "failed", {"data.augment": ["color"]}, [], "[/b] broke")
    (job,) = jobs_of(trial, plan, tmp_path, 1)
    with SweepProgress(console, plan) as progress:
        progress.started(job, resumed=False)
        progress.update(0, "0 of 2 trials done")
        progress.print_trial(trial)
    assert '0000 augment=["color"]  failed: [/b] broke' in screen.getvalue()
    assert ("\x1b" in screen.getvalue()) is terminal


def test_sweep_progress_time_left_ignores_earlier_images() -> None:
    now = 1000.0
    plan = plan_of("model.z_dim=4,8")
    progress = SweepProgress(Console(file=io.StringIO()), plan, get_time=lambda: now)
    progress.update(plan.images // 8, "")  # of an earlier process
    assert progress.time_left() == ""
    for eighths, expected in ((2, ""), (3, ", about 5 minutes left"), (7, ", about a minute left"), (8, "")):
        now += 60
        progress.update(plan.images * eighths // 8, "")
        assert progress.time_left() == expected


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep(*arguments: str) -> list[str]:
    """A command of tiny networks; what it varies is not set."""
    given = {argument.partition("=")[0] for argument in arguments}
    tiny = [word for field in FIELDS.split() if field.partition("=")[0] not in given for word in ("--set", field)]
    return [sys.executable, "-m", "trainer", "sweep", *tiny, *arguments]


def wait_for(seen: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not seen():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sweep_dry_run_lists_trials_and_writes_nothing(here: Path) -> None:
    arguments = sweep("--vary", "model.z_dim=4,8", "--vary", "model.d_widths=[8],[8,8]", "--seeds", "3", "--dry-run")
    result = CliRunner().invoke(app, arguments[3:])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == ["0000  model.z_dim=4  model.d_widths=[8]", "0001  model.z_dim=4  model.d_widths=[8, 8]"]
    assert lines[-1] == "4 trials x 3 seeds = 12 runs, 15.36 kimg (15,360 real images) in all"
    assert not list(here.iterdir())


def test_sweep_with_patience_lists_the_most_images(here: Path) -> None:
    result = CliRunner().invoke(app, sweep("--vary", "model.z_dim=4,8", *PATIENT, "--dry-run")[3:])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "2 trials, at most 2.56 kimg (2,560 real images) in all"


def test_run_that_used_up_its_patience_is_not_started_again(here: Path) -> None:
    fields = [*FIELDS.split(), *PATIENT[1::2], "optim.g_lr=1e-12"]
    plan = plan_of("optim.d_lr=1e-4,2e-4", **dict(field.split("=", 1) for field in fields))
    (job,) = jobs_of(Trial(0, "running", {"optim.d_lr": 1e-4}), plan, here, 1)
    assert job.finished_result() is None
    api.start_run(job.config, here, run_dir=job.run_dir, quiet=True)
    found = job.finished_result()
    assert found is not None
    assert (found["images_seen"], found["final_images_seen"], job.total_images) == (320, 640, 1280)


@pytest.mark.slow
def test_sweep_with_patience_scores_runs_that_end_early(here: Path) -> None:
    command = sweep("--vary", "optim.d_lr=1e-4,2e-4", *PATIENT, "--set", "optim.g_lr=1e-12", "-o", "out")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((here / "out" / "sweep.json").read_text(encoding="utf-8"))
    runs = [run for trial in document["trials"] for run in trial["runs"]]
    assert [(run["images_seen"], run["final_images_seen"]) for run in runs] == [(320, 640)] * 2


@pytest.mark.slow
def test_sweep_killed_resumes_and_a_diverged_run_fails_only_itself(here: Path) -> None:
    # D's scores pass float32's range in sixty layers of weights N(0, 1)
    arguments = ["--vary", f"model.d_widths=[8],[16],{[64] * 60}", "-o", "out"]
    second = here / "out" / "trials" / "0001" / "seed-0"
    with subprocess.Popen(sweep(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(lambda: list(second.glob("checkpoint-*.pt")), process)
        process.kill()
    first = here / "out" / "trials" / "0000" / "seed-0" / "metrics.jsonl"
    before = first.stat().st_mtime_ns, (here / "out" / "trials" / "0000" / "seed-0.log").read_text(encoding="utf-8")

    again = subprocess.run(sweep(*arguments), capture_output=True, text=True, check=False)
    assert again.returncode == 1, again.stderr
    assert "(1 are done)" in again.stdout
    assert "1 of 3 trials failed, the first: loss/" in again.stdout
    assert "Traceback" not in again.stdout + again.stderr
    assert before == (
        first.stat().st_mtime_ns,
        (here / "out" / "trials" / "0000" / "seed-0.log").read_text(encoding="utf-8"),
    )
    assert "$ trainer resume" in second.with_suffix(".log").read_text(encoding="utf-8")
    steps = [json.loads(line)["step"] for line in (second / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 40

    document = json.loads((here / "out" / "sweep.json").read_text(encoding="utf-8"))
    assert [trial["state"] for trial in document["trials"]] == ["finished", "finished", "failed"]
    assert "NaN or infinite" in document["trials"][2]["reason"]
    assert document["best"] == min((0, 1), key=lambda number: document["trials"][number]["frechet"]["mean"])
    assert document["trials"][0]["runs"][0]["seconds"] > 0


@pytest.mark.slow
def test_sweep_interrupt_lets_workers_save_and_exits_130(here: Path) -> None:
    arguments = ["--vary", "model.z_dim=4,8", "--jobs", "2", "--set", "run.total_kimg=100000", "-o", "out"]
    runs = [here / "out" / "trials" / f"000{number}" / "seed-0" for number in (0, 1)]
    with subprocess.Popen(sweep(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(lambda: all((run / "metrics.jsonl").is_file() for run in runs), process)
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert "Run the same command to resume" in rest
    for run in runs:
        assert list(run.glob("checkpoint-*.pt"))
        assert "stopped and saved" in run.with_suffix(".log").read_text(encoding="utf-8")
        assert Job(Trial(0, "running", {}), 0, loading.resolve("digits-dcgan"), run).is_free()
    assert (here / "out" / "sweep.html").is_file()
    assert os.access(here / "out" / "study.db", os.R_OK)


@pytest.mark.slow
def test_sweep_in_a_folder_of_equal_module_names_runs_ours(here: Path) -> None:
    for name in ("trainer", "random", "secrets"):
        (here / f"{name}.py").write_text("print('FOREIGN CODE')\nraise SystemExit(3)\n", encoding="utf-8")
    command = sweep("--vary", "model.z_dim=4,8", "-o", "out")
    command.insert(1, "-P")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (here / "out" / "trials" / "0000" / "seed-0.log").read_text(encoding="utf-8")
    assert "trained: " in log
    assert "FOREIGN" not in log + done.stdout
