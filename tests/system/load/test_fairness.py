"""Clients that ask for the largest pictures, and another that asks for small ones."""

import threading
from pathlib import Path

import httpx
import pytest

from service.models.repository import BUNDLED
from tests.support.service.service_process import served

HOGS = 3


@pytest.mark.slow
def test_small_images_are_answered_while_large_ones_are_made(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(next(BUNDLED.glob("*.onnx")).read_bytes())
    large = {"seed": 0, "n": 64, "scale": 16, "output_format": "webp"}
    with served(tmp_path, ATELIER_RATE_LIMIT="") as server:
        name = httpx.get(f"{server.url}/v1/models", timeout=20).json()["data"][0]["name"]
        found: list[int] = []

        def hog() -> None:
            found.append(httpx.post(f"{server.url}/v1/generate", json=large, timeout=60).status_code)

        hogs = [threading.Thread(target=hog) for _ in range(HOGS)]
        for each in hogs:
            each.start()
        statuses = []
        while any(each.is_alive() for each in hogs) and len(statuses) < 100:
            url = f"{server.url}/v1/models/{name}/images/{len(statuses)}.png"
            statuses.append(httpx.get(url, timeout=60).status_code)
        assert statuses
        assert set(statuses) == {200}
        for each in hogs:
            each.join()
        assert set(found) <= {200, 503}
    assert "Traceback" not in server.log
