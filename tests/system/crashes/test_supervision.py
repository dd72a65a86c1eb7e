"""Claims about the supervisor and its folders. Real processes."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service import preflight
from service.observability import metrics
from service.server import runtime_folder
from tests.support.paths import ROOT
from tests.support.polling import wait_until
from tests.support.service.service_process import Server, served
from tests.support.tiny_generator import write_tiny_generator


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def refuses(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Two workers that are ready, with short times to stop."""
    write_tiny_generator(tmp_path / "models" / "tiny.onnx")
    (tmp_path / "tmp").mkdir()
    settings = {"ATELIER_WORKERS": 2, "ATELIER_GRACE_S": 2, "ATELIER_DRAIN_S": 0.2, "TMPDIR": tmp_path / "tmp"}
    with served(tmp_path / "models", tmp_path / "log", **settings) as server:
        wait_until(lambda: server.log.count('"event": "ready with') == 2, 120)
        yield server


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_workers_end_with_their_supervisor(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    workers = [psutil.Process(pid) for pid in server.workers()]
    workers[0].suspend()
    server.process.send_signal(number)
    server.process.wait(20)
    wait_until(lambda: all(gone(worker) for worker in workers), 5)
    # A process is a zombie once its first thread has ended; its files are closed when the last one has
    wait_until(lambda: refuses(server), 5)
    assert list((tmp_path / "tmp").glob("atelier-*")), "nobody was there to remove it"
    runtime_folder.remove_dead(tmp_path / "tmp")
    assert not list((tmp_path / "tmp").glob("atelier-*"))


@pytest.mark.slow
@pytest.mark.alone
def test_stop_with_a_suspended_worker_ends(server: Server, tmp_path: Path) -> None:
    stopped = psutil.Process(server.workers()[0])
    stopped.suspend()
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    assert time.monotonic() - began < 30
    assert gone(stopped)
    assert f"worker {stopped.pid} did not end within 4 s and is killed" in server.log
    assert not list((tmp_path / "tmp").glob("atelier-*"))


def test_runtime_folder_of_a_dead_owner_is_removed(tmp_path: Path) -> None:
    code = "from service.server import runtime_folder; print(runtime_folder.make('x'), flush=True); input()"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    owner = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    (folder / "copy.onnx").write_bytes(b"content")
    others = tmp_path / "atelier-of-another-program"
    others.mkdir()
    runtime_folder.remove_dead(tmp_path)
    assert (folder / "copy.onnx").exists()
    owner.kill()
    owner.communicate()
    runtime_folder.remove_dead(tmp_path)
    assert not folder.exists()
    assert others.is_dir()


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_shared_file_without_disk_space_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime_folder.allocate(tmp_path / "a", 2**16)
    found = (tmp_path / "a").stat()
    assert (found.st_size, found.st_blocks * 512 >= 2**16) == (2**16, True)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        runtime_folder.allocate(tmp_path / "b", 2**16)
    assert not (tmp_path / "b").exists()


def test_reserve_files_without_disk_space_counts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    metrics.reserve_files()
    assert sum(path.stat().st_blocks * 512 for path in tmp_path.glob("*.db")) >= 4 * metrics.FILE_BYTES
    monkeypatch.setattr(os, "posix_fallocate", full)
    metrics.reserve_files()
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert not list(tmp_path.glob("*.db"))


def test_serve_with_a_full_temporary_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(preflight.StartError, match="cannot be written \\(No space left on device\\); free some space"):
        preflight.check_writable()


def test_serve_with_an_unused_tmpdir_is_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path / "missing")}
    command = [sys.executable, "-m", "service", "serve", "--host", "127.0.0.1", "--port", "4499"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: TMPDIR is {tmp_path / 'missing'}, which cannot be written")
