"""HTTP/1.1 connections as a hostile network has them: bounded in number, in time and in what each may keep.

uvicorn bounds none of these by itself: a client may be silent, send a header a second, never read its answer, or
open more connections than the process may have files, and hold its place for ever.
"""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httptools
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import envelope
from service.server.posix import resource
from service.settings import Settings

MAX_HEAD_BYTES = 65536
PIECE = 1024  # bytes parsed at once: some 50 of the shortest requests, of which each takes kilobytes
MAX_PIECES = 32  # parsed before the event loop serves other connections
SWEEP_S = 0.5
SPARE_FILES = 48  # for model files, logs, the workers' shared files, and a connection that is refused
MOST_CONNECTIONS = 16384
MAX_UNSENT_BYTES = 2**28  # of answers that clients have not taken, of all connections together
TAKING_S = 2.0  # an answer that is taken sooner is not cut off, unless there is twice that memory
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

    uvicorn.config.HTTP_PROTOCOLS["auto"] = "service.server.connections:Connection"
    uvicorn.config.WS_PROTOCOLS["auto"] = None  # no route speaks it
    # uvicorn would believe X-Forwarded-For of whoever is on this machine
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
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


class _Flow(FlowControl):
    """uvicorn's flow control, which does not read on while requests of the connection wait."""

    def __init__(self, connection: "Connection"):
        super().__init__(connection.transport)
        self._connection = connection

    def resume_reading(self) -> None:
        if not self._connection.held_up():
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with its bounds.

    Requests that wait behind another (pipelined) are parsed a few at a time: as long as one waits, or the client
    reads no answers, what came is kept as it is, at most one read of the socket, and nothing more is read.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if isinstance(self.app, ProxyHeadersMiddleware):
            self.app = self.app.app  # `proxies` says whose X-Forwarded-For is believed
        self._unparsed = bytearray()
        self._upgrade_head: bytes | None = None  # of a request that asks for an upgrade, without that
        self._head_bytes = 0  # since the last byte of a body or the last end of a head: of a head or of trailers
        self._body_left = 0  # as Content-Length told
        self._in_body = False  # between the end of a head and that of its request
        self._running: Any = None  # the cycle that is answered; those in `pipeline` wait for its end
        self._unsent, self._unsent_since = 0, 0.0
        self._sending_since = 0.0  # the last time at which nothing was unsent

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(self)
        if not BOUNDS.sweeping:
            BOUNDS.sweeping = True
            self.loop.call_later(SWEEP_S, _sweep, self.loop, self.connections)
        if len(self.connections) > BOUNDS.max_connections and not self._make_room():
            BOUNDS.rejected("too_many_connections")
            self._refuse(503, "too_many_connections", "every connection is in use; try again in a moment")
            return
        self._place()

    def _make_room(self) -> bool:
        """Close the connection that has been without a request the longest; with a whole request none is closed."""
        now = self.loop.time()
        for waiting, patience in ((BOUNDS.idle, 0.0), (BOUNDS.receiving, PATIENCE_S)):
            oldest = next(iter(waiting), None)
            if oldest is not None and waiting[oldest] <= now - patience:
                oldest._abandon()
                return True
        return False

    def _place(self) -> None:
        """Say whether the connection waits for its client: for a head, for the rest of a body, or for neither."""
        running = self._running
        working = running is not None and not running.response_complete
        if working and not (self._in_body and running is self.cycle):
            BOUNDS.idle.pop(self, None)
            BOUNDS.receiving.pop(self, None)
        elif self._in_body:
            BOUNDS.idle.pop(self, None)
            BOUNDS.receiving.setdefault(self, self.loop.time())
        else:
            BOUNDS.receiving.pop(self, None)
            BOUNDS.idle.setdefault(self, self.loop.time())

    def _abandon(self) -> None:
        self._forget()
        self.connections.discard(self)
        self.transport.abort()

    def _forget(self) -> None:
        BOUNDS.idle.pop(self, None)
        BOUNDS.receiving.pop(self, None)
        self._unparsed.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)
        if self._running is not None and self._running is not self.cycle:  # uvicorn tells the last one alone
            self._running.disconnected = not self._running.response_complete
            self._running.message_event.set()

    def held_up(self) -> bool:
        """Whether enough has come for now."""
        return bool(self.pipeline or self._unparsed or self.flow.write_paused)

    def data_received(self, data: bytes) -> None:
        self._unparsed += data
        self._parse()

    def _parse(self) -> None:
        unparsed = self._unparsed
        pieces = 0
        while (
            unparsed
            and pieces < MAX_PIECES
            and not self.pipeline
            and not self.flow.write_paused
            and not self.transport.is_closing()
        ):
            pieces += 1
            piece = bytes(unparsed[: max(PIECE, self._body_left)])
            del unparsed[: len(piece)]
            self._head_bytes += len(piece)
            self._feed(piece)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                BOUNDS.rejected("head_too_large")
                message = f"the request's head, or what trails its body, is larger than {MAX_HEAD_BYTES} bytes"
                self._refuse(431, "head_too_large", message)
        if self.transport.is_closing():
            unparsed.clear()
        elif self.held_up():
            self.flow.pause_reading()
            if pieces == MAX_PIECES:  # a piece may hold 170 chunks of a body: others take their turn
                self.loop.call_soon(self._go_on)

    def _feed(self, data: bytes) -> None:
        """Parse what came.

        Nothing is upgraded here, so an Upgrade is ignored (RFC 9110, section 7.8). llhttp would take the body of such
        a request for the other protocol; so its head is parsed a second time, without the field.
        """
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                head, self._upgrade_head = self._upgrade_head, None
                data = (head or b"") + data[upgrade.args[0] :]
                self.parser = self._new_parser()
            except httptools.HttpParserError:
                self.send_400_response("")
                return

    def _new_parser(self) -> httptools.HttpRequestParser:
        """Return a parser as uvicorn makes them."""
        parser = httptools.HttpRequestParser(self)
        if hasattr(parser, "set_dangerous_leniencies"):  # httptools 0.6.3
            parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _go_on(self) -> None:
        """Something that held the connection up may be over."""
        if not self.transport.is_closing() and self.parser is not None:
            self._parse()
            self.flow.resume_reading()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # trailers are nobody's headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            method = self.parser.get_method()
            if method == b"CONNECT":
                raise ValueError("this is not a proxy")  # llhttp's error then
            lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
            lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
            self._upgrade_head = b"\r\n".join((*lines, b"", b""))
            return
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # such a client takes a 100 for its answer (RFC 9110, section 10.1.1)
        self.url = _with_path(self.url)
        length = coded = hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
                if hosts > 1:
                    raise ValueError("a proxy may have followed the other one")  # llhttp's error then
            elif name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                coded += 1
                if coded > 1 or value.strip().lower() != b"chunked":
                    raise ValueError("a coding that would be passed on undecoded")  # llhttp's error then
        self._head_bytes, self._body_left, self._in_body = 0, length, True
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and not self.pipeline:
            self._running = self.cycle
        self._place()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._body_left = max(0, self._body_left - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrade_head is not None:  # the same request comes again
            return
        self._head_bytes, self._in_body = 0, False
        super().on_message_complete()
        self._place()

    def on_response_complete(self) -> None:
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if following is not None:
            self._running = following
            BOUNDS.receiving.pop(self, None)  # its body was not read until now
        self._place()
        if self._unparsed or following is not None:
            self.loop.call_soon(self._go_on)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    def send_400_response(self, msg: str) -> None:
        """llhttp refused it: no HTTP, or ambiguous about its length as smuggled requests are."""
        BOUNDS.rejected("malformed_http")
        self._refuse(400, "malformed_http", "this is not a valid HTTP/1.1 request")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer without the app, and close. Amid an answer, or before one that is owed, it is only closed."""
        self._forget()
        running = self._running
        owed = running is not None and not running.response_complete
        if not owed or (running is self.cycle and self._in_body and not running.response_started):
            body = json.dumps(envelope(status, code, message)).encode()
            head = [STATUS_LINE[status], b"content-type: application/json\r\ncache-control: no-store\r\n"]
            head += [b"retry-after: 1\r\n"] if status == 503 else []
            head += [b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body), body]
            self.transport.write(b"".join(head))
        self.transport.close()

    def _check(self, now: float) -> None:
        """Close the connection if its client has taken too long."""
        if self.held_up():  # nothing is read, so nothing can come
            for waiting in (BOUNDS.idle, BOUNDS.receiving):
                if waiting.pop(self, None) is not None:
                    waiting[self] = now
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
        if not unsent:
            self._sending_since = now
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > BOUNDS.write_timeout_s:
            BOUNDS.rejected("slow_client")
            self._abandon()


def _with_path(target: bytes) -> bytes:
    """Return a request's target with a path: `http://host` and `http://host?query` have none (RFC 9112, 3.2.2)."""
    if target.startswith(b"/"):
        return target
    scheme, mark, rest = target.partition(b"://")
    host, query, words = rest.partition(b"?")
    return b"%b%b%b/%b%b" % (scheme, mark, host, query, words) if mark and b"/" not in host else target


def _sweep(loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
    """Once in a while over all connections: cheaper than timers, which every request would set and cancel."""
    now = loop.time()
    BOUNDS.counted(len(connections))
    for connection in list(connections):
        if isinstance(connection, Connection):
            connection._check(now)
    _cut_off_slow(now, connections)
    loop.call_later(SWEEP_S, _sweep, loop, connections)


def _cut_off_slow(now: float, connections: set[Any]) -> None:
    """Close connections with the largest unread answers while all unread answers together are too much memory.

    A client that takes a little of its answer at a time is never idle, so that no timeout ends it.
    """
    unsent = {
        c: size for c in connections if isinstance(c, Connection) and (size := c.transport.get_write_buffer_size())
    }
    total = sum(unsent.values())
    patience = TAKING_S if total <= 2 * MAX_UNSENT_BYTES else 0.0
    for connection, size in sorted(unsent.items(), key=lambda item: -item[1]):
        if total <= MAX_UNSENT_BYTES:
            break
        if now - connection._sending_since > patience:
            BOUNDS.rejected("slow_client")
            connection._abandon()
            total -= size
