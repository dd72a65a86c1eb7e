"""The client under the proxy and certificate variables that people's machines have."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.client import Client, ServiceError, transport
from service.client.proxies import EnvironmentVariableError, client_options, is_loopback, proxy_for
from tests.support.service.fake_http_service import MODELS, service

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that answers 503 to everything, and the URLs that it was asked for."""
    urls: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            urls.append(self.path)
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", urls
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "environment",
    [
        {"ALL_PROXY": "socks5://127.0.0.1:1"},
        {"ALL_PROXY": "socks5://127.0.0.1:1", "NO_PROXY": "127.0.0.1"},
        {"ALL_PROXY": "socks4://127.0.0.1:1"},
        {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,fe80::/10"},
        {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,[::1]"},
        {"HTTP_PROXY": "http://127.0.0.1:9"},
        {"http_proxy": "127.0.0.1:9"},
        {"HTTP_PROXY": "not a proxy"},
        {"SSL_CERT_FILE": "/nonexistent.pem"},
        {"SSL_CERT_DIR": "/nonexistent"},
    ],
)
def test_client_on_loopback_ignores_proxies(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with service(lambda path, body: None) as url, Client(url, patience_s=0) as client:
        assert client.models() == MODELS["data"]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("studio.localhost", True),
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("10.0.0.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("", False),
    ],
)
def test_is_loopback_of_a_host(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("", "http://example.org", False),
        ("*", "http://example.org", True),
        ("example.org", "http://example.org", True),
        (".example.org", "http://a.example.org", True),
        ("example.org:81", "http://example.org:81", True),
        ("example.org:81", "http://example.org:82", False),
        ("10.0.0.0/8", "http://10.1.2.3:3000", True),
        ("10.0.0.0/8", "http://11.1.2.3:3000", False),
        ("fe80::/10,fd00::/8", "http://[fd12::1]:3000", True),
        ("[fd12::1]", "http://[fd12::1]:3000", True),
        ("fe80::/10, other.org", "http://example.org", False),
    ],
)
def test_proxy_for_respects_no_proxy(no_proxy: str, url: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(url) == (None if direct else ("http://proxy.test:3128", "HTTP_PROXY"))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ALL_PROXY", "socks4://10.0.0.1:1080", "ALL_PROXY=socks4://10.0.0.1:1080 is not a proxy that can be used"),
        ("HTTP_PROXY", "http://user:secret@:x", "HTTP_PROXY=http://:x is not"),
    ],
)
def test_client_names_a_broken_proxy(variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ServiceError) as error:
        Client("http://example.org")
    assert said in str(error.value)
    assert "secret" not in str(error.value)


def test_client_without_socks_support_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://u:secret@10.0.0.1:1080")
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ServiceError, match=r"ALL_PROXY=socks5://10\.0\.0\.1:1080 needs a package: pip install"):
        Client("http://example.org")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_client_names_a_stale_certificate_variable(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "/nonexistent")
    with pytest.raises(ServiceError, match=f"{variable}=/nonexistent"):
        Client("https://example.org")


def test_client_options_with_an_empty_certificate_file_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(EnvironmentVariableError, match=r"SSL_CERT_FILE=.*empty\.pem"):
        client_options("https://127.0.0.1:3000")


