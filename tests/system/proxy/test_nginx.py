"""The service behind the documented nginx: keys and caches, the clients' addresses, TLS, limits, a path prefix."""

import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.support.programs import find_program
from tests.support.service.nginx import DOCUMENTED, HOST, LISTEN, LISTEN_TLS, SERVER, Nginx, in_front
from tests.support.service.service_process import served
from tests.support.tiny_generator import write_tiny_generator

pytestmark = pytest.mark.slow
KEY = {"Authorization": "Bearer right"}


def models(folder: Path) -> Path:
    write_tiny_generator(folder / "tiny.onnx", size=16)
    return folder


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, str]]:
    """nginx in front of a service with keys, and the service's own address."""
    with (
        served(models(tmp_path_factory.mktemp("models")), ATELIER_API_KEYS="right,other") as server,
        in_front(server.url, tmp_path_factory.mktemp("nginx")) as nginx,
    ):
        yield nginx, server.url


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, str]]:
    """nginx, at the root, in front of a service with a rate limit that trusts it."""
    limits = {"ATELIER_RATE_LIMIT": "0.001", "ATELIER_RATE_BURST": "3", "ATELIER_TRUSTED_PROXIES": "127.0.0.1"}
    with (
        served(models(tmp_path_factory.mktemp("models")), **limits) as server,
        in_front(server.url, tmp_path_factory.mktemp("nginx"), prefix="") as nginx,
    ):
        yield nginx, server.url


def digest(url: str) -> str:
    return httpx.get(f"{url}/v1/models/tiny", headers=KEY).json()["digest"]


# Keys and the cache


@pytest.mark.parametrize("query", ["", "?digest={digest}"])
def test_cache_with_keys_gives_no_image_without_a_key(keyed: tuple[Nginx, str], query: str) -> None:
    nginx, url = keyed
    path = "/v1/models/tiny/images/3.png" + query.format(digest=digest(url))
    for _ in range(3):
        shown = nginx.ask(path, headers=KEY)
        assert (shown.status_code, "X-Cache" in shown.headers) == (200, False)
        assert shown.headers["Cache-Control"].startswith("private")
        assert shown.headers["Vary"] == "Authorization"
        tag = {"If-None-Match": shown.headers["ETag"]}
        assert nginx.ask(path, headers=KEY | tag).status_code == 304
        for how in ({}, tag, {"Range": "bytes=0-9"}, {"X-API-Key": "right"}, {"Cookie": "key=right"}):
            refused = nginx.ask(path, headers=how)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
            assert refused.headers["Cache-Control"] == "no-store"
        assert nginx.client.head(path).status_code == 401


def test_cache_with_keys_gives_nothing_else_without_a_key(keyed: tuple[Nginx, str]) -> None:
    nginx, _ = keyed
    for path in ("/v1/models", "/v1/models/tiny", "/v1/status", "/openapi.json", "/schema.json"):
        shown = nginx.ask(path, headers=KEY)
        assert (shown.status_code, shown.headers["Cache-Control"]) == (200, "no-store"), path
        assert nginx.ask(path).status_code == 401


def test_cache_whose_proxy_adds_a_key_keeps_no_private_image(tmp_path: Path) -> None:
    """A proxy that shows the key for its clients sees no Authorization of theirs: only the answer can say it."""
    added = ("proxy_set_header X-Forwarded-Proto $scheme;", 'proxy_set_header Authorization "Bearer right";')
    with (
        served(models(tmp_path), ATELIER_API_KEYS="right") as server,
        in_front(server.url, empty(tmp_path), changed=(added,)) as nginx,
    ):
        for query in ("", f"?digest={digest(server.url)}"):
            states = [nginx.ask(f"/v1/models/tiny/images/3.png{query}").headers["X-Cache"] for _ in range(3)]
            assert states == ["MISS"] * 3


def test_cached_answer_carries_the_request_id_of_its_own_request(tmp_path: Path) -> None:
    with served(models(tmp_path)) as server, in_front(server.url, empty(tmp_path)) as nginx:
        path = f"/v1/models/tiny/images/3.png?digest={digest(server.url)}"
        first = nginx.ask(path, headers={"X-Request-Id": "first"})
        second = nginx.ask(path, headers={"X-Request-Id": "second"})
        third = nginx.ask(path, headers={"X-Request-Id": "no such: id"})
        assert [answer.headers["X-Cache"] for answer in (first, second, third)] == ["MISS", "HIT", "HIT"]
        assert [answer.headers.get_list("X-Request-Id") for answer in (first, second)] == [["first"], ["second"]]
        assert re.fullmatch("[0-9a-f]{32}", third.headers["X-Request-Id"])


def empty(folder: Path) -> Path:
    workspace = folder / "nginx"
    workspace.mkdir()
    return workspace


# The clients' addresses


