"""How a training ends before its length, from the command line and from Python, and exports of its best so far."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner, Result

import trainer
from tests.support.paths import ROOT
from tests.support.process_cleanup import end_with_parent
from tests.support.trainer.tiny_run import TINY
from trainer.cli import app
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.training import checkpoint, run_folder
from trainer.training.state import TrainState

# A generator that does not learn: its images and their distance stay as they are.
STUCK = {
    "model": {"architecture": "mlp", "z_dim": 4, "g_widths": [8], "d_widths": [8]},
    "optim": {"batch_size": 8, "g_lr": 1e-12},
    "run": {**TINY["run"], "quality_ticks": 1, "quality_images": 40, "total_kimg": 100_000, "track": []},
}
PATIENT = {**STUCK, "run": {**STUCK["run"], "patience_ticks": 2}}


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    for name, sections in (("stuck", STUCK), ("patient", PATIENT)):
        Path(f"{name}.yaml").write_text(json.dumps({**TINY, **sections}), encoding="utf-8")


@contextmanager
def training(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that trains in ./run and has saved a checkpoint."""
    command = [sys.executable, "-m", "trainer", "train", "--preset", "stuck.yaml", "--run-dir", "run", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=both, text=True, preexec_fn=end_with_parent
    ) as process:
        assert process.stdout is not None
        ticks = (line for line in process.stdout if "loss/D" in line)
        assert next(ticks)
        assert next(ticks)  # what the first one measured is saved
        try:
            yield process
        finally:
            process.kill()


class Clock:
    """A clock that is a second later at each look."""

    def __init__(self) -> None:
        self.monotonic = itertools.count().__next__


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_train_with_patience_ends_and_resume_explains() -> None:
    done = invoke("train", "--preset", "patient.yaml", "--run-dir", "run", "--export", "a.onnx", "--best")
    assert done.exit_code == 0, done.output
    assert "stopped: no improvement of quality/frechet for 2 ticks; best at 0.04 kimg" in done.output
    assert "best so far: checkpoint-00000005.pt at 0.04 kimg, proxy distance " in done.output
    metadata = {entry.key: entry.value for entry in onnx.load("a.onnx").metadata_props}
    assert metadata["images_seen"] == "40"  # of 120
    assert "no improvement of quality/frechet for 2 ticks" in Path("run/report.html").read_text(encoding="utf-8")

    again = invoke("resume", "run")
    assert again.exit_code == 0
    assert "run ended at 0.12 kimg: no improvement" in again.output
    longer = invoke("resume", "run", "--set", "run.patience_ticks=4")
    assert "stopped: no improvement of quality/frechet for 4 ticks" in longer.output
    assert [tick["images_seen"] for tick in trainer.train(resume="run").metrics] == [40, 80, 120, 160, 200]


def test_train_after_its_minutes_saves_reports_and_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "time", Clock())
    done = invoke("train", "--preset", "stuck.yaml", "--run-dir", "run", "--minutes", "0.2", "--export", "a.onnx")
    assert done.exit_code == 0, done.output
    assert "the minutes are used up at 0.096 kimg: stopped and saved; continue with: " in done.output
    assert "trainer resume run\n" in done.output
    assert checkpoint.load_latest(Path("run"))[1]["counters"]["steps"] == 12
    assert Path("a.onnx").is_file()
    assert Path("run/report.html").is_file()
    monkeypatch.undo()


def test_resume_with_minutes_that_are_over_takes_a_step() -> None:
    invoke("train", "--preset", "stuck.yaml", "--run-dir", "run", "--minutes", "0.00001")
    invoke("resume", "run", "--minutes", "0.00001")
    assert checkpoint.load_latest(Path("run"))[1]["counters"]["steps"] == 2


def test_train_from_python_for_minutes_resumes_as_if_it_had_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    config = trainer.load_config("stuck.yaml", {"run.total_kimg": 0.16, "optim.g_lr": 1e-3})
    whole = trainer.train(config, quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "time", Clock())
        part = trainer.train(config, minutes=0.2, quiet=True)
    assert (part.finished, part.interrupted) == (False, False)
    assert len(part.metrics) == 2
    part = trainer.train(resume=part, minutes=60, quiet=True)
    assert part.finished
    ours, theirs = (checkpoint.load_latest(run.path)[1] for run in (part, whole))
    assert ours["best"] == theirs["best"]
    assert all(ours["G_ema"][name].equal(theirs["G_ema"][name]) for name in theirs["G_ema"])
    measured = [{name: tick[name] for name in tick if name.startswith("quality/m")} for tick in part.metrics]
    assert measured == [{name: tick[name] for name in tick if name.startswith("quality/m")} for tick in whole.metrics]
    assert measured[0].keys() >= {"quality/memorization", "quality/memorization_real"}


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_train_for_no_minutes_is_rejected(minutes: str) -> None:
    done = invoke("train", "--preset", "stuck.yaml", "--minutes", minutes)
    assert done.exit_code == 2
    assert "minutes is a number above 0" in done.output
    assert not Path("runs").exists()


