"""On which addresses the service listens, and the warning of one that is open to other machines."""

import logging
import re
import socket
import sys
from pathlib import Path

import pytest
import yaml

from service import preflight
from service.default_address import default_host
from service.server import exposure_warning
from tests.support.paths import ROOT
from tests.support.service.service_process import free_port, listening_hosts, running
from tests.support.tiny_generator import write_tiny_generator


def test_serve_without_host_means_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATELIER_BIND", raising=False)
    assert default_host() == "127.0.0.1"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^BIND\s+\?= \$\(or \$\(ATELIER_BIND\),127\.0\.0\.1\)$", makefile, re.MULTILINE)
    assert re.search(r"^PORT\s+\?= \$\(or \$\(ATELIER_PORT\),3000\)$", makefile, re.MULTILINE)
    assert "service serve --host $(call quoted,$(BIND)) --port $(call quoted,$(PORT))" in makefile


def test_serve_without_host_takes_it_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_BIND", "0.0.0.0")
    assert default_host() == "0.0.0.0"


def test_containers_set_the_address_to_listen_on() -> None:
    assert "service serve --host 0.0.0.0" in (ROOT / "docker/service-entry.sh").read_text(encoding="utf-8")
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))
    assert compose["services"]["service"]["command"] == ["--host", "0.0.0.0"]
    deployment = yaml.safe_load((ROOT / "docker/kubernetes/base/deployment.yaml").read_text(encoding="utf-8"))
    assert deployment["spec"]["template"]["spec"]["containers"][0]["args"] == ["--host", "0.0.0.0"]
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))
    assert bento["envs"] == [{"name": "BENTOML_HOST", "value": "0.0.0.0"}]


@pytest.mark.parametrize(
    ("host", "public"),
    [
        *(("127.0.0.1", False), ("127.9.9.9", False), ("::1", False)),
        *(("0.0.0.0", True), ("::", True), ("10.0.0.1", True), ("fe80::1%eth0", True)),
    ],
)
def test_is_public_of_loopback_only_is_false(host: str, public: bool) -> None:
    assert exposure_warning.is_public(host) is public


def test_listening_addresses_finds_sockets_that_accept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert server.getsockname() in exposure_warning.listening_addresses()
        opened = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
        assert ("127.0.0.1", 0) not in exposure_warning.listening_addresses()
        assert opened == (len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0)


def test_preflight_public_address_without_keys_warns(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server, caplog.at_level(logging.WARNING):
        exposure_warning.warn_if_public()
        assert f"listening on 0.0.0.0 port {server.getsockname()[1]} without API keys" in caplog.text


def test_check_port_returns_the_address_of_a_name() -> None:
    assert preflight.check_port("localhost", str(free_port())) in ("127.0.0.1", "::1")
    assert preflight.check_port("", str(free_port())) == "127.0.0.1"


@pytest.mark.slow
def test_service_listens_on_loopback_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_generator(tmp_path / "tiny.onnx")
    monkeypatch.delenv("BENTOML_HOST", raising=False)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ATELIER_MODEL_DIR": str(tmp_path)}
    for host, warned in (({}, False), ({"BENTOML_HOST": "0.0.0.0"}, True)):
        log = tmp_path / f"log-{warned}"
        with running("service.service:GanAtelier", free_port(), log, {**env, **host}) as server:
            assert listening_hosts(server.workers()[0]) == ({"0.0.0.0"} if warned else {"127.0.0.1"})
            assert ("without API keys" in server.log) is warned
