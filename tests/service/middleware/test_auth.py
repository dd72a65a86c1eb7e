"""Claims about who may ask, how often, and from where."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from service.middleware import auth as keys
from service.middleware.auth import ApiKeys
from service.middleware.rate_limit import RateLimiter, client_id
from service.settings import Settings, SettingsError


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_with_keys_set_only_probes_and_the_page_are_open(serve, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("third\n\n  fourth  \n", encoding="utf-8")
    client = serve(folder, api_keys="hush-1, hush-2", api_keys_file=file)
    for path in ("/livez", "/readyz", "/"):
        assert client.get(path).status_code == 200
    for path in ("/v1/models", "/v1/status", "/metrics", "/openapi.json", "/v1/models/tiny/images/1.png"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        for key in ("hush-1", "hush-2", "third", "fourth"):
            assert client.get(path, headers=bearer(key)).status_code == 200
    for wrong in ("", "hush-", "hush-11", "HUSH-1", "hush-1, hush-2", "é"):
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {wrong}".encode()}).status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Basic hush-1"}).status_code == 401
    text = client.get("/metrics", headers=bearer("hush-1")).text
    assert 'atelier_rejected_total{reason="unauthorized"}' in text
    assert "hush" not in text


@pytest.mark.parametrize(("keys", "audience"), [("", "public"), ("k", "private")])
def test_image_with_keys_is_private_and_all_else_is_not_stored(serve, folder: Path, keys: str, audience: str) -> None:
    client = serve(folder, api_keys=keys)
    key = bearer("k") if keys else {}
    path = "/v1/models/tiny/images/1.png"
    digest = client.get("/v1/models/tiny", headers=key).json()["digest"]
    for query, rest in (("", "no-cache"), (f"?digest={digest}", "max-age=31536000, immutable")):
        answer = client.get(path + query, headers=key)
        known = client.get(path + query, headers=key | {"If-None-Match": f"W/{answer.headers['ETag']}"})
        for body in (answer, known, client.head(path + query, headers=key)):
            assert body.headers["Cache-Control"] == f"{audience}, {rest}"
            assert body.headers.get("Vary") == ("Authorization" if keys else None)
        assert known.status_code == 304
    others = ["/v1/models", "/v1/models/tiny", "/v1/status", "/metrics", "/openapi.json", "/livez", "/readyz", "/no"]
    others += [f"{path}?scale=99", "/v1/models/no/images/1.png", "/v1/generate", "/studio/no.js"]
    for other in others:
        assert client.get(other, headers=key).headers["Cache-Control"] == "no-store", other
    assert client.post("/v1/generate", json={"n": 1}, headers=key).headers["Cache-Control"] == "no-store"
    assert client.get("/v1/models").status_code == (401 if keys else 200)


def test_keys_are_compared_in_constant_time_and_never_shown() -> None:
    settings = Settings(api_keys="hush")
    assert "hush" not in repr(settings)
    assert "hmac.compare_digest" in inspect.getsource(ApiKeys.authenticate)
    assert len(ApiKeys(settings).authenticate(b"Bearer hush") or "") == 8
    assert ApiKeys(settings).authenticate(b"Bearer hush!") is None
    assert not ApiKeys(Settings())


def test_a_file_of_keys_that_has_none_or_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n", encoding="utf-8")
    for path in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(SettingsError, match="ATELIER_API_KEYS_FILE") as error:
            ApiKeys(Settings(api_keys_file=path))
        assert "\n" not in str(error.value)


def test_no_path_slips_past_the_keys() -> None:
    for path in ("//", "/livez/", "/studio", "/v1/models", "/studio/../v1/models", "/Livez"):
        assert not keys.is_open(path) or path.startswith("/studio/")


def test_the_page_opens_no_way_to_the_rest(serve, folder: Path) -> None:
    client = serve(folder, api_keys="k")
    for path in ("/studio/../v1/models", "/studio/%2e%2e/v1/models", "/studio/..%2fv1/models"):
        assert client.get(path).status_code in (401, 404)


class Clock:
    now = 10**12

    def __call__(self) -> int:
        return self.now


def test_a_burst_passes_and_then_the_rate() -> None:
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


def test_more_clients_than_slots_are_all_served_at_first() -> None:
    limiter = RateLimiter(rate=1, burst=1)
    assert all(limiter.take(f"client {i}") == 0 for i in range(20_000))


def test_processes_share_the_buckets(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from service.middleware.rate_limit import RateLimiter\n"
        f"limiter = RateLimiter(0.001, 100, Path({str(tmp_path)!r}))\n"
        "print(sum(limiter.take('someone') == 0 for _ in range(80)))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sum(int(process.communicate()[0]) for process in both) == 100


def test_an_ipv6_household_is_one_client() -> None:
    assert client_id("2001:db8::1") == client_id("2001:db8::ffff") != client_id("2001:db8:0:1::1")
    assert client_id("10.0.0.1") != client_id("10.0.0.2")
    assert client_id("testclient") == "testclient"


def test_beyond_the_rate_is_429_with_retry_after_and_probes_are_free(serve, folder: Path) -> None:
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


def test_a_key_is_a_client_and_guesses_at_keys_are_bounded(serve, folder: Path) -> None:
    client = serve(folder, rate_limit=0.01, rate_burst=2, api_keys="a,b")
    for key in "ab":
        statuses = [client.get("/v1/models", headers=bearer(key)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
    assert [client.get("/v1/models", headers=bearer(f"guess {i}")).status_code for i in range(3)] == [401, 401, 429]


def test_cross_origin_is_off_unless_named(serve, folder: Path) -> None:
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    client = serve(folder)
    assert "access-control-allow-origin" not in client.get("/v1/models", headers=asked).headers
    client = serve(folder, cors_origins="https://page.example, https://other.example", api_keys="k")
    preflight = client.options("/v1/generate", headers=asked | {"Access-Control-Request-Headers": "authorization"})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://page.example"
    refused = client.get("/v1/models", headers=asked)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://page.example"  # so that the page can read it
    assert "x-request-id" in refused.headers["access-control-expose-headers"].lower()
    elsewhere = client.get("/v1/models", headers={"Origin": "https://evil.example"} | bearer("k"))
    assert "access-control-allow-origin" not in elsewhere.headers


def test_what_is_turned_away_is_counted_by_its_route(serve, folder: Path) -> None:
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
