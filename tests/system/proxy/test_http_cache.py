"""The image resource behind a real HTTP cache: nginx, with the configuration in docs/guides/nginx.conf."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.polling import wait_until
from tests.support.service.nginx import in_front
from tests.support.service.service_process import served
from tests.support.tiny_generator import write_tiny_generator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cached")
    write_tiny_generator(folder / "tiny.onnx", size=16)
    return folder


@pytest.fixture(scope="module")
def origin(folder: Path) -> Iterator[str]:
    with served(folder) as server:
        yield server.url


@pytest.fixture(scope="module")
def cache(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with in_front(origin, tmp_path_factory.mktemp("nginx")) as nginx:
        yield nginx.client


def computed(origin: str) -> float:
    """Images that the service has made so far."""
    found = re.findall(r"^atelier_images_total\{.*\} (\S+)", httpx.get(f"{origin}/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def digest(origin: str) -> str:
    return httpx.get(f"{origin}/v1/models/tiny").json()["digest"]


def test_cache_image_under_its_digest_is_computed_once(cache: httpx.Client, origin: str) -> None:
    path = f"/v1/models/tiny/images/7.png?digest={digest(origin)}"
    first, before = cache.get(path), computed(origin)
    assert (first.status_code, first.headers["X-Cache"]) == (200, "MISS")
    again, head = cache.get(path), cache.head(path)
    for answer in (again, head):
        assert (answer.status_code, answer.headers["X-Cache"]) == (200, "HIT")
        for name in ("ETag", "Content-Type", "Content-Length", "Cache-Control", "Atelier-Digest", "Atelier-Seeds"):
            assert answer.headers[name] == first.headers[name]
    assert (again.content, head.content) == (first.content, b"")
    known = cache.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (known.status_code, known.content, known.headers["X-Cache"]) == (304, b"", "HIT")
    assert computed(origin) == before
    direct = httpx.get(origin + path)
    assert (direct.content, direct.headers["ETag"]) == (first.content, first.headers["ETag"])


def test_cache_key_is_what_decides_an_image(cache: httpx.Client, origin: str) -> None:
    base = f"digest={digest(origin)}"
    paths = [
        f"/v1/models/tiny/images/{image}?{base}{more}"
        for image, more in (("8.png", ""), ("9.png", ""), ("8.webp", ""), ("8.jpg", ""), ("8.png", "&truncation=0.5"),
                            ("8.png", "&scale=2"), ("8.jpg", "&quality=5"))
    ]  # fmt: skip
    answers = [cache.get(path) for path in paths]
    assert [a.headers["X-Cache"] for a in answers] == ["MISS"] * len(paths)
    assert len({a.content for a in answers}) == len({a.headers["ETag"] for a in answers}) == len(paths)
    assert [cache.get(path).content for path in paths] == [a.content for a in answers]


def test_cache_without_a_digest_revalidates(cache: httpx.Client, origin: str) -> None:
    path = "/v1/models/tiny/images/11.png"
    first, before = cache.get(path), computed(origin)
    assert first.headers["Cache-Control"] == "public, no-cache"
    seen = []

    def asked_again() -> bool:
        seen.append(cache.get(path))
        return seen[-1].headers["X-Cache"] != "HIT"

    wait_until(asked_again)
    assert seen[-1].headers["X-Cache"] == "REVALIDATED"
    assert {(a.status_code, a.content, a.headers["ETag"]) for a in seen} == {
        (200, first.content, first.headers["ETag"])
    }
    assert computed(origin) == before, "a 304 costs no image"


def test_cache_keeps_no_errors_or_posts(cache: httpx.Client, origin: str) -> None:
    for path, status in ((f"/v1/models/tiny/images/1.png?digest={'0' * 64}", 404), ("/v1/models/no/images/1.png", 404),
                         ("/v1/models/tiny/images/1.png?scale=99", 422)):  # fmt: skip
        answers = [cache.get(path) for _ in range(2)]
        assert [(a.status_code, a.headers["X-Cache"]) for a in answers] == [(status, "MISS")] * 2
    before = computed(origin)
    for _ in range(2):
        answer = cache.post("/v1/generate", json={"seed": 1}, headers={"Accept": "application/x-npy"})
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert computed(origin) == before + 2


def test_cache_of_a_replaced_model_keeps_old_digests(cache: httpx.Client, origin: str, folder: Path) -> None:
    old = digest(origin)
    fresh, named = "/v1/models/tiny/images/12.png", f"/v1/models/tiny/images/12.png?digest={old}"
    before, kept = cache.get(fresh), cache.get(named)
    write_tiny_generator(folder / "new", size=16, seed=5)
    (folder / "new").rename(folder / "tiny.onnx")
    wait_until(lambda: digest(origin) != old)
    wait_until(lambda: cache.get(fresh).headers["ETag"] != before.headers["ETag"], 10)
    after = cache.get(fresh)
    assert after.headers["Atelier-Digest"] == digest(origin)
    assert after.content == httpx.get(origin + fresh).content != before.content
    again = cache.get(named)
    assert (again.headers["X-Cache"], again.content) == ("HIT", kept.content), "the old model's image, as it is named"
    assert httpx.get(origin + named).json()["error"]["code"] == "digest_mismatch"
