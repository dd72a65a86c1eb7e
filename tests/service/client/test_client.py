import io
import json
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest

from service.client import Client, ServiceError, transport
from service.client.decoding import parse_seed_ranges, read_array, read_arrays, retry_after_s
from service.encoding import encode_npy, encode_npz, format_ranges
from tests.support.polling import wait_until
from tests.support.service.fake_http_service import DIGEST, Answer, service

OURS = {"Content-Type": "application/x-npy", "Atelier-Model": "tiny", "Atelier-Digest": DIGEST}


def images_of(body: dict[str, Any], digest: str = DIGEST) -> Answer:
    """Image of seed s: one pixel of value s mod 256."""
    seeds = body.get("seeds") or list(range(body["seed"], body["seed"] + body["n"]))
    images = np.array(seeds, np.int64).astype(np.uint8).reshape(-1, 1, 1, 1)
    headers = {
        "Content-Type": "application/x-npy",
        "Atelier-Model": body.get("model") or "tiny",
        "Atelier-Digest": digest,
        "Atelier-Seeds": format_ranges(seeds),
    }
    return 200, headers, encode_npy(images)


def overloaded() -> Answer:
    error = {"error": {"type": "x", "code": "queue_full", "message": "too many", "param": None}}
    return 503, {"Content-Type": "application/json", "Retry-After": "0"}, json.dumps(error).encode()


def posts(answer: Callable[[Any], Answer | None]) -> Callable[[str, Any], Answer | None]:
    return lambda path, body: None if path.startswith("GET") else answer(body)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 1e-4)


def test_generate_returns_seeds_model_and_digest() -> None:
    with service(posts(images_of)) as url, Client(url) as client:
        batch = client.generate(seeds=[3, 4, 9])
    assert batch.images[:, 0, 0, 0].tolist() == batch.seeds == [3, 4, 9]
    assert (batch.model, batch.digest) == ("tiny", DIGEST)


def test_models_returns_the_list_and_the_default() -> None:
    with service(posts(images_of)) as url, Client(url) as client:
        assert [m["name"] for m in client.models()] == ["tiny", "other"]
        assert client.model()["name"] == "tiny"
        assert client.model("other")["name"] == "other"
        with pytest.raises(ServiceError, match="tiny, other"):
            client.model("nope")


def test_stream_is_complete_and_in_seed_order() -> None:
    with service(posts(images_of)) as url, Client(url, connections=3) as client:
        parts = list(client.stream(first_seed=5, num_images=103, batch=10))
    assert [s for part in parts for s in part.seeds] == list(range(5, 108))
    assert np.concatenate([p.images for p in parts])[:, 0, 0, 0].tolist() == list(range(5, 108))


def test_client_retries_overload_and_broken_connections() -> None:
    failures = iter([overloaded(), None, overloaded(), None])
    lock = threading.Lock()

    def flaky(body: Any) -> Answer | None:
        with lock:
            return next(failures, images_of(body))

    with service(posts(flaky)) as url, Client(url) as client:
        parts = list(client.stream(first_seed=0, num_images=40, batch=10))
    assert [s for part in parts for s in part.seeds] == list(range(40))


def test_client_raises_when_overload_outlasts_its_patience() -> None:
    calls: list[float] = []

    def busy(body: Any) -> Answer:
        calls.append(time.monotonic())
        return overloaded()

    with service(posts(busy)) as url:
        for patience_s in (0, 0.5):
            calls.clear()
            with Client(url, patience_s=patience_s) as client, pytest.raises(ServiceError) as error:
                client.generate(seed=0, n=1)
            assert (error.value.status, error.value.code, str(error.value)) == (503, "queue_full", "too many")
            assert calls[-1] - calls[0] <= patience_s + 0.3  # a machine that is busy wakes late
            assert len(calls) == 1 if not patience_s else 5 < len(calls) < 20  # waits double from 0.1 ms


def test_client_waits_at_least_retry_after() -> None:
    calls: list[float] = []

    def busy_once(body: Any) -> Answer:
        calls.append(time.monotonic())
        status, headers, content = overloaded()
        return images_of(body) if len(calls) > 1 else (status, {**headers, "Retry-After": "1"}, content)

    with service(posts(busy_once)) as url, Client(url) as client:
        assert client.generate(seed=3, n=1).seeds == [3]
        assert 1 <= calls[1] - calls[0] < 3
        calls.clear()
    with service(posts(busy_once)) as url, Client(url, patience_s=0.9) as client, pytest.raises(ServiceError):
        client.generate(seed=3, n=1)
    assert len(calls) == 1, "what must wait longer than patience lasts is not waited for"


