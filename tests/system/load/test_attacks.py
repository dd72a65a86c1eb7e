"""Claims about hostile clients and bad luck, against a real `bentoml serve` with few file descriptors."""

import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest

from tests.support.polling import wait_until
from tests.support.service.service_process import Server, everything, served
from tests.support.tiny_generator import write_tiny_generator

pytestmark = [pytest.mark.slow, pytest.mark.alone]
FILES = 256
BODY = b'{"n": 1}'
POST = b"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("attacked")
    write_tiny_generator(folder / "models" / "tiny.onnx", size=128, channels=3)
    bounds = {"ATELIER_HEADER_TIMEOUT_S": 2, "ATELIER_BODY_TIMEOUT_S": 2, "ATELIER_WRITE_TIMEOUT_S": 2}
    with served(folder / "models", folder / "log", files=FILES, **bounds, ATELIER_DRAIN_S=0) as real:
        yield real


@pytest.fixture(autouse=True)
def well_afterwards(server: Server) -> Iterator[None]:
    pid = server.workers()
    yield
    assert server.workers() == pid  # the same process
    assert httpx.post(f"{server.url}/v1/generate", json={"seed": 1}, timeout=20).status_code == 200
    assert "Traceback" not in server.log


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def statuses(answers: bytes) -> list[int]:
    """Return the status of each response of a connection, in order."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]


def open_connections(server: Server) -> int:
    """Return how many connections of clients the worker has."""
    (pid,) = server.workers()
    found = psutil.Process(pid).net_connections("tcp")
    return sum(connection.status != psutil.CONN_LISTEN for connection in found)


def rejected(server: Server, reason: str) -> float:
    text = httpx.get(f"{server.url}/metrics", timeout=20).text
    found = [line for line in text.splitlines() if line.startswith(f'atelier_rejected_total{{reason="{reason}"}}')]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


STRANGE = [
    (b"[" * 50_000, 400),
    (b'{"a":' * 10_000, 400),
    (b'{"latents": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400),
    (b'{"seed": NaN}', 422),
    (b'{"truncation": 1e999}', 422),
    (b'{"truncation": Infinity}', 422),
    (b'{"seed": ' + b"9" * 10_000 + b"}", 400),
    (b'{"n": -1}', 422),
    (b'{"n": 1e308}', 422),
    (b'{"seeds": [' + b"1," * 300_000 + b"1]}", 422),
    (b'{"model": "../../etc/passwd"}', 404),
    ('{"model": "модель\U0001f600\u202e"}'.encode(), 404),
    (b'{"model": "\\ud800"}', 400),
    (b'{"model": "' + b"x" * 10**6 + b'"}', 422),
    (b"\xff\xfe{}", 400),
    (b"", 400),
    (b"null", 422),
]


@pytest.mark.parametrize(("body", "expected"), STRANGE, ids=range(len(STRANGE)))
def test_invalid_body_is_4xx_with_the_envelope(server: Server, body: bytes, expected: int) -> None:
    for path in ("/v1/generate", "/v1/interpolate", "/v1/mix"):
        answer = httpx.post(server.url + path, content=body, headers={"Content-Type": "application/json"}, timeout=30)
        assert answer.status_code in ({expected} if path == "/v1/generate" else {400, 404, 422}), answer.text
        assert set(answer.json()["error"]) == {"type", "code", "message", "param"}
        assert len(answer.content) < 2000


def test_path_traversal_reaches_no_file(server: Server) -> None:
    for path in (
        b"/v1/models/../../../etc/passwd", b"/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", b"/studio/../service.py",
        b"/studio/..%2fservice.py", b"/studio/%2e%2e/settings.py", b"//etc/passwd", b"/v1/models/%00", b"/%ff%fe",
        b"/v1/models/%D0%BC%D0%BE%F0%9F%98%80", b"/v1/models/tiny/images/..%2f1.png",
    ):  # fmt: skip
        answer = server.ask(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert status(answer) in (400, 404, 422), (path, answer[:200])
        assert b"import" not in answer


def test_compressed_body_is_415_and_not_decompressed(server: Server) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    for path in ("/v1/generate", "/v1/native/generate"):
        answer = httpx.post(server.url + path, content=bomb, headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (415, "Content-Encoding")


SMUGGLED = [
    b"Content-Length: 8\r\nContent-Length: 9\r\n\r\n" + BODY,
    b"Content-Length: 8\r\nContent-Length: 8\r\n\r\n" + BODY,
    b"Content-Length: 8\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 8\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"Content-Length: +8\r\n\r\n" + BODY,
    b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    b"Content-Length : 8\r\n\r\n" + BODY,
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + BODY,
    b"Bad\x00Header: 1\r\n\r\n",
    b"Host: y\r\nContent-Length: 8\r\n\r\n" + BODY,
]


@pytest.mark.parametrize("rest", SMUGGLED, ids=range(len(SMUGGLED)))
def test_ambiguous_length_is_400_and_closed(server: Server, rest: bytes) -> None:
    before = rejected(server, "malformed_http")
    answer = server.ask(POST + rest)
    assert status(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "malformed_http"
    assert answer.count(b"\r\n\r\n") == 1  # the bytes behind it were not taken for another request
    assert rejected(server, "malformed_http") == before + 1


def test_endless_head_is_431_and_closed(server: Server) -> None:
    before, opened, began = rejected(server, "head_too_large"), open_connections(server), time.monotonic()
    with server.connect() as connection:
        # The service closes while more is sent; what it sent before can be read nevertheless.
        with suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\n")
            for i in range(2000):
                connection.sendall(b"X-%d: %b\r\n" % (i, b"a" * 1000))
        answer = everything(connection)
        wait_until(lambda: open_connections(server) == opened)
    assert status(answer) == 431
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "head_too_large"
    assert rejected(server, "head_too_large") == before + 1
    assert time.monotonic() - began < 15


def test_slow_heads_and_half_bodies_are_408(server: Server) -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        silent = [stack.enter_context(server.connect()) for _ in range(5)]
        heads = [stack.enter_context(server.connect()) for _ in range(5)]
        bodies = [stack.enter_context(server.connect()) for _ in range(5)]
        for i in range(4):
            for connection in heads:
                connection.sendall(b"GET / HTTP/1.1\r\n" if i == 0 else b"X-A: b\r\n")
            for connection in bodies:
                connection.sendall(POST + b"Content-Length: 100\r\n\r\n{" if i == 0 else b" ")
            assert httpx.get(f"{server.url}/livez", timeout=20).status_code == 200
        assert all(everything(c) == b"" for c in silent)
        assert all(status(everything(c)) == 408 for c in (*heads, *bodies))
    assert 1.5 < time.monotonic() - began < 15


def test_half_closed_client_is_closed_without_a_response(server: Server) -> None:
    opened, began = open_connections(server), time.monotonic()
    with server.connect() as connection:
        request = POST + b"Content-Length: 8\r\n\r\n" + BODY
        # The end of the stream arrives with the request's last byte, before any response can be ready.
        connection.send(request, socket.MSG_MORE)
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b""
        wait_until(lambda: open_connections(server) == opened)
    assert time.monotonic() - began < 15


def test_client_that_reads_nothing_is_closed(server: Server) -> None:
    before = rejected(server, "slow_client")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(server.address)
        body = b'{"n": 256}'
        connection.sendall(POST + b"Accept: application/x-npy\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: rejected(server, "slow_client") > before, 40)


def test_idle_connections_beyond_the_files_leave_it_answering(server: Server) -> None:
    with ExitStack() as stack:
        for i in range(2 * FILES):
            connection = stack.enter_context(server.connect())
            if i % 3 == 1:
                connection.sendall(b"GET / HTTP/1.1\r\nX-Part")
            if i % 50 == 0:
                assert httpx.get(f"{server.url}/v1/models", timeout=20).status_code == 200
        for _ in range(5):
            answer = httpx.post(f"{server.url}/v1/generate", json={"seed": 1}, timeout=20)
            assert answer.status_code == 200
        connections = float(
            next(
                line.split()[1]
                for line in httpx.get(f"{server.url}/metrics", timeout=20).text.splitlines()
                if line.startswith("atelier_connections ")
            )
        )
        assert connections < FILES


UPGRADES = (b"websocket", b"h2c", b"TLS/1.0", b"h2c, websocket", b"x/1")


@pytest.mark.parametrize("upgrade", UPGRADES, ids=range(len(UPGRADES)))
def test_upgrade_is_ignored_and_the_body_is_read(server: Server, upgrade: bytes) -> None:
    """RFC 9110, section 7.8; Java's HttpClient sends these headers with every request over plain HTTP."""
    asked = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQ\r\nUpgrade: " + upgrade
    head = POST + b"Accept: application/x-npy\r\n" + asked + b"\r\n"
    sized = head + b"Content-Length: 8\r\n\r\n" + BODY
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n3\r\n" + BODY[:3] + b"\r\n5\r\n" + BODY[3:] + b"\r\n0\r\n\r\n"
    without = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + asked + b"\r\n\r\n"
    last = LIVEZ.replace(b"Host: x", b"Host: x\r\nConnection: close")
    opened, began = open_connections(server), time.monotonic()
    answer = server.ask(sized + without + chunked + sized + last)
    assert statuses(answer) == [200] * 5
    assert answer.count(b"atelier-images: 1") == 3
    for size in (1, 7, 50):  # however it is cut into packets
        with server.connect() as connection:
            for i in range(0, len(sized), size):
                connection.sendall(sized[i : i + size])
            connection.sendall(last)
            answer = everything(connection)
        assert statuses(answer) == [200, 200]
        assert answer.count(b"atelier-images: 1") == 1
    wait_until(lambda: open_connections(server) == opened)
    assert time.monotonic() - began < 30


