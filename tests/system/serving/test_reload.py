"""A folder that changes under a real `bentoml serve` with two workers."""

import io
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from artifacts.latents import seeds_to_latents
from tests.support.polling import wait_until
from tests.support.service.onnx_fixtures import write_plain
from tests.support.service.service_process import served
from tests.support.tiny_generator import write_tiny_generator

pytestmark = [pytest.mark.slow, pytest.mark.alone]
WORKERS = 2
NOTICED_S = 2.0
NOTHING = "not ready: no usable generator file"


def images_of(path: Path) -> np.ndarray:
    """Seeds 0 to 99, from a session of the test's own."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"latents": seeds_to_latents(range(100), 8)[0]})[0]


def in_every_worker(url: str, true: Callable[[dict[str, Any]], object]) -> float:
    """Seconds until it is `true` of /v1/models on each of 12 connections in a row."""
    began = time.monotonic()
    since = began

    def all_agree() -> bool:
        nonlocal since
        since = time.monotonic()
        return all(true(httpx.get(f"{url}/v1/models").json()) for _ in range(12))

    wait_until(all_agree, 20)
    return since - began


def every_worker_answers(url: str) -> None:
    wait_until(lambda: httpx.get(f"{url}/v1/status").json()["workers"] == WORKERS, 60)


def digests(listing: dict[str, Any]) -> dict[str, str]:
    return {m["name"]: m["digest"] for m in listing["data"]}


def test_reload_of_garbage_under_load_fails_no_request(tmp_path: Path) -> None:
    sources = [write_tiny_generator(tmp_path / "made" / str(i), name="tiny", size=16, seed=i) for i in range(3)]
    served_file = tmp_path / "tiny.onnx"
    served_file.write_bytes(sources[0].read_bytes())
    outcomes: Counter[object] = Counter()
    done = threading.Event()
    with served(tmp_path, ATELIER_WORKERS=WORKERS) as server:
        url = server.url
        every_worker_answers(url)
        expected = {digests(httpx.get(f"{url}/v1/models").json())["tiny"]: images_of(sources[0])}

        def client(i: int) -> list[tuple[str, int, np.ndarray]]:
            answers = []
            seed = i
            while not done.is_set():
                with httpx.Client(base_url=url, timeout=30) as http:  # a new connection: now and then the other worker
                    for _ in range(10):
                        seed = (seed + 7) % 90
                        answer = http.post(
                            "/v1/generate", json={"seed": seed, "n": 2}, headers={"Accept": "application/x-npy"}
                        )
                        outcomes[answer.status_code] += 1
                        if answer.status_code == 200:
                            array = np.load(io.BytesIO(answer.content))
                            answers.append((answer.headers["Atelier-Digest"], seed, array))
            return answers

        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(client, i) for i in range(8)]
            try:
                for source in sources[1:]:
                    served_file.write_bytes(np.random.default_rng(0).bytes(5000))  # in place, under the reader's feet
                    in_every_worker(url, lambda reported: reported["failed"])
                    (failed,) = httpx.get(f"{url}/v1/models").json()["failed"]
                    assert failed["serving"]["digest"] in expected
                    assert failed["reason"] == "not an ONNX file"
                    served_file.write_bytes(source.read_bytes())
                    in_every_worker(url, lambda reported: not reported["failed"])
                    expected[digests(httpx.get(f"{url}/v1/models").json())["tiny"]] = images_of(source)
            finally:
                done.set()
            answers = [answer for future in clients for answer in future.result()]
        metrics = httpx.get(f"{url}/metrics").text
    assert set(outcomes) == {200}
    assert {digest for digest, _, _ in answers} == set(expected)
    assert len(expected) == 3
    for digest, seed, images in answers:
        np.testing.assert_array_equal(
            images, expected[digest][seed : seed + 2], "not the images of the reported digest"
        )
    assert f'atelier_model_loads_total{{model="tiny",why="start"}} {WORKERS}.0' in metrics
    assert f'atelier_model_loads_total{{model="tiny",why="changed"}} {2 * WORKERS}.0' in metrics
    assert f'atelier_model_load_failures_total{{file="tiny.onnx"}} {2 * WORKERS}.0' in metrics
    assert "is not served: not an ONNX file" in (tmp_path / "serve.log").read_text(encoding="utf-8")


def test_reload_reaches_every_worker_within_two_seconds(tmp_path: Path) -> None:
    path = write_tiny_generator(tmp_path / "a.onnx", name="a")
    with served(tmp_path, ATELIER_WORKERS=WORKERS) as server:
        url = server.url
        every_worker_answers(url)
        write_plain(tmp_path / "theirs.onnx", batch=4)
        assert in_every_worker(url, lambda reported: set(digests(reported)) == {"a", "theirs"}) < NOTICED_S
        body = {"model": "theirs", "seed": 1, "n": 6}
        assert httpx.post(f"{url}/v1/generate", json=body).status_code == 200
        before = digests(httpx.get(f"{url}/v1/models").json())["a"]
        write_tiny_generator(tmp_path / "next", name="a", seed=9).rename(path)
        assert in_every_worker(url, lambda reported: digests(reported)["a"] != before) < NOTICED_S
        path.unlink()
        (tmp_path / "theirs.onnx").unlink()
        assert in_every_worker(url, lambda reported: not reported["data"]) < NOTICED_S
        refused = httpx.get(f"{url}/readyz")
        assert refused.status_code == 503
        assert "holds no generator file" in refused.json()["error"]["message"]
        write_tiny_generator(path, name="back")
        assert in_every_worker(url, lambda reported: digests(reported).keys() == {"back"}) < NOTICED_S
        assert httpx.get(f"{url}/readyz").status_code == 200


def test_worker_without_models_leaves_requests_to_the_other(tmp_path: Path) -> None:
    path = write_tiny_generator(tmp_path / "a.onnx", name="a")
    sound = path.read_bytes()
    with served(tmp_path, ATELIER_WORKERS=WORKERS) as server:
        url = server.url
        every_worker_answers(url)
        path.write_bytes(b"garbage")
        in_every_worker(url, lambda reported: reported["failed"])
        killed, other = server.workers()
        os.kill(killed, signal.SIGKILL)
        asked_until_it_is_in_its_place = []

        def replaced() -> bool:
            with suppress(httpx.TransportError):  # those that the killed one had just let in
                asked_until_it_is_in_its_place.append(httpx.post(f"{url}/v1/generate", json={"n": 1}).status_code)
            return NOTHING in server.log

        wait_until(replaced, 60)
        assert set(server.workers()) - {killed, other}
        answers = [httpx.post(f"{url}/v1/generate", json={"n": 1}) for _ in range(20)]
        assert {answer.status_code for answer in answers} | set(asked_until_it_is_in_its_place) == {200}
        assert httpx.get(f"{url}/v1/status").json()["workers"] == 1
        path.write_bytes(sound)
        every_worker_answers(url)
        assert {httpx.post(f"{url}/v1/generate", json={"n": 1}).status_code for _ in range(12)} == {200}


def test_worker_that_waits_for_a_model_stops_at_once(tmp_path: Path) -> None:
    path = write_tiny_generator(tmp_path / "a.onnx", name="a")
    with served(tmp_path, ATELIER_WORKERS=WORKERS) as server:
        every_worker_answers(server.url)
        path.write_bytes(b"garbage")
        in_every_worker(server.url, lambda reported: reported["failed"])
        killed, other = server.workers()
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: NOTHING in server.log, 60)
        (waiting,) = set(server.workers()) - {killed, other}
        os.kill(waiting, signal.SIGTERM)
        wait_until(lambda: waiting not in server.workers(), NOTICED_S)
        assert httpx.post(f"{server.url}/v1/generate", json={"n": 1}).status_code == 200
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert time.monotonic() - began < 15
