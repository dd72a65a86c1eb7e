"""Encoding is bounded: room for pictures, deadlines, clients that hang up."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service import encoding
from tests.support.polling import wait_until
from tests.support.service.responses import npy, refusal

Serve = Callable[..., TestClient]


class Held:
    """An encoder that begins and does not end until `open` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.open, self.begun = threading.Event(), threading.Event()
        monkeypatch.setattr("service.encoding.encode_image", self)

    def __call__(self, image: np.ndarray, *_: Any) -> bytes:
        self.begun.set()
        assert self.open.wait(20)
        return b"png"


def test_encoding_without_room_waits_and_small_images_pass(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(folder, max_encoding_pixels=2048)
    still = encoding.encode_image
    held = Held(monkeypatch)
    body, png = {"seed": 0, "n": 4, "scale": 2}, {"Accept": "image/png"}  # 1024 of 1280 pixels for large answers
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/v1/generate", json=body, headers=png)
        assert held.begun.wait(20)
        second = pool.submit(client.post, "/v1/generate", json=body, headers=png)
        monkeypatch.setattr("service.encoding.encode_image", still)
        answers = [client.get(f"/v1/models/tiny/images/{seed}.png").status_code for seed in range(9)]
        assert answers == [200] * 9
        assert npy(client, seed=0).shape == (1, 8, 8, 1)
        assert not second.done()
        held.open.set()
        assert first.result().content == b"png"
        assert second.result().status_code == 200
    assert 'reason="queue_full"} 0.0' in client.get("/metrics").text


def test_encoding_beyond_the_waiting_room_is_503(serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.inference.answer_admission.MAX_WAITING", 0)
    client = serve(folder, max_encoding_pixels=2048)
    held = Held(monkeypatch)
    body, png = {"seed": 0, "n": 4, "scale": 2}, {"Accept": "image/png"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/generate", json=body, headers=png)
        assert held.begun.wait(20)
        answer = client.post("/v1/generate", json=body, headers=png)
        assert "waiting" in refusal(answer, 503, "queue_full")["message"]
        assert int(answer.headers["Retry-After"]) > 0
        assert 'atelier_rejected_total{reason="queue_full"} 1.0' in client.get("/metrics").text
        held.open.set()
        assert first.result().content == b"png"
    assert client.post("/v1/generate", json=body, headers=png).status_code == 200


def test_encoding_counts_toward_the_deadline(serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve(folder, max_encoding_pixels=1, deadline_s=0.2)
    held = Held(monkeypatch)
    answer = client.post("/v1/generate", json={}, headers={"Accept": "image/png"})
    refusal(answer, 503, "deadline_exceeded")
    refusal(client.post("/v1/generate", json={}), 503, "deadline_exceeded")
    assert 'atelier_rejected_total{reason="deadline"} 2.0' in client.get("/metrics").text
    held.open.set()
    wait_until(lambda: client.post("/v1/generate", json={}).status_code == 200)


@pytest.mark.parametrize("form", ["x-npy", "x-npz", "zip", "json"])
def test_encoding_of_too_many_pixels_is_422_in_each_format(serve: Serve, folder: Path, form: str) -> None:
    client = serve(folder, max_encoding_pixels=640)
    accept = {"Accept": f"application/{form}"}
    assert client.post("/v1/generate", json={"seed": 0, "n": 10}, headers=accept).status_code == 200
    error = refusal(client.post("/v1/generate", json={"seed": 0, "n": 11}, headers=accept), 422, "answer_too_large")
    assert "request 10 at a time" in error["message"]


@pytest.mark.parametrize("whole", [True, False])
def test_client_that_disconnects_is_499_and_no_failure(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, whole: bool
) -> None:
    client = serve(folder)
    held = Held(monkeypatch)
    messages = iter([{"type": "http.request", "body": b"{}", "more_body": not whole}])
    sent: list[Any] = []

    async def receive() -> Any:
        if (message := next(messages, None)) is not None:
            return message
        while whole and not held.begun.is_set():
            await asyncio.sleep(0.001)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/generate", "raw_path": b"/v1/generate", "query_string": b"", "root_path": "",
        "headers": [(b"accept", b"image/png"), (b"content-type", b"application/json")],
        "client": ("test", 1), "server": ("test", 80),
    }  # fmt: skip
    assert client.portal
    client.portal.call(client.app, scope, receive, send)
    held.open.set()
    assert [message.get("status") for message in sent] == [499, None]  # no client is left, and nothing is in it
    assert not sent[1]["body"]
    assert caplog.text == ""
    text = client.get("/metrics").text
    assert 'atelier_requests_total{method="POST",route="/v1/generate",status="499"} 1.0' in text
    assert 'status="500"' not in text
