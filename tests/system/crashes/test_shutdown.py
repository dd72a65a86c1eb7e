"""Claims about ends, wanted and not: a stop loses nothing, a killed worker is replaced. Real processes, under load."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.paths import ROOT
from tests.support.polling import wait_until
from tests.support.process_cleanup import end_with_parent
from tests.support.service.service_process import SERVICE, Server, everything, free_port, running, served
from tests.support.tiny_generator import write_tiny_generator

pytestmark = [pytest.mark.slow, pytest.mark.alone]
CLIENTS = 8
POST = b"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
F_SETPIPE_SZ = 1031  # Linux


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_generator(folder / "tiny.onnx", size=16)
    return folder


def said_ready(server: Server) -> int:
    """How many workers have said so, those included that are gone."""
    return server.log.count('"event": "ready with')


@contextmanager
def load(server: Server) -> Iterator[Counter[object]]:
    """Clients that ask without pause, on kept connections; what becomes of their requests, counted."""
    outcomes: Counter[object] = Counter()
    done = threading.Event()

    def client() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as http:
            while not done.is_set():
                try:
                    answer = http.post("/v1/generate", json={"n": 2}, headers={"Accept": "application/x-npy"})
                    outcomes[answer.status_code] += 1
                except httpx.ConnectError:
                    outcomes["refused"] += 1  # nobody took it, so nobody lost it
                    time.sleep(0.02)
                except httpx.TransportError as error:
                    outcomes[repr(error)] += 1

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("workers", [1, 2])
def test_stop_after_a_killed_worker_loses_no_request(models: Path, tmp_path: Path, workers: int) -> None:
    with served(models, tmp_path / "log", ATELIER_WORKERS=workers, ATELIER_THREADS=1) as server:
        wait_until(lambda: said_ready(server) == workers)
        with load(server) as outcomes:
            wait_until(lambda: outcomes[200] > 50)
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            wait_until(lambda: victim not in server.workers() and len(server.workers()) == workers)
            assert time.monotonic() - killed < 5
            assert f"worker {victim} was ended by SIGKILL and is replaced; if the memory limit did that" in server.log
            if workers > 1:  # the other one goes on meanwhile
                seen = outcomes[200]
                wait_until(lambda: outcomes[200] > seen + 50, 5)
            wait_until(lambda: said_ready(server) > workers, 60)
            print(f"{workers} workers: ready {time.monotonic() - killed:.1f} s after a kill")
            assert {o for o in outcomes if isinstance(o, int)} <= {200, 503}
        with load(server) as outcomes:
            wait_until(lambda: outcomes[200] > 100, 60)
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(60)
        assert set(outcomes) == {200, "refused"}, outcomes
        assert server.process.returncode == 0
        assert "Traceback" not in server.log
        assert server.log.count("is replaced") == 1, "at the end none is"


def test_stop_with_new_connections_loses_no_request(models: Path, tmp_path: Path) -> None:
    """Fails without the socket filter of `shutdown`: about one request of each client is reset."""
    outcomes: Counter[str] = Counter()
    done = threading.Event()

    def client(server: Server) -> None:
        while not done.is_set():
            try:
                connection = server.connect()
            except ConnectionRefusedError:
                outcomes["refused"] += 1
                time.sleep(0.05)
                continue
            with connection:
                try:
                    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                    outcomes["answered" if connection.recv(100).startswith(b"HTTP/1.1 200") else "lost"] += 1
                except ConnectionError:
                    outcomes["lost"] += 1

    with served(models, tmp_path / "log", ATELIER_DRAIN_S=0.3, ATELIER_GRACE_S=5) as server:
        threads = [threading.Thread(target=client, args=(server,)) for _ in range(2 * CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: outcomes["answered"] > 100, 60)
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(60)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert set(outcomes) <= {"answered", "refused"}, outcomes


def test_stop_while_a_worker_is_replaced_ends(models: Path, tmp_path: Path) -> None:
    with served(models, tmp_path / "log", ATELIER_WORKERS=2, ATELIER_DRAIN_S=0) as server:
        wait_until(lambda: said_ready(server) == 2)
        os.kill(server.workers()[0], signal.SIGKILL)
        # said as the replacement begins, which takes some 20 ms
        wait_until(lambda: "is replaced" in server.log, every=0.001)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        assert server.process.returncode == 0


def test_stop_while_the_workers_start_ends(models: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE, "--port", str(free_port())]
    environment = {**os.environ, "ATELIER_MODEL_DIR": str(models), "ATELIER_WORKERS": "2", "ATELIER_DRAIN_S": "0"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, preexec_fn=end_with_parent
        )
    try:
        wait_until(psutil.Process(process.pid).children, every=0.001)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        for left in psutil.Process(process.pid).children() if process.poll() is None else ():
            left.kill()
        process.kill()


def test_drain_is_not_ready_but_answers(models: Path, tmp_path: Path) -> None:
    with served(models, tmp_path / "log", ATELIER_DRAIN_S=4) as server, httpx.Client(base_url=server.url) as http:
        assert "connection" not in http.get("/livez").headers
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: http.get("/readyz").status_code == 503)
        answer = http.get("/readyz")
        assert (answer.json()["error"]["code"], answer.headers["connection"]) == ("draining", "close")
        assert http.get("/v1/status").json()["status"] == "draining"
        assert http.post("/v1/generate", json={"n": 1}).status_code == 200
        server.process.wait(60)
        assert server.process.returncode == 0


def test_stop_with_a_client_that_never_reads_ends(tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "models" / "wide.onnx", size=256, channels=3)
    body = b'{"n": 256}'
    bounds = {"ATELIER_DRAIN_S": 0.2, "ATELIER_GRACE_S": 2}
    with served(tmp_path / "models", tmp_path / "log", **bounds) as server, server.connect() as connection:
        connection.sendall(POST + b"Accept: application/x-npy\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        # the label of a histogram's bucket has the same number
        wait_until(lambda: 'atelier_images_total{model="tiny"} 256.0' in httpx.get(f"{server.url}/metrics").text)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        assert time.monotonic() - began < 15


def test_workers_share_one_rate_and_one_status(models: Path, tmp_path: Path) -> None:
    limits = {"ATELIER_RATE_LIMIT": 0.001, "ATELIER_RATE_BURST": 30, "ATELIER_DRAIN_S": 0}
    with served(models, tmp_path / "log", ATELIER_WORKERS=2, **limits) as server:
        wait_until(lambda: said_ready(server) == 2)
        statuses: Counter[int] = Counter()
        for _ in range(50):  # a connection each, so that both workers are asked
            statuses[httpx.post(f"{server.url}/v1/generate", json={"n": 1}).status_code] += 1
        assert statuses == {200: 30, 429: 20}


def test_stop_at_the_end_of_the_grace_reports_cut_requests(tmp_path: Path) -> None:
    """503 in the envelope, to be tried elsewhere: not a 500, and no traceback."""
    write_tiny_generator(tmp_path / "models" / "wide.onnx", size=256, channels=3)
    bounds = {"ATELIER_DRAIN_S": 0.1, "ATELIER_GRACE_S": 0.5, "ATELIER_MAX_BODY_BYTES": 2**20}
    request = POST + b"X-Request-Id: cut\r\nContent-Length: 99\r\n\r\n{"
    with served(tmp_path / "models", tmp_path / "log", **bounds) as server, server.connect() as connection:
        connection.sendall(request)  # and never the rest
        wait_until(lambda: httpx.get(f"{server.url}/v1/status").status_code == 200)
        server.process.send_signal(signal.SIGTERM)
        answer = everything(connection)
        server.process.wait(60)
        assert server.process.returncode == 0
        assert "Traceback" not in server.log
    head, _, body = answer.lower().partition(b"\r\n\r\n")
    assert head.startswith(b"http/1.1 503 ")
    assert b"retry-after: " in head
    assert b"x-request-id: cut" in head
    assert json.loads(body)["error"]["code"] == "draining"


def test_stop_with_an_unread_log_ends(models: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    try:
        with served(models, Path(f"/dev/fd/{writing}"), ATELIER_DRAIN_S=0, ATELIER_LOG_FORMAT="json") as server:
            with httpx.Client(base_url=server.url, timeout=5) as http:
                for _ in range(300):  # some 60 kB of log
                    assert http.get("/v1/models").status_code == 200
                time.sleep(0.3)  # what is kept is being written
                assert http.get("/v1/models").status_code == 200
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(20)
            assert time.monotonic() - began < 15
    finally:
        os.close(reading)
        os.close(writing)


@pytest.fixture
def hangups() -> Iterator[None]:
    """Children hear SIGHUP, even where the tests run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_serve_next_to_foreign_modules_ends_at_a_hangup(tmp_path: Path, hangups: None) -> None:
    here, temporary = tmp_path / "here", tmp_path / "tmp"
    here.mkdir()
    temporary.mkdir()
    for name in ("random", "secrets", "statistics", "uuid"):
        (here / f"{name}.py").write_text("print('FOREIGN CODE', flush=True)\nraise SystemExit(3)\n", encoding="utf-8")
    (tmp_path / "models").mkdir()
    write_tiny_generator(tmp_path / "models" / "tiny.onnx")
    env = {
        **os.environ,
        "ATELIER_MODEL_DIR": str(tmp_path / "models"),
        "ATELIER_DRAIN_S": "0",
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(ROOT),
    }
    with running(SERVICE, free_port(), tmp_path / "log", env, cwd=here) as server:
        assert httpx.get(f"{server.url}/v1/models").status_code == 200
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(60) == 0
    assert "FOREIGN" not in server.log
    assert list(temporary.iterdir()) == []