def test_client_goes_through_a_proxy_and_names_it(
    proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, urls = proxy
    monkeypatch.setenv("HTTP_PROXY", address.replace("//", "//user:secret@"))
    with Client("http://service.test", patience_s=0) as client, pytest.raises(ServiceError) as error:
        client.models()
    assert urls == ["http://service.test/v1/models"]
    assert f"HTTP_PROXY={address}" in str(error.value)
    assert "secret" not in str(error.value)


def test_client_behind_a_dead_proxy_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with Client("http://service.test", patience_s=0) as client, pytest.raises(ServiceError) as error:
        client.models()
    assert "HTTP_PROXY=http://127.0.0.1:1" in str(error.value)
    assert "NO_PROXY" in str(error.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_client_names_where_a_redirect_points(status: int) -> None:
    with (
        service(lambda path, body: (status, {"Location": "https://other.test/v1/models"}, b"")) as url,
        Client(url, api_key="key", patience_s=5) as client,
        pytest.raises(ServiceError) as error,
    ):
        client.models()
    assert error.value.status == status
    assert "points to https://other.test/v1/models" in str(error.value)


@pytest.mark.parametrize("location", ["http://[", "http://x/\x1b[31m", "http://x:99999999/"])
def test_client_with_a_broken_location_is_one_printable_line(location: str) -> None:
    with (
        service(lambda path, body: (302, {"Location": location}, b"")) as url,
        Client(url, patience_s=0) as client,
        pytest.raises(ServiceError) as error,
    ):
        client.models()
    assert str(error.value).isprintable()
    assert "ocation" in str(error.value) or "points to" in str(error.value)


@pytest.mark.parametrize("status", [204, 304, 305, 407])
def test_client_with_an_odd_status_names_it(status: int) -> None:
    with (
        service(lambda path, body: (status, {}, b"")) as url,
        Client(url, patience_s=0) as client,
        pytest.raises(ServiceError, match=f"answered {status}"),
    ):
        client.models()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://" + "a" * 300 + ".test", "is not the address"),
        ("http://127.0.0.1:1/?model=x", "remove the ?"),
        ("127.0.0.1:1", "has to start with http:// or https://"),
    ],
)
def test_client_with_a_broken_address_says_why(url: str, message: str) -> None:
    with pytest.raises(ServiceError) as error, Client(url, patience_s=0) as client:
        client.models()
    assert message in str(error.value)


def test_client_speaking_https_to_plain_http_says_so() -> None:
    with (
        service(lambda path, body: None) as url,
        Client(url.replace("http:", "https:"), patience_s=0) as client,
        pytest.raises(ServiceError, match="write http://"),
    ):
        client.models()


def test_client_sends_numpy_numbers_as_numbers() -> None:
    bodies: list[object] = []

    def answer(path: str, body: object) -> tuple[int, dict[str, str], bytes] | None:
        bodies.append(body)
        return (422, {}, b"") if body else None

    with service(answer) as url, Client(url, patience_s=0) as client, pytest.raises(ServiceError):
        client.generate(seed=np.int64(3), n=np.int32(2), truncation=np.float32(0.5))  # type: ignore[arg-type]
    assert bodies[-1] == {"seed": 3, "n": 2, "truncation": 0.5}


def test_service_error_is_one_printable_line() -> None:
    assert str(ServiceError("a\n\x1b[31mb\tc")) == "a ?[31mb c"


@pytest.mark.parametrize("status", [520, 521, 522, 523, 524])
def test_client_waits_for_a_network_in_front(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.01)
    answers = iter([(status, {}, b"<html>"), None])
    with service(lambda path, body: next(answers)) as url, Client(url, patience_s=5) as client:
        assert client.models() == MODELS["data"]


@pytest.mark.parametrize("key", ["two words", "a\nb", "schlüssel", "a\x7f"])
def test_client_refuses_a_key_that_no_header_carries(key: str) -> None:
    with pytest.raises(ServiceError, match="ATELIER_API_KEY"):
        Client("http://127.0.0.1:1", api_key=key)


def test_client_leaves_out_blanks_around_a_key() -> None:
    seen: list[str] = []
    with (
        service(lambda path, body: None, seen=lambda headers: seen.append(headers["Authorization"])) as url,
        Client(url, api_key=" key\r\n") as client,
    ):
        client.models()
    assert seen == ["Bearer key"]


def test_health_check_ignores_proxies() -> None:
    with service(lambda path, body: (200, {}, b"{}")) as url:
        environment = {**os.environ, "HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}
        command = [sys.executable, "-m", "service.healthcheck", url]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
