"""Claims about how the page and its files are served. What it does in a browser: test_studio."""

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.routes.studio import FILES
from service.settings import Settings

client = TestClient(create_app(Settings()), raise_server_exceptions=False)
PATHS = ["/", *(f"/studio/{name}" for name in sorted(FILES) if name != "index.html")]


@pytest.fixture(scope="module", autouse=True)
def started() -> Iterator[None]:
    with client:
        yield


def test_studio_serves_exactly_the_files_its_page_names() -> None:
    named = {"index.html"}
    for path in FILES.values():
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r'(?:href|src)="studio/([^"]+)"', text)) | set(re.findall(r'from "\./([^"]+)"', text))
    assert named == set(FILES)
    assert client.get("/").headers["Content-Type"] == "text/html; charset=utf-8"
    assert client.get("/studio/main.js").headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert client.get("/studio/studio.css").headers["Content-Type"] == "text/css; charset=utf-8"


@pytest.mark.parametrize("path", PATHS)
def test_studio_loads_nothing_from_elsewhere_or_inline(path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"<style|<script(?! type=\"module\" src=)| style=| on[a-z]+=\"", answer.text)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", PATHS)
def test_studio_files_are_revalidated(path: str) -> None:
    first = client.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"older"'}).content == first.content
    head = client.head(path)
    assert (head.status_code, head.headers["ETag"]) == (200, first.headers["ETag"])


@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "nope.js",
        "..%2Fsettings.py",
        "../settings.py",
        "%2e%2e/settings.py",
        "main.js%00",
        "",
        "a/main.js",
    ],
)
def test_studio_reaches_no_other_file(name: str) -> None:
    answer = client.get(f"/studio/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "route_not_found"