def statuses(nginx: Nginx, source: str, times: int, **headers: str) -> list[int]:
    """Statuses of requests that come from an address of loopback."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    transport = httpx.HTTPTransport(local_address=source, verify=context)
    with httpx.Client(transport=transport, base_url=nginx.client.base_url) as client:
        return [client.get("/v1/models", headers=headers).status_code for _ in range(times)]


def test_clients_behind_nginx_have_a_bucket_each(limited: tuple[Nginx, str]) -> None:
    nginx, _ = limited
    assert statuses(nginx, "127.0.0.11", 4) == [200, 200, 200, 429]
    assert statuses(nginx, "127.0.0.12", 4) == [200, 200, 200, 429]


def test_client_that_writes_x_forwarded_for_stays_one_client(limited: tuple[Nginx, str]) -> None:
    nginx, _ = limited
    written = ["10.0.0.1", "10.0.0.2, 127.0.0.1", "::ffff:10.0.0.3", "unknown", "10.0.0.4:99"]
    answers = [statuses(nginx, "127.0.0.13", 1, **{"X-Forwarded-For": address})[0] for address in written]
    assert answers == [200, 200, 200, 429, 429]


def test_clients_behind_two_nginxes_have_a_bucket_each(tmp_path: Path) -> None:
    limits = {"ATELIER_RATE_LIMIT": "0.001", "ATELIER_RATE_BURST": "2", "ATELIER_TRUSTED_PROXIES": "127.0.0.1"}
    inner_place, outer_place = tmp_path / "inner", tmp_path / "outer"
    inner_place.mkdir()
    outer_place.mkdir()
    appended = ("X-Forwarded-For $remote_addr;", "X-Forwarded-For $proxy_add_x_forwarded_for;")
    with (
        served(models(tmp_path), **limits) as server,
        in_front(server.url, inner_place, prefix="", changed=(appended, plain_proxy())) as inner,
        in_front(f"http://127.0.0.1:{inner.plain_port}", outer_place, prefix="") as outer,
    ):
        assert statuses(outer, "127.0.0.21", 3) == [200, 200, 429]
        assert statuses(outer, "127.0.0.22", 3) == [200, 200, 429]
        written = [statuses(outer, "127.0.0.23", 1, **{"X-Forwarded-For": f"10.0.0.{i}"})[0] for i in range(3)]
        assert written == [200, 200, 429]


def plain_proxy() -> tuple[str, str]:
    """A change of the configuration: port 80 proxies too, for another proxy that ends TLS."""
    return (
        "return 308 https://$host$request_uri;",
        "location / { proxy_pass http://atelier; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }",
    )


# TLS, limits, the prefix


def test_plain_http_is_sent_to_https_with_its_method(limited: tuple[Nginx, str]) -> None:
    nginx, _ = limited
    headers = {"Host": HOST}
    answer = httpx.post(f"http://127.0.0.1:{nginx.plain_port}/v1/generate?a=b", json={"seed": 1}, headers=headers)
    assert (answer.status_code, answer.headers["Location"]) == (308, f"https://{HOST}/v1/generate?a=b")


def test_times_and_sizes_of_nginx_fit_the_settings() -> None:
    default = {name: field.default for name, field in Settings.model_fields.items()}

    def reported(directive: str) -> float:
        return float(re.findall(rf"^\s*{directive}\s+(\d+)[sm];", DOCUMENTED, re.MULTILINE)[0])

    assert default["deadline_s"] + 10 <= reported("proxy_read_timeout") < 60
    assert reported("client_body_timeout") == default["body_timeout_s"]
    assert reported("client_header_timeout") == default["header_timeout_s"]
    assert default["max_body_bytes"] < reported("client_max_body_size") * 2**20
    assert reported("keepalive_timeout") < 5
    for once in (LISTEN, LISTEN_TLS, SERVER):
        assert DOCUMENTED.count(once) == 1


def test_body_beyond_the_limit_has_the_services_error(keyed: tuple[Nginx, str]) -> None:
    nginx, _ = keyed
    body = b'{"seed": 1}' + b" " * (4 * 2**20)
    answer = nginx.client.post(
        "/v1/generate", content=body, headers=KEY | {"Content-Type": "application/json"}, timeout=30
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_service_below_a_prefix_answers_all_of_its_routes(keyed: tuple[Nginx, str]) -> None:
    nginx, _ = keyed
    page = nginx.ask("/")
    assert page.status_code == 200
    linked = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert all(not link.startswith("/") for link in linked)
    for link in linked:
        if link != "metrics":
            assert nginx.ask(f"/{link}", headers=KEY).status_code == 200, link
    assert nginx.ask("/metrics", headers=KEY).status_code == 404  # nginx's own: it is not for the world
    outside = httpx.URL(f"https://127.0.0.1:{nginx.port}/gan")
    answer = nginx.client.get(outside)
    assert (answer.status_code, answer.headers["Location"]) == (301, "/gan/")
    assert nginx.client.get(httpx.URL(f"https://127.0.0.1:{nginx.port}/v1/models")).status_code == 404


def test_schema_below_a_prefix_names_the_prefix(keyed: tuple[Nginx, str]) -> None:
    nginx, _ = keyed
    document = nginx.ask("/openapi.json", headers=KEY)
    base = document.url.join(document.json()["servers"][0]["url"])
    answer = nginx.client.post(base.join("v1/generate"), json={"seed": 1}, headers=KEY)
    assert (answer.status_code, answer.json()["data"][0]["seed"]) == (200, 1)


def test_http2_of_the_proxy_reaches_the_service(keyed: tuple[Nginx, str]) -> None:
    nginx, _ = keyed
    address = f"https://127.0.0.1:{nginx.port}/gan/v1/generate"
    done = subprocess.run(
        [
            *(find_program("curl"), "-sk", "--http2", "-m", "20", "-w", "\n%{http_version} %{http_code}", address),
            *("-H", "Authorization: Bearer right", "-H", "Content-Type: application/json", "-d", '{"seed": 1}'),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "2 200"
