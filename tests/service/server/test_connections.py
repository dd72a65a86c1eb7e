"""Claims about connections, with an app and times of the tests' own."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.server.connection_limits import ConnectionLimits
from service.server.connections import BoundedConnection

FAST = b"GET /fast HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(0.8)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def exchange(monkeypatch: pytest.MonkeyPatch, sent: bytes, wait: float = 20.0) -> tuple[bytes, int]:
    """What a service with a header timeout of 0.3 s answers until it closes, and the most requests that waited."""
    monkeypatch.setattr("service.server.connection_limits.SWEEP_S", 0.1)
    most = 0

    class Watched(BoundedConnection):
        limits = ConnectionLimits(header_timeout_s=0.3)

        def on_headers_complete(self) -> None:
            nonlocal most
            super().on_headers_complete()
            most = max(most, len(self.pipeline))

    async def run() -> bytes:
        config, state = uvicorn.Config(app, http=Watched, lifespan="off", log_config=None), ServerState()
        config.load()
        server = await asyncio.get_running_loop().create_server(lambda: Watched(config, state, {}), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(sent)
        body = await asyncio.wait_for(reader.read(), wait)
        writer.close()
        server.close()
        return body

    return asyncio.run(run()), most


@pytest.mark.slow
def test_connection_with_pipelined_requests_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    body, _ = exchange(monkeypatch, FAST + SLOW + SLOW + LAST)
    assert body.count(b"HTTP/1.1 200") == 4


def test_connection_bounds_waiting_pipelined_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    body, most = exchange(monkeypatch, SLOW + FAST * 5000 + LAST)
    assert body.count(b"HTTP/1.1 200") == 5002
    assert most < 64


def test_connection_half_a_head_after_a_response_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    body, _ = exchange(monkeypatch, FAST + b"GET /never HTTP/1.1\r\nX: ", wait=5)
    assert body.count(b"HTTP/1.1 200") == 1
