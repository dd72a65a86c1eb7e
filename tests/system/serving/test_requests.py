"""Claims about the real thing: `bentoml serve` in separate processes, over loopback."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from artifacts.latents import seeds_to_latents
from service.client import Client, ServiceError
from tests.support.service.service_process import served
from tests.support.tiny_generator import write_tiny_generator

pytestmark = [pytest.mark.slow, pytest.mark.alone]
NPY = {"Accept": "application/x-npy"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_generator(folder / "tiny.onnx", size=16)
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with served(folder) as server:
        yield server.url


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    """The images of seeds 0 to 999, from a session of the test's own."""
    session = ort.InferenceSession(str(folder / "tiny.onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, {"latents": seeds_to_latents(range(1000), 8)[0]})[0]


def test_generate_32_clients_get_their_own_images(url: str, expected: np.ndarray) -> None:
    bad = [
        ({"n": 0}, 422),
        ({"latents": [[1.0]]}, 422),
        ({"model": "nope"}, 404),
        ({"x": 1}, 422),
    ]
    start = threading.Barrier(32)
    outcomes: Counter[int] = Counter()

    def client(i: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            start.wait()
            for k in range(12):
                if (i + k) % 4 == 0:
                    body, status = bad[(i + k) // 4 % len(bad)]
                    answer = http.post("/v1/generate", json=body)
                    assert answer.status_code == status
                    assert answer.json()["error"]["message"]
                else:
                    seed, n = (37 * i + 11 * k) % 900, 1 + (i + k) % 16
                    answer = http.post("/v1/generate", json={"seed": seed, "n": n}, headers=NPY)
                    assert answer.status_code == 200, answer.text
                    np.testing.assert_array_equal(np.load(_file(answer)), expected[seed : seed + n])
                outcomes[answer.status_code] += 1

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(client, range(32)))
    assert set(outcomes) == {200, 404, 422}
    text = httpx.get(f"{url}/metrics").text
    assert 'status="500"' not in text


def _file(answer: httpx.Response) -> Any:
    import io

    return io.BytesIO(answer.content)


def test_client_stream_equals_a_plain_session(url: str, expected: np.ndarray) -> None:
    with Client(url) as client:
        parts = list(client.stream(first_seed=0, num_images=1000, batch=64))
        np.testing.assert_array_equal(np.concatenate([p.images for p in parts]), expected)
        with pytest.raises(ServiceError) as error:
            client.generate(n=10**6)
        assert error.value.code == "too_many_images"


def test_bentoml_clients_get_the_same_images(url: str, expected: np.ndarray) -> None:
    import bentoml

    with bentoml.SyncHTTPClient(url) as client:
        np.testing.assert_array_equal(client.generate(seed=4, n=2), expected[4:6])
        np.testing.assert_array_equal(client.generate(seeds=[7, 1], model="tiny"), expected[[7, 1]])
        latents = seeds_to_latents([9], 8)[0].astype(float).tolist()
        np.testing.assert_array_equal(client.generate(latents=latents), expected[9:10])
        with pytest.raises(Exception, match="n: input should be greater"):
            client.generate(n=0)

    async def together() -> list[np.ndarray]:
        async with bentoml.AsyncHTTPClient(url) as client:
            return await asyncio.gather(*(client.generate(seed=s, n=3) for s in range(16)))

    for seed, images in enumerate(asyncio.run(together())):
        np.testing.assert_array_equal(images, expected[seed : seed + 3])


def test_native_route_returns_its_drawn_seed(url: str) -> None:
    native = httpx.post(f"{url}/v1/native/generate", json={"n": 3})
    reported = {k: v for k, v in native.headers.items() if k.startswith("atelier-")}
    assert reported["atelier-images"] == "3"
    assert native.headers["Cache-Control"] == "no-store"
    first = int(reported["atelier-seeds"].partition("-")[0])
    again = httpx.post(f"{url}/v1/generate", json={"seed": first, "n": 3}, headers=NPY)
    np.testing.assert_array_equal(np.array(native.json(), np.uint8), np.load(_file(again)))
    assert reported == {k: v for k, v in again.headers.items() if k.startswith("atelier-")}


def test_native_route_errors_equal_those_of_generate(url: str, folder: Path) -> None:
    bodies = (
        b'{"n": 0}', b'{"n": "x"}', b"{", b"[]", b"\xff", b'{"zz": 1}', b'{"seed": 1, "seeds": [1]}', b'{"seed": -1}',
        b'{"n": 1e9}', b'{"latents": [[1]]}', b'{"model": "nope"}', b'{"labels": [0]}', b'{"n": true}', b"",
    )  # fmt: skip
    for content in bodies:
        native, ours = (
            httpx.post(f"{url}/v1/{route}", content=content, headers={"Content-Type": "application/json"})
            for route in ("native/generate", "generate")
        )
        assert (native.status_code, native.json()) == (ours.status_code, ours.json()), content
        assert 400 <= native.status_code < 500
    for content_type in ("application/vnd.bentoml+pickle", "multipart/form-data; boundary=x", "text/plain"):
        answer = httpx.post(f"{url}/v1/native/generate", content=b"x", headers={"Content-Type": content_type})
        assert answer.json()["error"]["code"] == "unsupported_media_type"
    assert httpx.get(f"{url}/v1/native/generate").json()["error"]["code"] == "method_not_allowed"
    assert httpx.post(f"{url}/v1/native/generate", json={"scale": 2}).json()["error"]["code"] == "unknown_field"
    assert "Traceback" not in (folder / "serve.log").read_text(encoding="utf-8")


def test_body_of_100_mb_is_413_announced_or_streamed(url: str) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(10**6)

    for path in ("/v1/generate", "/v1/native/generate"):
        for content in (bytes(10**8), chunks()):
            try:
                answer = httpx.post(url + path, content=content, headers={"Content-Type": "application/json"})
            except httpx.WriteError:
                continue  # the connection was closed on a client that would not stop; others read the answer
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert httpx.get(f"{url}/livez").status_code == 200


def test_clients_that_hang_up_leave_the_service_well(url: str, expected: np.ndarray) -> None:
    host, port = url.removeprefix("http://").split(":")
    body = b'{"n": 256}'
    for _ in range(30):
        with socket.create_connection((host, int(port))) as s:
            s.sendall(b"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            s.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    answer = httpx.post(f"{url}/v1/generate", json={"seed": 1}, headers=NPY)
    np.testing.assert_array_equal(np.load(_file(answer)), expected[1:2])


def test_clients_that_hang_up_do_not_hold_up_the_end(tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "tiny.onnx", size=128)
    body = b'{"n": 256}'
    with served(tmp_path) as server:
        for _ in range(20):
            with socket.create_connection(server.address) as s:
                s.sendall(b"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
                s.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        answer = httpx.post(f"{server.url}/v1/generate", json={"n": 1}, headers=NPY)
        assert answer.status_code == 200
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert "Traceback" not in (tmp_path / "serve.log").read_text(encoding="utf-8")


def test_overload_is_503_with_retry_after(tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "wide.onnx", size=256, channels=3)
    with served(tmp_path, ATELIER_MAX_QUEUE_ROWS=64, ATELIER_MAX_BATCH=8) as server:
        url = server.url
        start = threading.Barrier(48)

        def client(i: int) -> list[int]:
            with httpx.Client(base_url=url, timeout=60) as http:
                start.wait()
                answers = [http.post("/v1/generate", json={"seed": i, "n": 32}, headers=NPY) for _ in range(4)]
            for answer in answers:
                if answer.status_code == 503:
                    assert int(answer.headers["Retry-After"]) > 0
                    assert answer.json()["error"]["code"] == "queue_full"
            return [answer.status_code for answer in answers]

        with ThreadPoolExecutor(48) as pool:
            statuses = Counter(s for many in pool.map(client, range(48)) for s in many)
        assert set(statuses) == {200, 503}
        assert httpx.post(f"{url}/v1/generate", json={"seed": 1}).status_code == 200


def test_workers_count_requests_together(folder: Path) -> None:
    with served(folder, ATELIER_WORKERS=2) as server:
        url = server.url
        answered = 0
        while answered < 20:  # the other worker may still be loading, and says so
            answer = httpx.post(f"{url}/v1/generate", json={"seed": answered})
            assert answer.status_code in (200, 503), answer.text
            answered += answer.status_code == 200
        texts = [httpx.get(f"{url}/metrics").text for _ in range(6)]
        assert all('atelier_images_total{model="tiny"} 20.0' in text for text in texts)
