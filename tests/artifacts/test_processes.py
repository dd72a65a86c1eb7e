"""Children that run our modules, and no file of the user's; signals that end a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from artifacts.processes import ROOT, child_environment, interruptible, is_alive, python_module


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose files have the names of modules that our commands import."""
    for name in ("trainer", "evaluation", "imagesets", "artifacts", "random", "secrets", "typing", "statistics"):
        (tmp_path / f"{name}.py").write_text("print('FOREIGN CODE')\nraise SystemExit(3)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("module", ["trainer", "evaluation", "trainer.sweep.workers"])
def test_python_module_hostile_folder_runs_ours(hostile: Path, module: str) -> None:
    command = [*python_module(module), *([str(os.getpid())] if module.endswith("workers") else []), "--help"]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "FOREIGN" not in done.stdout + done.stderr
    assert "Usage" in done.stdout


def test_child_environment_grandchild_runs_ours(hostile: Path) -> None:
    code = (
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', 'import random, trainer']).returncode)"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_child_environment_keeps_the_users_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"/one{os.pathsep}/two")
    assert child_environment()["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/one", "/two"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_interruptible_signal_raises_once(number: signal.Signals) -> None:
    code = f"""
import os
from artifacts.processes import interruptible
try:
    with interruptible():
        try:
            os.kill(os.getpid(), {int(number)})
        finally:
            os.kill(os.getpid(), 15)
            os.kill(os.getpid(), 1)
            print("cleaned up")
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run(
        ["env", "--default-signal=HUP", sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split("\n")[:2] == ["cleaned up", "interrupted"], done.stderr


def test_interruptible_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_command_line_in_a_removed_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = ["bash", "-c", 'cd "$1"; rmdir "$1"; shift; exec "$@"', "-", str(tmp_path / "gone")]
    command += [*python_module("trainer"), "presets"]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: the working directory was removed; change into another one\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_is_alive_of_a_running_and_an_ended_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_alive(child.pid)
    child.communicate(b"\n")
    assert not is_alive(child.pid)


def test_be_killed_first_raises_only_this_process_score() -> None:
    score = Path("/proc/self/oom_score_adj")
    before = score.read_text(encoding="ascii")
    code = f"from artifacts.processes import be_killed_first; be_killed_first(700); print(open('{score}').read())"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["700"], "")
    assert score.read_text(encoding="ascii") == before
