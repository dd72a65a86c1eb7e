"""Claims about `python -m service serve` where it cannot start, and about the health check; each is one line."""

import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from service import healthcheck, preflight
from service.errors import ApiError, error_response
from service.settings import settings
from tests.support.paths import ROOT
from tests.support.service.service_process import free_port


def serve(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", "serve", *words]
    env = {**os.environ, "BENTOML_DO_NOT_TRACK": "true", **environment}
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that it said; exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_serve_on_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} is taken; choose another" in refused(serve("--host", "127.0.0.1", "--port", str(port)))


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", ""])
def test_serve_on_an_invalid_port_is_one_line(port: str) -> None:
    with pytest.raises(preflight.StartError, match=f"the port is '{port}'; it has to be a number from 1 to 65535"):
        preflight.check_port("127.0.0.1", port)


def test_serve_on_an_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(preflight.StartError, match=r"192\.0\.2\.1 is not an address of this machine"):
        preflight.check_port("192.0.2.1", "3000")


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "\udcff"])
def test_check_port_of_an_impossible_host_is_one_line(host: str) -> None:
    with pytest.raises(preflight.StartError, match="is not an address of this machine"):
        preflight.check_port(host, "3000")


def test_serve_with_an_impossible_bentoml_home_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    reported = refused(serve(BENTOML_HOME=str(tmp_path / "file" / "home")))
    assert f"{tmp_path}/file/home is not writable" in reported
    assert "BENTOML_HOME" in reported


def test_serve_without_a_temporary_folder_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(preflight.tempfile, "gettempdir", none)
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with pytest.raises(preflight.StartError, match=r"/nowhere is not writable; mount it \(--tmpfs /tmp\)"):
        preflight.check_writable()


def test_check_machine_of_another_processor_raises(tmp_path: Path) -> None:
    reported = tmp_path / "machine"
    preflight.check_machine(reported)
    reported.write_text(platform.machine() + "\n", encoding="utf-8")
    preflight.check_machine(reported)
    reported.write_text("s390x\n", encoding="utf-8")
    with pytest.raises(preflight.StartError, match=f"built for s390x, and this machine is {platform.machine()}"):
        preflight.check_machine(reported)


def test_serve_with_a_misspelled_setting_names_the_right_one() -> None:
    message = refused(serve(ATELIER_API_KEYZ="secret"))
    assert "ATELIER_API_KEYZ is not a setting; did you mean ATELIER_API_KEYS?" in message
    assert "secret" not in message


def test_serve_with_the_clients_key_alone_warns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATELIER_API_KEY", "secret")
    for name in ("ATELIER_API_KEYS", "ATELIER_API_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)
    started: list[list[str]] = []
    monkeypatch.setattr(preflight.os, "execve", lambda path, command, environment: started.append(command))
    monkeypatch.setattr(preflight, "limit_thread_pools", lambda: None)  # it sets variables of this process
    settings.cache_clear()
    preflight.serve("127.0.0.1", str(free_port()))
    settings.cache_clear()
    assert started
    message = capsys.readouterr().err
    assert "set ATELIER_API_KEYS" in message
    assert "secret" not in message


def test_serve_with_unrelated_variables_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ATELIER_OFFLINE": "1",  # the other rooms'
        "ATELIER_PORT": "tcp://10.0.0.1:3000",  # what Kubernetes tells of a Service named atelier
        "ATELIER_PORT_3000_TCP_ADDR": "10.0.0.1",
        "ATELIER_SERVICE_HOST": "10.0.0.1",
        "ATELIER_SERVICE_PORT_HTTP": "3000",
        "ATELIER_WEB_SERVICE_PORT": "3000",
    }.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    settings()
    settings.cache_clear()


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that gives every GET this answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_health_check_reports_ready_or_the_reason() -> None:
    not_ready = bytes(error_response(ApiError(503, "not_ready", "the model folder is empty")).body)
    with answering(200, b"{}") as url:
        assert healthcheck.not_ready_reason(url) is None
    with answering(503, not_ready) as url:
        assert healthcheck.not_ready_reason(url) == "the model folder is empty"
        done = subprocess.run(
            [sys.executable, "-m", "service.healthcheck", url], cwd=ROOT, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (1, "not ready: the model folder is empty\n", "")
    with answering(502, b"<html>") as url:
        assert healthcheck.not_ready_reason(url) == "/readyz answered 502"
    assert "no answer at" in str(healthcheck.not_ready_reason(url))


@pytest.mark.parametrize("argument", ["--help", "localhost:3000", "file:///etc/passwd", "http://", "http://[::1"])
def test_healthcheck_of_no_url_is_one_line_and_exit_code_2(argument: str) -> None:
    command = [sys.executable, "-m", "service.healthcheck", argument]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {argument} is not an http:// or https:// address of a service\n"


def test_serve_without_a_home_names_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("BENTOML_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(preflight.StartError, match="HOME is not set; set it, or BENTOML_HOME"):
        preflight.check_writable()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "sys.argv[1:] = ['serve']; sys.modules['fcntl'] = sys.modules['resource'] = None; "
        "import runpy; runpy.run_module('service', run_name='__main__')",
        "import service.server.posix_modules; service.server.posix_modules.fcntl = None; import service.service",
    ],
)
def test_serve_without_posix_modules_says_what_is_supported(command: str) -> None:
    code = f"import sys; {command}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "the service runs on Linux and macOS" in refused(done)


def test_client_without_posix_modules_is_imported() -> None:
    code = "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None; import service.client"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
