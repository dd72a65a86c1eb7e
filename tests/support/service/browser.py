"""A real service and a real browser for the tests of the page: what they share."""

import base64
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.support.process_cleanup import end_with_parent

Open = Callable[..., Any]
INSTALL = "the page's tests need Chromium and playwright: apt-get install chromium, pip install playwright"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Server:
    """`bentoml serve` on a free port, which it keeps when it is started again."""

    def __init__(self, folder: Path, **environment: str):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        self.environment = {**os.environ, "ATELIER_MODEL_DIR": str(folder), "ATELIER_THREADS": "1", **environment}

    def start(self) -> "Server":
        command = [sys.executable, "-m", "bentoml", "serve", "service.service:GanAtelier", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, preexec_fn=end_with_parent
            )
        end = time.monotonic() + 120
        while True:
            assert self._process.poll() is None, self.log.read_text(encoding="utf-8")
            assert time.monotonic() < end, self.log.read_text(encoding="utf-8")
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)

    def images(self, path: str, body: dict[str, Any]) -> np.ndarray:
        """What the service itself answers: uint8 [N, H, W, C]."""
        answer = httpx.post(f"{self.url}/v1/{path}", json=body, headers={"Accept": "application/x-npy"}, timeout=30)
        assert answer.status_code == 200, answer.text
        return np.load(io.BytesIO(answer.content))


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium. Without one the tests are skipped, which fails in CI (tests/conftest.py)."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None  # type: ignore[assignment]
    if sync_playwright is None or CHROMIUM is None:
        pytest.skip(INSTALL)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True)
        yield browser
        browser.close()


READ = """elements => elements.map(canvas => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (let i = 0; i < data.length; i += 4096) text += String.fromCharCode(...data.subarray(i, i + 4096));
  return [canvas.width, canvas.height, btoa(text)];
})"""


def drawn(page: Any, selector: str) -> np.ndarray:
    """The pixels on the canvases that `selector` finds, RGB: uint8 [N, H, W, 3]. They must be opaque."""
    pictures = []
    for width, height, data in page.eval_on_selector_all(selector, READ):
        pixels = np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)
        pictures.append(pixels[..., :3] if (pixels[..., 3] == 255).all() else np.zeros_like(pixels[..., :3]))
    return np.stack(pictures) if pictures else np.empty((0, 0, 0, 3), np.uint8)


def until(page: Any, true: Callable[[], object], seconds: float = 30.0) -> None:
    """Poll, with the page's own clock running on."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        page.wait_for_timeout(20)


def shows(page: Any, selector: str, images: np.ndarray, seconds: float = 30.0) -> None:
    """Wait until the canvases are exactly `images`, uint8 [N, H, W, C]."""
    wanted = np.broadcast_to(images, (*images.shape[:3], 3))
    end = time.monotonic() + seconds
    while not np.array_equal(found := drawn(page, selector), wanted):
        if time.monotonic() > end:
            assert found.shape == wanted.shape, f"{selector}: {found.shape}, not {wanted.shape}"
            wrong = (found != wanted).any((1, 2, 3)).sum()
            raise AssertionError(f"{selector}: {wrong} of {len(wanted)} images differ; {page.url}")
        page.wait_for_timeout(20)