def test_client_survives_a_restarting_service() -> None:
    """Nothing listens for a while on an address that has answered before."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with service(posts(images_of), port) as url:
        client = Client(url, patience_s=20)
        stream = client.stream(first_seed=0, num_images=400, batch=4)
        seeds = next(stream).seeds
    began = threading.Thread(target=lambda: seeds.extend(s for part in stream for s in part.seeds))
    began.start()
    began.join(0.3)
    assert began.is_alive()
    with service(posts(images_of), port):
        began.join(20)
        client.close()
    assert seeds == list(range(400))


def test_client_reports_a_wrong_address_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_PATIENCE_S", 0.1)
    with service(posts(images_of)) as url:
        pass
    began = time.monotonic()
    with Client(url, patience_s=600) as client, pytest.raises(ServiceError, match="is the service running"):
        client.models()
    assert time.monotonic() - began < 5


def test_stream_holds_at_most_one_batch_per_connection() -> None:
    asked: list[int] = []

    def counted(body: Any) -> Answer:
        asked.append(body["seed"])
        return images_of(body)

    with service(posts(counted)) as url, Client(url, connections=2) as client:
        stream = client.stream(first_seed=0, num_images=1000, batch=1)
        for taken in range(5):
            assert next(stream).seeds == [taken]
        wait_until(lambda: len(asked) == 5 - 1 + 4)
        stream.close()
    assert len(asked) <= 9


def test_client_rejects_a_response_beyond_the_bound_unread() -> None:
    with service(posts(images_of)) as url, Client(url, max_answer_bytes=200) as client:
        assert len(client.generate(seed=0, n=10).images) == 10
        with pytest.raises(ServiceError, match="more than 200 bytes"):
            client.generate(seed=0, n=100)


def test_interpolate_and_mix_return_their_latents() -> None:
    asked: list[tuple[str, Any]] = []
    images, latents = np.arange(6, dtype=np.uint8).reshape(3, 2, 1, 1), np.eye(3, 4, dtype=np.float32)

    def packed(path: str, body: Any) -> Answer:
        asked.append((path, body))
        return (
            200,
            {"Content-Type": "application/x-npz"},
            encode_npz(images, latents=latents, model="tiny", digest=DIGEST),
        )

    with service(packed) as url, Client(url) as client:
        walk = client.interpolate([3, latents[0]], steps=2, loop=True)
        sums = client.mix([{"seed": 1}, {"latent": latents[0], "weight": -1}], normalize=False, label=2)
    for batch in (walk, sums):
        np.testing.assert_array_equal(batch.images, images)
        np.testing.assert_array_equal(batch.latents, latents)
        assert (batch.model, batch.digest, batch.seeds, batch.labels) == ("tiny", DIGEST, [], [])
    assert asked == [
        ("/v1/interpolate", {"keyframes": [3, [1.0, 0.0, 0.0, 0.0]], "steps": 2, "loop": True}),
        (
            "/v1/mix",
            {
                "terms": [{"seed": 1}, {"latent": [1.0, 0.0, 0.0, 0.0], "weight": -1}],
                "normalize": False,
                "labels": [2],
            },
        ),
    ]


def test_client_image_is_requested_by_its_address() -> None:
    asked: list[str] = []

    def answer(path: str, body: Any) -> Answer | None:
        asked.append(path)
        return (200, {"Content-Type": "image/jpeg"}, b"jpeg") if "/images/" in path else None

    with service(answer) as url, Client(url, api_key="k") as client:
        assert client.image(7, model="a.b-C", form="jpg", truncation=0.5, label=1) == b"jpeg"
        assert client.image(7, form="jpg") == b"jpeg"
        for name in ("../x", "a b/ü", "", "..", "x?y=1"):
            with pytest.raises(ServiceError, match="does not serve a model named") as error:
                client.image(7, model=name)
            assert (error.value.status, error.value.code) == (404, "model_not_found")
    assert asked == [
        "GET /v1/models/a.b-C/images/7.jpg?truncation=0.5&label=1",
        "GET /v1/models",
        "GET /v1/models/tiny/images/7.jpg",
    ]


def test_client_sends_a_key_and_rejects_an_invalid_one() -> None:
    shown: list[str | None] = []
    with service(posts(images_of), seen=lambda headers: shown.append(headers["Authorization"])) as url:
        with Client(url, api_key="secret") as client:
            client.generate(seed=0, n=1)
        with Client(url) as client:
            client.models()
        with pytest.raises(ServiceError, match="characters"):
            Client(url, api_key="ключ")
    assert shown == ["Bearer secret", None]


def test_client_value_that_json_cannot_carry_raises() -> None:
    nan = float("nan")
    with service(posts(images_of)) as url, Client(url) as client:
        with pytest.raises(ServiceError, match=r"^latents cannot be written as JSON: "):
            client.generate(latents=[[0.0, nan]], truncation=1.0)
        with pytest.raises(ServiceError, match=r"^keyframes cannot"):
            client.interpolate([0, [nan]])
        with pytest.raises(ServiceError, match=r"^terms cannot"):
            client.mix([{"seed": 0, "weight": nan}])


def test_client_does_not_retry_a_rejection() -> None:
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
        (200, {"Content-Type": "application/x-npy"}, encode_npy(np.zeros((1, 1, 1, 1), np.uint8))),
        (
            200,
            OURS,
            encode_npy(np.zeros((1, 1, 1, 1), np.uint8)).replace(b"(1, 1, 1, 1)", b"(9999999, 999999, 9999, 9)"),
        ),
        (200, OURS, encode_npy(np.zeros((1, 1, 1, 1), np.uint8)).replace(b"{'descr'", b"((((((((")),
        (200, OURS, encode_npy(np.zeros((1, 1, 1, 1), np.uint8)).replace(b"|u1", b"|O8")),
        (200, {**OURS, "Atelier-Seeds": "0-99999999999"}, encode_npy(np.zeros((1, 1, 1, 1), np.uint8))),
        (200, {**OURS, "Atelier-Seeds": "0-" + "9" * 40}, encode_npy(np.zeros((1, 1, 1, 1), np.uint8))),
        (404, {"Content-Type": "text/html"}, b"<html>"),
        (500, {}, b""),
    ],
)
def test_client_of_another_server_is_one_line(answer: Answer) -> None:
    with service(lambda *_: answer) as url, Client(url) as client:
        for call in (lambda: client.generate(seed=0, n=1), client.models):
            with pytest.raises(ServiceError) as error:
                call()
            assert "\n" not in str(error.value)
            assert url in str(error.value)


def test_client_of_a_stopped_service_raises() -> None:
    with service(posts(images_of)) as url:
        pass
    with Client(url, patience_s=0.2) as client, pytest.raises(ServiceError, match="is the service running"):
        client.models()


def test_client_of_a_service_that_dies_midway_raises() -> None:
    dead = threading.Event()
    with (
        service(posts(lambda body: None if dead.is_set() else images_of(body))) as url,
        Client(url, patience_s=0.2) as client,
    ):
        stream = client.stream(first_seed=0, num_images=10_000, batch=1)
        assert next(stream).seeds == [0]
        dead.set()
        with pytest.raises(ServiceError, match="is the service running"):
            list(stream)


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://x", "http://", "http://[", "nonsense"])
def test_client_with_a_bad_address_raises(url: str) -> None:
    with pytest.raises(ServiceError), Client(url, patience_s=0) as client:
        client.models()


def test_stream_labels_belong_to_their_seeds() -> None:
    asked: dict[int, int] = {}

    def answer(body: Any) -> Answer:
        asked.update(zip(range(body["seed"], body["seed"] + body["n"]), body["labels"], strict=True))
        return images_of(body)

    with service(posts(answer)) as url, Client(url) as client:
        list(client.stream(first_seed=5, num_images=23, batch=10, labels=[seed % 3 for seed in range(5, 28)]))
    assert asked == {seed: seed % 3 for seed in range(5, 28)}


def test_stream_of_a_model_replaced_midway_stops() -> None:
    with (
        service(posts(lambda body: images_of(body, "e" * 64 if body["seed"] >= 20 else DIGEST))) as url,
        Client(url) as client,
        pytest.raises(ServiceError, match="replaced"),
    ):
        list(client.stream(first_seed=0, num_images=40, batch=10))


def test_parse_seed_ranges_returns_seeds_or_raises() -> None:
    assert parse_seed_ranges("0-3,7") == [0, 1, 2, 3, 7]
    assert parse_seed_ranges("") == []
    with pytest.raises(ValueError, match="invalid literal"):
        parse_seed_ranges("x")


def test_read_arrays_runs_no_pickle_and_is_bounded() -> None:
    images = np.zeros((2, 1, 1, 1), np.uint8)
    whole = encode_npz(images, seeds=[1, 2], labels=None, model="ü")
    reported = read_arrays(whole, 10_000)
    assert (set(reported), reported["seeds"].tolist(), str(reported["model"])) == (
        {"images", "seeds", "model"},
        [1, 2],
        "ü",
    )
    with pytest.raises(ValueError, match="more than"):
        read_arrays(whole, 100)
    objects, packed = io.BytesIO(), io.BytesIO()
    np.savez(objects, images=np.array([{}], object))
    np.savez_compressed(packed, images=np.zeros(10**7, np.uint8))
    for content in (objects.getvalue(), packed.getvalue(), b"", b"PK\x05\x06", whole[:-30], whole[40:]):
        with pytest.raises(ValueError, match=r".+"):
            read_arrays(content, 10**9)
    short = io.BytesIO()
    with zipfile.ZipFile(short, "w") as file:
        file.writestr("images.npy", encode_npy(images).replace(b"(2, 1, 1, 1)", b"(9, 9, 9, 9)"))
    with pytest.raises(ValueError, match="bytes"):
        read_arrays(short.getvalue(), 10_000)
    with pytest.raises(ValueError, match="numbers or text"):
        read_array(encode_npy(images).replace(b"|u1", b"|V1"))


def test_retry_after_s_of_seconds_and_dates() -> None:
    assert retry_after_s("7") == 7
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert 3500 < retry_after_s(formatdate(time.time() + 3600, usegmt=True)) <= 3600
    for nonsense in (None, "", "soon", "-1", "²", "Wed, 99 Oct 2015"):
        assert retry_after_s(nonsense) == 0
    assert retry_after_s("9" * 50) < 10**10


def test_import_of_the_client_stays_light() -> None:
    code = "import sys, service.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"bentoml", "fastapi", "onnxruntime", "scipy", "torch", "PIL"} & set(loaded.split())
