"""A test session that ends, however it ends, leaves no process and no temporary folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.paths import ROOT
from tests.support.polling import wait_until
from tests.support.process_cleanup import OWNER, PREFIX, remove_left_over

CONFTEST = """
from tests.support.process_cleanup import own_temporary_folder, stop_on_signals

own_temporary_folder()
stop_on_signals()
"""
# A test that starts a process in a new session, which no signal to its parent reaches.
TEST = """
import os, subprocess, sys, tempfile
from pathlib import Path


def test_starts_a_process(tmp_path):
    (tmp_path / "file").touch()
    tempfile.mkdtemp()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    Path(os.environ["STARTED"]).write_text(str(child.pid))
    if os.environ["WAITS"] == "yes":
        child.wait()
"""


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "processes", "code"),
    [(None, "2", 0), (signal.SIGINT, "0", 2), (signal.SIGTERM, "0", 2), (signal.SIGTERM, "2", 2)],
    ids=["finished", "interrupted", "terminated", "terminated-xdist"],
)
def test_session_leaves_nothing(tmp_path: Path, number: signal.Signals | None, processes: str, code: int) -> None:
    project, temporary, started = tmp_path / "project", tmp_path / "tmp", tmp_path / "started"
    project.mkdir()
    temporary.mkdir()
    (project / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (project / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (project / "test_it.py").write_text(TEST, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in (OWNER, "PYTEST_DEBUG_TEMPROOT")}
    environment |= {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "STARTED": str(started)}
    environment["WAITS"] = "no" if number is None else "yes"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", processes]
    with (tmp_path / "log").open("wb") as log:
        session = subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=log)
        try:
            wait_until(lambda: started.is_file() and started.read_text(encoding="utf-8"), 60)
            if number is not None:
                session.send_signal(number)
            assert session.wait(60) == code, (tmp_path / "log").read_text(encoding="utf-8")
        finally:
            session.kill()
    wait_until(lambda: not is_running(int(started.read_text(encoding="utf-8"))))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ci_test_interrupted_ends_lint_and_tests(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Lint and pytest are stand-ins, which write their process ids and wait."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho $$ > tests-started\nexec sleep 600\n", encoding="utf-8")
    python.chmod(0o755)
    lint = "sh -c 'echo $$ > lint-started; exec sleep 600' && true"
    session = subprocess.Popen([ROOT / ".ci" / "test", "2", lint], cwd=tmp_path, stderr=subprocess.DEVNULL)
    started = [tmp_path / "tests-started", tmp_path / "lint-started"]
    try:
        wait_until(lambda: all(path.is_file() and path.read_text(encoding="utf-8") for path in started))
        session.send_signal(number)
        assert session.wait(30) == code
    finally:
        session.kill()
    for path in started:
        wait_until(lambda pid=int(path.read_text(encoding="utf-8")): not is_running(pid))  # type: ignore[misc]


def test_remove_left_over_removes_folders_of_dead_sessions(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, alive, other = (tmp_path / f"{PREFIX}{pid}" for pid in (f"{int(ended.stdout)}-a", f"{os.getpid()}-b", "c"))
    for folder in (dead, alive, other):
        folder.mkdir()
    remove_left_over(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, other])