@pytest.mark.slow
def test_train_interrupted_before_its_minutes_exits_with_130() -> None:
    with training("--minutes", "10", "--export", "models") as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(60) == 130
    assert rest.splitlines()[-1].startswith("stopped and saved; continue with: ")
    assert "trainer resume run\n" in rest
    assert "minutes" not in rest
    assert checkpoint.paths(Path("run"))
    assert not Path("models").exists()


@pytest.mark.slow
def test_export_best_while_a_process_trains_the_run() -> None:
    """Ticks last milliseconds and one checkpoint is kept besides the best, so that files vanish all the time."""
    with training("--set", "optim.g_lr=1e-3", "--set", "run.keep_checkpoints=1") as process:
        seen = set()
        for _ in range(100):
            content = checkpoint.read_best(Path("run"))
            assert content["best"]["step"] == content["counters"]["steps"]
            seen |= {content["best"]["step"], checkpoint.load_latest(Path("run"))[1]["counters"]["steps"]}
        for arguments in (["export", "run", "-o", "a.onnx", "--best"], ["sample", "run", "-o", "a.png", "--best"]):
            done = invoke(*arguments)
            assert done.exit_code == 0, done.output
            assert "best so far: checkpoint-" in done.output
        assert process.poll() is None
    assert len(seen) > 5


def state_at(config: Config, step: int, best: int, run_dir: Path) -> None:
    state = TrainState.create(config)
    state.steps, state.best = step, {"step": best, "frechet": 1.0 / best}
    checkpoint.save(state, run_dir, keep=1)


def replace_while_read(config: Config, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make a run whose checkpoint of step 5 is replaced by one of step 10 at the first read; return what is read."""
    run_dir.mkdir()
    state_at(config, 5, 5, run_dir)
    whole, calls = checkpoint.read, []

    def read(path: Path) -> dict[str, object]:
        calls.append(path.name)
        if len(calls) == 1:
            state_at(config, 10, 10, run_dir)
        return whole(path)

    monkeypatch.setattr(checkpoint, "read", read)
    return calls


def test_read_best_replaced_while_it_is_read_is_read_again(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, calls = tmp_path / "run", replace_while_read(tiny(), tmp_path / "run", monkeypatch)
    assert checkpoint.read_best(run_dir)["counters"]["steps"] == 10
    assert calls == ["checkpoint-00000005.pt", "checkpoint-00000010.pt"]

    calls.clear()
    assert checkpoint.load_latest(run_dir)[0].name == "checkpoint-00000010.pt"


def test_load_latest_removed_while_it_is_read_reads_the_next(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    replace_while_read(tiny(), run_dir, monkeypatch)
    path, _, complaints = checkpoint.load_latest(run_dir)
    assert (path.name, complaints) == ("checkpoint-00000010.pt", [])


def test_read_best_of_a_damaged_checkpoint_ends(tiny: Callable[..., Config], tmp_path: Path) -> None:
    state_at(tiny(), 5, 5, tmp_path)
    path = checkpoint.best_path(tmp_path)
    path.write_bytes(b"half")
    with pytest.raises(TrainerError, match="is damaged"):
        checkpoint.read_best(tmp_path)
    path.unlink()
    with pytest.raises(TrainerError, match=r"names checkpoint-00000005\.pt, which does not exist"):
        checkpoint.read_best(tmp_path)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ({"quality_ticks": 2}, r"quality is first measured at 0\.08 kimg \(run\.quality_ticks=2 ticks of 0\.04 kimg\)"),
        ({"quality_ticks": 50}, r"quality is first measured at 0\.16 kimg"),
        ({"quality_ticks": 0}, r"was not measured \(run\.quality_ticks=0\)"),
    ],
)
def test_read_best_before_the_first_measurement_names_when(
    run: dict[str, int], reason: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    run_dir = run_folder.create(tmp_path, tiny(run=run))
    checkpoint.save(TrainState.create(tiny(run=run)), run_dir, keep=1)
    with pytest.raises(TrainerError, match=reason):
        checkpoint.read_best(run_dir)


def test_train_best_without_an_export_is_rejected() -> None:
    done = invoke("train", "--preset", "stuck.yaml", "--best")
    assert done.exit_code == 2
    assert "--best chooses what --export writes" in done.output
    done = invoke("train", "--preset", "stuck.yaml", "--set", "run.quality_ticks=0", "--best", "--export", "a.onnx")
    assert done.exit_code == 2
    assert "--best needs a measure of quality" in done.output
    assert not Path("runs").exists()
