import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from service import client as module
from service.client import Client, ServiceError, expand
from service.encode import npy, ranges

Answer = tuple[int, dict[str, str], bytes]
DIGEST = "d" * 64
OURS = {"Content-Type": "application/x-npy", "Atelier-Model": "tiny", "Atelier-Digest": DIGEST}
MODELS = {"default": "tiny", "data": [{"name": "tiny", "digest": DIGEST}, {"name": "other", "digest": DIGEST}]}


@contextmanager
def service(answer: Callable[[str, Any], Answer | None]) -> Iterator[str]:
    """A server whose POST answers are `answer(path, body)`; None hangs up. /v1/models answers as ours does."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(
                answer("GET " + self.path, None)
                or (200, {"Content-Type": "application/json"}, json.dumps(MODELS).encode())
            )

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = answer(self.path, body)
            if told is None:
                self.close_connection = True
            else:
                self._send(told)

        def _send(self, told: Answer) -> None:
            status, headers, content = told
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def images_of(body: dict[str, Any], digest: str = DIGEST) -> Answer:
    """Image of seed s: one pixel of value s mod 256."""
    seeds = body.get("seeds") or list(range(body["seed"], body["seed"] + body["n"]))
    images = np.array(seeds, np.int64).astype(np.uint8).reshape(-1, 1, 1, 1)
    headers = {
        "Content-Type": "application/x-npy",
        "Atelier-Model": body.get("model") or "tiny",
        "Atelier-Digest": digest,
        "Atelier-Seeds": ranges(seeds),
    }
    return 200, headers, npy(images)


def overloaded() -> Answer:
    error = {"error": {"type": "x", "code": "queue_full", "message": "too many", "param": None}}
    return 503, {"Content-Type": "application/json", "Retry-After": "0"}, json.dumps(error).encode()


def posts(answer: Callable[[Any], Answer | None]) -> Callable[[str, Any], Answer | None]:
    return lambda path, body: None if path.startswith("GET") else answer(body)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 1e-4)


def test_generate_tells_seeds_model_and_digest() -> None:
    with service(posts(images_of)) as url, Client(url) as client:
        batch = client.generate(seeds=[3, 4, 9])
    assert batch.images[:, 0, 0, 0].tolist() == batch.seeds == [3, 4, 9]
    assert (batch.model, batch.digest) == ("tiny", DIGEST)


def test_models_and_the_default() -> None:
    with service(posts(images_of)) as url, Client(url) as client:
        assert [m["name"] for m in client.models()] == ["tiny", "other"]
        assert client.model()["name"] == "tiny"
        assert client.model("other")["name"] == "other"
        with pytest.raises(ServiceError, match="tiny, other"):
            client.model("nope")


def test_a_stream_is_in_seed_order_and_whole() -> None:
    with service(posts(images_of)) as url, Client(url, connections=3) as client:
        parts = list(client.stream(first_seed=5, num_images=103, batch=10))
    assert [s for part in parts for s in part.seeds] == list(range(5, 108))
    assert np.concatenate([p.images for p in parts])[:, 0, 0, 0].tolist() == list(range(5, 108))


def test_overload_and_broken_connections_are_tried_again() -> None:
    failures = iter([overloaded(), None, overloaded(), None])
    lock = threading.Lock()

    def flaky(body: Any) -> Answer | None:
        with lock:
            return next(failures, images_of(body))

    with service(posts(flaky)) as url, Client(url, retries=6) as client:
        parts = list(client.stream(first_seed=0, num_images=40, batch=10))
    assert [s for part in parts for s in part.seeds] == list(range(40))


def test_lasting_overload_is_one_error_after_bounded_attempts() -> None:
    calls: list[int] = []

    def busy(body: Any) -> Answer:
        calls.append(1)
        return overloaded()

    with service(posts(busy)) as url, Client(url, retries=2) as client, pytest.raises(ServiceError) as error:
        client.generate(seed=0, n=1)
    assert (error.value.status, error.value.code, str(error.value)) == (503, "queue_full", "too many")
    assert len(calls) == 3


def test_a_refusal_is_not_tried_again() -> None:
    calls: list[int] = []

    def refuse(body: Any) -> Answer:
        calls.append(1)
        error = {"error": {"type": "x", "code": "invalid_field", "message": "n: bad", "param": "n"}}
        return 422, {"Content-Type": "application/json"}, json.dumps(error).encode()

    with service(posts(refuse)) as url, Client(url) as client, pytest.raises(ServiceError, match="n: bad"):
        client.generate(n=1)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Type": "text/html"}, b"<html>"),
        (200, {"Content-Type": "application/x-npy"}, b"not an array"),
        (200, {"Content-Type": "application/x-npy"}, npy(np.zeros((1, 1, 1, 1), np.uint8))),
        (200, OURS, npy(np.zeros((1, 1, 1, 1), np.uint8)).replace(b"(1, 1, 1, 1)", b"(9999999, 999999, 9999, 9)")),
        (200, OURS, npy(np.zeros((1, 1, 1, 1), np.uint8)).replace(b"{'descr'", b"((((((((")),
        (200, OURS, npy(np.zeros((1, 1, 1, 1), np.uint8)).replace(b"|u1", b"|O8")),
        (200, {**OURS, "Atelier-Seeds": "0-99999999999"}, npy(np.zeros((1, 1, 1, 1), np.uint8))),
        (200, {**OURS, "Atelier-Seeds": "0-" + "9" * 40}, npy(np.zeros((1, 1, 1, 1), np.uint8))),
        (404, {"Content-Type": "text/html"}, b"<html>"),
        (500, {}, b""),
    ],
)
def test_what_is_not_the_service_is_one_clear_line(answer: Answer) -> None:
    with service(lambda *_: answer) as url, Client(url) as client:
        for call in (lambda: client.generate(seed=0, n=1), client.models):
            with pytest.raises(ServiceError) as error:
                call()
            assert "\n" not in str(error.value)
            assert url in str(error.value)


def test_a_service_that_is_down_is_a_service_error() -> None:
    with service(posts(images_of)) as url:
        pass
    with Client(url, retries=1) as client, pytest.raises(ServiceError, match="is the service running"):
        client.models()


def test_a_service_that_dies_midway_is_a_service_error() -> None:
    dead = threading.Event()
    with (
        service(posts(lambda body: None if dead.is_set() else images_of(body))) as url,
        Client(url, retries=1) as client,
    ):
        stream = client.stream(first_seed=0, num_images=10_000, batch=1)
        assert next(stream).seeds == [0]
        dead.set()
        with pytest.raises(ServiceError, match="is the service running"):
            list(stream)


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://x", "http://", "http://[", "nonsense"])
def test_a_bad_address_is_a_service_error(url: str) -> None:
    with pytest.raises(ServiceError), Client(url, retries=0) as client:
        client.models()


def test_a_streams_labels_go_with_their_seeds() -> None:
    asked: dict[int, int] = {}

    def answer(body: Any) -> Answer:
        asked.update(zip(range(body["seed"], body["seed"] + body["n"]), body["labels"], strict=True))
        return images_of(body)

    with service(posts(answer)) as url, Client(url) as client:
        list(client.stream(first_seed=5, num_images=23, batch=10, labels=[seed % 3 for seed in range(5, 28)]))
    assert asked == {seed: seed % 3 for seed in range(5, 28)}


def test_a_model_replaced_on_the_way_stops_the_stream() -> None:
    with (
        service(posts(lambda body: images_of(body, "e" * 64 if body["seed"] >= 20 else DIGEST))) as url,
        Client(url) as client,
        pytest.raises(ServiceError, match="replaced"),
    ):
        list(client.stream(first_seed=0, num_images=40, batch=10))


def test_expand() -> None:
    assert expand("0-3,7") == [0, 1, 2, 3, 7]
    assert expand("") == []
    with pytest.raises(ValueError, match="invalid literal"):
        expand("x")


def test_importing_it_costs_no_server() -> None:
    code = "import sys, service.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"bentoml", "fastapi", "onnxruntime", "scipy", "torch", "PIL"} & set(loaded.split())
