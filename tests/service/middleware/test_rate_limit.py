"""The rate of each client is limited."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.middleware.rate_limit import RateLimiter, client_id
from tests.support.service.responses import bearer


class Clock:
    now = 10**12

    def __call__(self) -> int:
        return self.now


def test_rate_limiter_passes_a_burst_then_the_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(rate=10, burst=3, clock=clock)
    assert [limiter.take("a") for _ in range(3)] == [0, 0, 0]
    assert limiter.take("a") == pytest.approx(0.1)
    assert limiter.take("b") == 0
    clock.now += 10**8
    assert limiter.take("a") == 0
    assert limiter.take("a") > 0
    clock.now += 10**9
    assert [limiter.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_rate_limiter_more_clients_than_slots_all_pass_first() -> None:
    limiter = RateLimiter(rate=1, burst=1)
    assert all(limiter.take(f"client {i}") == 0 for i in range(20_000))


def test_rate_limiter_processes_share_the_buckets(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from service.middleware.rate_limit import RateLimiter\n"
        f"limiter = RateLimiter(0.001, 100, Path({str(tmp_path)!r}))\n"
        "print(sum(limiter.take('someone') == 0 for _ in range(80)))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sum(int(process.communicate()[0]) for process in both) == 100


def test_client_id_of_an_ipv6_network_is_one() -> None:
    assert client_id("2001:db8::1") == client_id("2001:db8::ffff") != client_id("2001:db8:0:1::1")
    assert client_id("10.0.0.1") != client_id("10.0.0.2")
    assert client_id("testclient") == "testclient"


def test_rate_limit_exceeded_is_429_with_retry_after(serve, folder: Path) -> None:
    client = serve(folder, rate_limit=0.01, rate_burst=2)
    assert [client.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
    answer = client.get("/v1/models")
    assert answer.json()["error"] == {
        "type": "unavailable_error",
        "code": "rate_limited",
        "message": answer.json()["error"]["message"],
        "param": None,
    }
    assert 90 < int(answer.headers["Retry-After"]) <= 100
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200


def test_rate_limit_is_per_key_and_bounds_guesses(serve, folder: Path) -> None:
    client = serve(folder, rate_limit=0.01, rate_burst=2, api_keys="a,b")
    for key in "ab":
        statuses = [client.get("/v1/models", headers=bearer(key)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
    assert [client.get("/v1/models", headers=bearer(f"guess {i}")).status_code for i in range(3)] == [401, 401, 429]


def test_rate_limit_rejections_are_counted_by_route(serve, folder: Path) -> None:
    client = serve(folder, api_keys="right", rate_limit=0.001, rate_burst=2)
    key = {"Authorization": "Bearer right"}
    assert client.post("/v1/generate", json={"n": 1}).status_code == 401
    packed = {**key, "Content-Encoding": "gzip"}
    assert client.get("/v1/models/tiny/images/7.png", headers=packed).status_code == 415
    assert client.post("/v1/generate", json={"n": 1}, headers=key).status_code == 200
    assert client.post("/v1/generate", json={"n": 1}, headers=key).status_code == 429
    worker = client.app.state.worker
    text = worker.metrics.exposition()[0].decode()
    for method, route, status in (
        ("POST", "/v1/generate", 401),
        ("GET", "/v1/models/{name}/images/{seed}.{form}", 415),
        ("POST", "/v1/generate", 429),
    ):
        assert f'atelier_requests_total{{method="{method}",route="{route}",status="{status}"}} 1.0' in text
    assert worker.metrics.recent.report()["refused"] == 1
