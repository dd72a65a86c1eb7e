"""A service and a browser for the tests of the studio."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.service.browser import Open, Server, chromium
from tests.support.tiny_generator import write_tiny_generator


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_generator(
        folder / "a.onnx", name="classy", size=16, num_classes=3, dataset="shapes", images_seen=123456,
        class_names='["dot", "line", "ring"]', **{"evaluation.fd_classifier10k": "9.45"},
    )  # fmt: skip
    write_tiny_generator(folder / "b.onnx", name="plain", size=8, channels=3, seed=1)
    write_tiny_generator(folder / "c.onnx", name="boxed", z_distribution="uniform", seed=2)
    server = Server(folder, ATELIER_DEFAULT_MODEL="classy").start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Open]:
    """visit("#…", **context options): a new page, which may not fail silently and may fetch only from the service."""
    contexts, complaints = [], []

    def heard(message: Any) -> None:
        # a refusal that the test provokes, and advice about the reading that the tests do
        expected = ("Failed to load resource", "willReadFrequently")
        if message.type in ("error", "warning") and not any(words in message.text for words in expected):
            complaints.append(message.text)

    def visit(link: str = "", at: str | None = None, **options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **options}
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.asked = []  # every request, in order
        page.on("request", lambda request: page.asked.append(request))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", heard)
        page.goto((at or server.url) + "/" + link)
        return page

    yield visit
    for context in contexts:
        for page in context.pages:
            elsewhere = [
                r.url for r in getattr(page, "asked", []) if not r.url.startswith(("http://127.0.0.1:", "blob:"))
            ]
            assert elsewhere == []
        context.close()
    assert complaints == []
