"""HTTP/1.1 connections as a hostile network has them: bounded in number, in time and in the size of a head.

uvicorn bounds none of these by itself: a client may be silent, send a header a second, never read its answer, or
open more connections than the process may have files, and hold its place for ever.
"""

import asyncio
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import envelope
from service.settings import Settings

MAX_HEAD_BYTES = 65536
SWEEP_S = 0.5
SPARE_FILES = 48  # for model files, logs, the workers' shared files, and a connection that is refused
MOST_CONNECTIONS = 16384
PATIENCE_S = 1.0  # half a body younger than this does not make room for others


class Bounds:
    """What the connections of this process share."""

    def __init__(self) -> None:
        self.header_timeout_s, self.body_timeout_s, self.write_timeout_s = 10.0, 30.0, 20.0
        self.max_connections = 1024
        self.rejected: Callable[[str], Any] = lambda reason: None
        self.counted: Callable[[int], Any] = lambda connections: None
        self.idle: dict[Connection, float] = {}  # without a whole head, the oldest first
        self.receiving: dict[Connection, float] = {}  # without a whole body, the oldest first
        self.sweeping = False


BOUNDS = Bounds()


def install(settings: Settings) -> None:
    """Have uvicorn, however it is started in this process, serve by these connections."""
    import uvicorn.config

    uvicorn.config.HTTP_PROTOCOLS["auto"] = "service.protocol:Connection"
    BOUNDS.header_timeout_s, BOUNDS.body_timeout_s = settings.header_timeout_s, settings.body_timeout_s
    BOUNDS.write_timeout_s = settings.write_timeout_s
    opened = Path("/proc/self/fd")
    room = more_files() - SPARE_FILES - (len(list(opened.iterdir())) if opened.is_dir() else 64)
    BOUNDS.max_connections = max(1, min(settings.max_connections or MOST_CONNECTIONS, room))


def more_files() -> int:
    """Raise the process's limit of open files as far as it may by itself; the limit there is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + 1024 if hard == resource.RLIM_INFINITY else min(hard, MOST_CONNECTIONS + 1024)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return MOST_CONNECTIONS + 1024 if soft == resource.RLIM_INFINITY else soft


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with its bounds."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._unsent, self._unsent_since = 0, 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not BOUNDS.sweeping:
            BOUNDS.sweeping = True
            self.loop.call_later(SWEEP_S, _sweep, self.loop, self.connections)
        if len(self.connections) > BOUNDS.max_connections and not self._make_room():
            BOUNDS.rejected("too_many_connections")
            self._refuse(503, "too_many_connections", "every connection is in use; try again in a moment")
            return
        BOUNDS.idle[self] = self.loop.time()

    def _make_room(self) -> bool:
        """Close the connection that has been without a request the longest; with a whole request none is closed."""
        now = self.loop.time()
        for waiting, patience in ((BOUNDS.idle, 0.0), (BOUNDS.receiving, PATIENCE_S)):
            oldest = next(iter(waiting), None)
            if oldest is not None and waiting[oldest] <= now - patience:
                oldest._abandon()
                return True
        return False

    def _abandon(self) -> None:
        BOUNDS.idle.pop(self, None)
        BOUNDS.receiving.pop(self, None)
        self.connections.discard(self)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        BOUNDS.idle.pop(self, None)
        BOUNDS.receiving.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self in BOUNDS.idle:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and self in BOUNDS.idle:
            BOUNDS.rejected("head_too_large")
            self._refuse(431, "head_too_large", f"the request's head is larger than {MAX_HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        BOUNDS.idle.pop(self, None)
        self._head_bytes = 0
        BOUNDS.receiving[self] = self.loop.time()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        BOUNDS.receiving.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self not in BOUNDS.receiving:
            BOUNDS.idle[self] = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """llhttp refused it: no HTTP, or ambiguous about its length as smuggled requests are."""
        BOUNDS.rejected("malformed_http")
        self._refuse(400, "malformed_http", "this is not a valid HTTP/1.1 request")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer without the app, and close. Amid an answer it is only closed."""
        BOUNDS.idle.pop(self, None)
        BOUNDS.receiving.pop(self, None)
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps(envelope(status, code, message)).encode()
            head = [STATUS_LINE[status], b"content-type: application/json\r\ncache-control: no-store\r\n"]
            head += [b"retry-after: 1\r\n"] if status == 503 else []
            head += [b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body), body]
            self.transport.write(b"".join(head))
        self.transport.close()

    def _check(self, now: float) -> None:
        """Close the connection if its client has taken too long."""
        if now - BOUNDS.idle.get(self, now) > BOUNDS.header_timeout_s:
            if self._head_bytes:
                BOUNDS.rejected("slow_client")
                self._refuse(408, "request_timeout", f"the head did not come within {BOUNDS.header_timeout_s:g} s")
            else:
                self._abandon()
        elif now - BOUNDS.receiving.get(self, now) > BOUNDS.body_timeout_s:
            BOUNDS.rejected("slow_client")
            self._refuse(408, "request_timeout", f"the body did not come within {BOUNDS.body_timeout_s:g} s")
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > BOUNDS.write_timeout_s:
            BOUNDS.rejected("slow_client")
            self._abandon()


def _sweep(loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
    """Once in a while over all connections: cheaper than timers, which every request would set and cancel."""
    now = loop.time()
    BOUNDS.counted(len(connections))
    for connection in list(connections):
        if isinstance(connection, Connection):
            connection._check(now)
    loop.call_later(SWEEP_S, _sweep, loop, connections)