def test_upgrade_does_not_hide_an_ambiguous_length(server: Server) -> None:
    for rest in SMUGGLED:
        answer = server.ask(POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + rest)
        assert statuses(answer) == [400]
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "malformed_http"


def memory(server: Server) -> float:
    """MB that the worker keeps for itself."""
    (pid,) = server.workers()
    return psutil.Process(pid).memory_full_info().uss / 1e6


def pour(connection: socket.socket, block: bytes, seconds: float) -> None:
    """Send without reading, as long as it is taken."""
    connection.settimeout(0.5)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            connection.sendall(block)
    except OSError:
        pass


def quick(server: Server) -> None:
    began = time.monotonic()
    assert httpx.get(f"{server.url}/livez", timeout=20).status_code == 200
    assert time.monotonic() - began < 2


LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n"
SLOW = POST + b"Accept: application/x-npy\r\nContent-Length: 10\r\n\r\n" + b'{"n": 256}'


@pytest.mark.parametrize(
    ("first", "block"),
    [
        (b"", LIVEZ * 2000),
        (SLOW, LIVEZ * 2000),
        (CHUNKED, b"x1: %b\r\n" % (b"a" * 1000) * 64),
        (CHUNKED + b"x1: ", b"a" * 65536),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n8;x=", b"a" * 65536),
        (SLOW + b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ", b"a" * 65536),
        (SLOW + b"GET /", b"a" * 65536),
    ],
    ids=["pipelined", "pipelined-behind-work", "trailers", "trailer", "extension", "header-behind-work", "target"],
)
def test_connection_has_bounded_memory_and_loop_time(server: Server, first: bytes, block: bytes) -> None:
    httpx.get(f"{server.url}/livez")
    before = memory(server)
    with server.connect() as connection:
        connection.sendall(first)
        sending = threading.Thread(target=pour, args=(connection, block, 2.5))
        sending.start()
        while sending.is_alive():
            quick(server)
            sending.join(0.2)
        # an answer of 256 pictures is 13 MB; without bounds these took hundreds in this time
        assert memory(server) - before < 60


def test_pipelined_requests_are_all_answered_in_order(server: Server) -> None:
    asked = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\nX-Request-Id: r%d\r\n\r\n" % (i, i) for i in range(1000))
    asked += LIVEZ.replace(b"Host: x", b"Host: x\r\nConnection: close")
    with server.connect() as connection:
        sending = threading.Thread(target=connection.sendall, args=(asked,))
        sending.start()
        answer = everything(connection)
        sending.join()
    assert re.findall(rb"x-request-id: r(\d+)", answer) == [b"%d" % i for i in range(1000)]
    assert answer.count(b"HTTP/1.1 200") == 1


def test_pipelined_bodies_are_read_completely(server: Server) -> None:
    body = json.dumps({"seeds": list(range(50))}).encode() + b" " * 100_000
    one = POST + b"Accept: application/x-npy\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(body[i : i + 999]), body[i : i + 999]) for i in range(0, len(body), 999))
    other = POST + b"Accept: application/x-npy\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-T: 1\r\n\r\n"
    with server.connect() as connection:
        sending = threading.Thread(target=connection.sendall, args=((one + other) * 3 + LIVEZ,))
        sending.start()
        answer = everything(connection)
        sending.join()
    assert answer.count(b"HTTP/1.1 200") == 7
    assert answer.count(b"atelier-images: 50") == 6


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"chunked\r\nTransfer-Encoding: chunked", b"chunked, chunked"])
def test_unknown_transfer_coding_is_400(server: Server, coding: bytes) -> None:
    answer = server.ask(POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n\r\n")
    assert status(answer) == 400
    assert answer.count(b"\r\n\r\n") == 1


def test_trailers_are_not_headers(server: Server) -> None:
    answer = server.ask(
        CHUNKED.replace(b"Host: x", b"Host: x\r\nConnection: close") + b"Content-Encoding: gzip\r\n\r\n"
    )
    assert status(answer) == 200


@pytest.mark.parametrize("target", [b"http://x", b"http://x?a=1", b"HTTP://x:80/", b"https://x/?a=/"])
def test_target_in_absolute_form_is_its_path(server: Server, target: bytes) -> None:
    answer = server.ask(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status(answer) == 200
    assert b"text/html" in answer


def test_client_of_http_1_0_gets_no_100_continue(server: Server) -> None:
    asked = POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Expect: 100-continue\r\nContent-Length: 8\r\n\r\n"
    assert server.ask(asked + BODY).startswith(b"HTTP/1.1 200")
    assert server.ask(asked.replace(b"HTTP/1.0", b"HTTP/1.1\r\nConnection: close") + BODY).startswith(b"HTTP/1.1 100")


def test_repeated_headers_are_one_list(server: Server) -> None:
    length = b"Connection: close\r\nContent-Length: 8\r\n\r\n" + BODY
    answer = server.ask(POST + b"Accept: text/html\r\nAccept: image/png\r\n" + length)
    assert b"content-type: image/png" in answer
    answer = server.ask(POST + b"Content-Type: text/plain\r\n" + length)
    assert status(answer) == 415
    answer = server.ask(POST + b"Accept: ,\r\nAccept: \r\n" + length)
    assert (status(answer), b"content-type: application/json" in answer) == (200, True)
