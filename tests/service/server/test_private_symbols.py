"""The private parts of BentoML, uvicorn and circus exist, and without each the service still works."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn.config

from service.server import bentoml_adapter, connection_limits, process_setup, shutdown, supervision
from service.server.private_symbols import TESTED, find_missing, is_supported
from service.settings import Settings
from tests.support.paths import ROOT
from tests.support.service.service_process import free_port, running
from tests.support.tiny_generator import write_tiny_generator

MODULES = (bentoml_adapter, connection_limits, shutdown, supervision)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_private_symbols_of_installed_versions_exist(module: Any) -> None:
    assert module.SYMBOLS
    assert find_missing(module.SYMBOLS) == []


@pytest.mark.parametrize(
    "symbol",
    ["no_such_module:name", "uvicorn.config:no_name", "uvicorn.server:Server.no_name", "uvicorn.server:Server.run.no"],
)
def test_find_missing_of_an_absent_symbol_returns_it(symbol: str) -> None:
    assert find_missing([symbol, "uvicorn.server:Server.started", "uvicorn.server:Server.run"]) == [symbol]


def test_is_supported_without_a_symbol_warns_with_the_versions(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "bentoml.atelier"):
        assert not is_supported("some feature", ["uvicorn.server:Server.no_name"])
    (record,) = caplog.records
    assert "some feature: off, because uvicorn.server:Server.no_name is missing" in record.message
    assert f"uvicorn {uvicorn.__version__} (tested: {TESTED['uvicorn']})" in record.message


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Have each module miss a symbol; returns the log."""
    for module in MODULES:
        monkeypatch.setattr(module, "SYMBOLS", (*module.SYMBOLS, "uvicorn.server:Server.renamed"))
    caplog.set_level(logging.WARNING, "bentoml.atelier")
    return caplog


def test_connection_limits_without_a_symbol_leave_uvicorn_as_it_is(
    absent: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocols = dict(uvicorn.config.HTTP_PROTOCOLS)
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(protocols))
    process_setup.install_connection_limits(Settings())
    assert protocols == uvicorn.config.HTTP_PROTOCOLS
    assert "limits on slow and idle connections: off" in absent.text


def test_connection_limits_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    monkeypatch.setattr(uvicorn.config, "WS_PROTOCOLS", dict(uvicorn.config.WS_PROTOCOLS))
    limits = process_setup.install_connection_limits(Settings(header_timeout_s=3, max_connections=7))
    protocol: Any = uvicorn.config.HTTP_PROTOCOLS["auto"]
    assert protocol.limits is limits
    assert (limits.header_timeout_s, limits.max_connections) == (3, 7)
    config = uvicorn.Config(bentoml_adapter.RootDispatcher, log_config=None)
    config.load()
    assert config.http_protocol_class is protocol


class Server:
    """uvicorn's server, without what a shutdown needs."""

    __module__ = "uvicorn.server"

    def handle_exit(self, number: int, frame: Any) -> None:
        raise AssertionError


def test_shutdown_without_a_symbol_leaves_uvicorn_s_handler(absent: pytest.LogCaptureFixture) -> None:
    handler = Server().handle_exit
    before = signal.signal(signal.SIGTERM, handler)
    try:
        shutdown.install(Any, lambda: True)  # type: ignore[arg-type]
        assert signal.getsignal(signal.SIGTERM) == handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "draining before a stop: off" in absent.text


def test_bentoml_entry_without_a_symbol_leaves_the_service(absent: pytest.LogCaptureFixture) -> None:
    service = object()
    bentoml_adapter.install(service, Any)  # type: ignore[arg-type]
    assert type(service) is object
    assert "one shape for the errors of BentoML's own routes: off" in absent.text


def test_supervision_without_a_symbol_leaves_circus_as_it_is() -> None:
    code = (
        "import logging, signal; from circus.sighandler import SysHandler; from service.server import supervision\n"
        "logging.basicConfig(); before = SysHandler.quit\n"
        "supervision.SYMBOLS += ('circus.arbiter:Arbiter.renamed',); supervision.watch_workers()\n"
        "assert SysHandler.quit is before; assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "replacing dead workers at once: off, because circus.arbiter:Arbiter.renamed is missing" in done.stderr


@pytest.mark.slow
def test_service_without_private_symbols_answers_and_stops(tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "models" / "tiny.onnx")
    (tmp_path / "reduced.py").write_text(
        "from service.server import private_symbols\n"
        "private_symbols.find_missing = lambda symbols: ['uvicorn:renamed']\n"
        "from service.service import GanAtelier\n",
        encoding="utf-8",
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "ATELIER_MODEL_DIR": str(tmp_path / "models")}
    env["ATELIER_API_KEYS"] = "right"
    key = {"Authorization": "Bearer right"}
    with running("reduced:GanAtelier", free_port(), tmp_path / "log", env, cwd=tmp_path) as server:
        npy = {"Accept": "application/x-npy"}
        answer = httpx.post(f"{server.url}/v1/generate", json={"n": 2}, headers=key | npy)
        assert answer.status_code == 200
        native = f"{server.url}/v1/native/generate"
        assert httpx.post(native, json={"n": 1}, headers=key).status_code == 200
        assert httpx.post(native, json={"n": 1}).status_code == 401
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        for feature in ("limits on slow and idle connections", "draining before a stop", "replacing dead workers"):
            assert feature in server.log
        assert "Traceback" not in server.log
