"""Which web pages may call: cross-site requests, and CORS for the pages of named origins."""

from pathlib import Path

import pytest

from service.middleware.cross_origin import allowed_origins, is_cross_site, normalize
from service.settings import SettingsError, settings
from tests.support.service.responses import bearer

OTHER = "https://other.example"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://page.example/", "https://page.example"),
        (" https://Page.Example ", "https://page.example"),
        ("HTTPS://page.example:443", "https://page.example"),
        ("http://page.example:80/", "http://page.example"),
        ("http://page.example:8080", "http://page.example:8080"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[2001:DB8::1]:5000", "http://[2001:db8::1]:5000"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("null", "null"),
        ("*", "*"),
    ],
)
def test_normalize_returns_an_origin_as_browsers_send_it(written: str, sent: str) -> None:
    assert normalize(written) == sent


@pytest.mark.parametrize(
    "written", ["page.example", "https://page.example/app", "https://", "https://a@page.example", "https://a:b", "//a"]
)
def test_cors_origins_matching_no_page_stop_the_start(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_CORS_ORIGINS", f"https://page.example, {written}")
    settings.cache_clear()
    with pytest.raises(
        SettingsError, match=r"^ATELIER_CORS_ORIGINS is .*is not an origin such as https://page"
    ) as error:
        settings()
    assert "\n" not in str(error.value)
    settings.cache_clear()


SELF = {"host": "images.example:3000"}


@pytest.mark.parametrize(
    ("headers", "cross"),
    [
        ({}, False),  # curl, httpx, every program
        (SELF, False),
        (SELF | {"sec-fetch-site": "same-origin", "origin": "http://images.example:3000"}, False),
        (SELF | {"sec-fetch-site": "none"}, False),  # the address bar, an extension
        (SELF | {"sec-fetch-site": "cross-site", "origin": OTHER}, True),
        (SELF | {"sec-fetch-site": "same-site", "origin": "https://app.images.example"}, True),
        (SELF | {"sec-fetch-site": "cross-site"}, True),
        (SELF | {"sec-fetch-site": "cross-site", "origin": "null"}, True),
        # a page over plain HTTP from another machine has no Sec-Fetch-Site
        (SELF | {"origin": "http://images.example:3000"}, False),
        (SELF | {"origin": "http://images.example"}, True),
        (SELF | {"origin": "http://images.example:3000.other.example"}, True),
        (SELF | {"origin": OTHER}, True),
        (SELF | {"origin": "null"}, True),
        (SELF | {"origin": "http://[bad"}, True),
        ({"origin": OTHER}, True),
        # a proxy dropped the port, or named itself and gave the host elsewhere
        ({"host": "images.example", "origin": "http://images.example:8080"}, False),
        ({"host": "images.example:443", "origin": "https://images.example"}, False),
        ({"host": "127.0.0.1:3000", "x-forwarded-host": "images.example", "origin": "https://images.example"}, False),
        ({"host": "127.0.0.1:3000", "x-forwarded-host": "images.example", "origin": OTHER}, True),
    ],
)
def test_is_cross_site_follows_what_browsers_send(headers: dict[str, str], cross: bool) -> None:
    reported = {name.encode(): value.encode() for name, value in headers.items()}
    assert is_cross_site(reported, frozenset()) is cross
    assert not is_cross_site(reported, allowed_origins("*"))


def test_cross_site_page_runs_no_generation(serve, folder: Path) -> None:
    client = serve(folder, cors_origins="https://page.example/")
    page = {"Origin": OTHER, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    json = {"Content-Type": "application/json"}
    before = client.app.state.worker.metrics.recent.report()["images"]
    for path in ("/v1/generate", "/v1/interpolate", "/v1/mix"):
        for body, kind in (
            (b'{"n": 1}', {"Content-Type": "text/plain;charset=UTF-8"}),
            (b'{"n": 1}', {}),
            (b"n=1", {}),
        ):
            answer = client.post(path, content=body, headers=page | kind)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")
        answer = client.post(path, content=b'{"n": 1}', headers=page | json)
        assert answer.status_code == 403
        assert "ATELIER_CORS_ORIGINS" in answer.json()["error"]["message"]
    assert client.app.state.worker.metrics.recent.report()["images"] == before
    allowed = client.post("/v1/generate", json={"n": 1}, headers=page | {"Origin": "https://page.example"})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://page.example")
    assert client.get("/v1/models/tiny/images/1.png", headers=page).status_code == 200  # an <img> of another site
    assert 'atelier_rejected_total{reason="cross_site"} 12.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    "content_type",
    [
        *(None, "", "text/plain", "text/plain; charset=utf-8", "multipart/form-data; boundary=a", "text/plain, a+json"),
        *("application/x-www-form-urlencoded", "application/jsonp", "application/json, text/plain"),
    ],
)
def test_cross_site_simple_content_type_is_415(serve, folder: Path, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = serve(folder).post("/v1/generate", content=b'{"n": 1}', headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (415, "Content-Type")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
def test_body_with_a_byte_order_mark_is_json(serve, folder: Path, content_type: str) -> None:
    client = serve(folder)
    answer = client.post("/v1/generate", content=b'\xef\xbb\xbf{"seed": 5}', headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["data"][0]["seed"]) == (200, 5)
    for body in (b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf{}", '{"seed": 5}'.encode("utf-16")):
        refused = client.post("/v1/generate", content=body, headers={"Content-Type": content_type})
        assert refused.json()["error"]["code"] == "malformed_json"


def preflight(client, origin: str, headers: str, method: str = "POST"):
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return client.options("/v1/generate", headers=asked)


def test_preflight_allows_tracing_headers_of_named_origins(serve, folder: Path) -> None:
    client = serve(folder, cors_origins="https://page.example/, https://SECOND.example:443", api_keys="k")
    headers = "authorization,content-type,traceparent,tracestate,baggage,x-requested-with"
    for origin in ("https://page.example", "https://second.example"):
        answer = preflight(client, origin, headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["access-control-allow-headers"] == headers
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "Origin" in answer.headers["vary"]
    refused = preflight(client, OTHER, headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "cross_site")
    assert "access-control-allow-origin" not in refused.headers
    method = preflight(client, "https://page.example", headers, "DELETE")
    assert (method.status_code, method.json()["error"]["code"]) == (405, "method_not_allowed")
    assert client.options("/v1/generate").status_code == 401  # no preflight


def test_cors_cached_response_is_not_shared_between_origins(serve, folder: Path) -> None:
    """A cache keeps answers by what Vary names: without it, one to no page would be given to a page."""
    path = "/v1/models/tiny/images/1.png"
    client = serve(folder, cors_origins="https://page.example")
    for origin in ({}, {"Origin": "https://page.example"}, {"Origin": OTHER}):
        answer = client.get(path, headers=origin)
        assert answer.headers["vary"] == "Origin"
        assert ("access-control-allow-origin" in answer.headers) == (origin.get("Origin") == "https://page.example")
        tag = {"If-None-Match": answer.headers["ETag"]}
        assert client.get(path, headers=origin | tag).headers["vary"] == "Origin"
    assert client.post("/v1/generate", json={"n": 1}).headers["vary"] == "Accept, Origin"
    anyone = serve(folder, cors_origins="*")
    for origin in ({}, {"Origin": OTHER}):
        answer = anyone.get(path, headers=origin)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "vary" not in answer.headers


def test_cors_is_off_unless_origins_are_set(serve, folder: Path) -> None:
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
