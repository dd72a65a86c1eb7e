"""HTTP/1.1 connections with limits, for clients that are slow, silent or hostile; see `connection_limits`."""

import asyncio
import json
from typing import Any, ClassVar

import httptools
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import envelope
from service.server.connection_limits import ConnectionLimits

MAX_HEAD_BYTES = 65536
PIECE_BYTES = 1024  # parsed at once: some 50 of the shortest requests, of which each takes kilobytes
MAX_PIECES = 32  # parsed before the event loop serves other connections


class _Flow(FlowControl):
    """uvicorn's flow control, which does not resume reading while requests of the connection wait."""

    def __init__(self, connection: "BoundedConnection"):
        super().__init__(connection.transport)
        self._connection = connection

    def resume_reading(self) -> None:
        if not self._connection.is_full():
            super().resume_reading()


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's connection, with limits.

    Requests that wait behind another (pipelined) are parsed a few at a time. While one waits, or the client reads no
    responses, the bytes that arrived are kept unparsed, at most one read of the socket, and no more are read.
    """

    limits: ClassVar[ConnectionLimits]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if isinstance(self.app, ProxyHeadersMiddleware):
            self.app = self.app.app  # ATELIER_TRUSTED_PROXIES decides whose X-Forwarded-For is trusted
        self._unparsed = bytearray()
        self._upgrade_head: bytes | None = None  # of a request to upgrade, without that header
        self._head_bytes = 0  # of a head or of trailers, so far
        self._body_left = 0  # according to Content-Length
        self._in_body = False  # between the end of a head and the end of its request
        self._running: Any = None  # the request that is answered; those in `pipeline` wait for its end
        self._unsent, self._unsent_since = 0, 0.0
        self.sending_since = 0.0  # the last time at which nothing was unsent

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection; refuse it, or close another one, if there are too many."""
        super().connection_made(transport)
        self.flow = _Flow(self)
        self.limits.start_sweeping(self.loop, self.connections)
        if len(self.connections) > self.limits.max_connections and not self.limits.make_room(self.loop.time()):
            self.limits.on_rejected("too_many_connections")
            self._refuse(503, "too_many_connections", "every connection is in use; try again in a moment")
            return
        self._update_state()

    def _update_state(self) -> None:
        """Record whether the connection waits for its client: for a head, for the rest of a body, or for neither."""
        running = self._running
        working = running is not None and not running.response_complete
        if working and not (self._in_body and running is self.cycle):
            self.limits.forget(self)
        elif self._in_body:
            self.limits.waiting_for_head.pop(self, None)
            self.limits.waiting_for_body.setdefault(self, self.loop.time())
        else:
            self.limits.waiting_for_body.pop(self, None)
            self.limits.waiting_for_head.setdefault(self, self.loop.time())

    def abort(self) -> None:
        """Close the connection without a response."""
        self._forget()
        self.connections.discard(self)
        self.transport.abort()

    def unsent_bytes(self) -> int:
        """Return the bytes of responses that the client has not read."""
        return int(self.transport.get_write_buffer_size())

    def _forget(self) -> None:
        self.limits.forget(self)
        self._unparsed.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and notify the requests that it has."""
        self._forget()
        super().connection_lost(exc)
        if self._running is not None and self._running is not self.cycle:  # uvicorn notifies only the last one
            self._running.disconnected = not self._running.response_complete
            self._running.message_event.set()

    def is_full(self) -> bool:
        """Return whether no more should be read for now."""
        return bool(self.pipeline or self._unparsed or self.flow.write_paused)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, as far as requests may wait."""
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
            piece = bytes(unparsed[: max(PIECE_BYTES, self._body_left)])
            del unparsed[: len(piece)]
            self._head_bytes += len(piece)
            self._feed(piece)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.limits.on_rejected("head_too_large")
                message = f"the request's head, or its trailers, are larger than {MAX_HEAD_BYTES} bytes"
                self._refuse(431, "head_too_large", message)
        if self.transport.is_closing():
            unparsed.clear()
        elif self.is_full():
            self.flow.pause_reading()
            if pieces == MAX_PIECES:  # a piece may have 170 chunks of a body: let other connections run
                self.loop.call_soon(self._resume)

    def _feed(self, data: bytes) -> None:
        """Parse bytes.

        An Upgrade is ignored (RFC 9110, section 7.8). llhttp would take the body of such a request for the other
        protocol, so its head is parsed a second time, without that header.
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
        """Return a parser with the options of uvicorn's."""
        parser = httptools.HttpRequestParser(self)
        if hasattr(parser, "set_dangerous_leniencies"):  # httptools 0.6.3
            parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _resume(self) -> None:
        """Continue, because the reason to wait may be over."""
        if not self.transport.is_closing() and self.parser is not None:
            self._parse()
            self.flow.resume_reading()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, but not a trailer."""
        if not self._in_body:  # trailers are not headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head, and begin the request; a ValueError becomes llhttp's error."""
        if self.parser.should_upgrade():
            method = self.parser.get_method()
            if method == b"CONNECT":
                raise ValueError("this is not a proxy")
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
                    raise ValueError("a proxy may have followed the other one")
            elif name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                coded += 1
                if coded > 1 or value.strip().lower() != b"chunked":
                    raise ValueError("a coding that would be passed on undecoded")
        self._head_bytes, self._body_left, self._in_body = 0, length, True
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and not self.pipeline:
            self._running = self.cycle
        self._update_state()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._head_bytes = 0
        self._body_left = max(0, self._body_left - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self._upgrade_head is not None:  # the same request comes again
            return
        self._head_bytes, self._in_body = 0, False
        super().on_message_complete()
        self._update_state()

    def on_response_complete(self) -> None:
        """Continue with the next request of the connection."""
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if following is not None:
            self._running = following
            self.limits.waiting_for_body.pop(self, None)  # its body was not read until now
        self._update_state()
        if self._unparsed or following is not None:
            self.loop.call_soon(self._resume)

    def resume_writing(self) -> None:
        """Continue, because the client has read its response."""
        super().resume_writing()
        self._resume()

    def send_400_response(self, _msg: str) -> None:
        """Reject what llhttp does not accept: not HTTP, or of ambiguous length as in request smuggling."""
        self.limits.on_rejected("malformed_http")
        self._refuse(400, "malformed_http", "this is not a valid HTTP/1.1 request")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Respond without the app, and close; during a response, or before one that is due, only close."""
        self._forget()
        running = self._running
        due = running is not None and not running.response_complete
        if not due or (running is self.cycle and self._in_body and not running.response_started):
            body = json.dumps(envelope(status, code, message)).encode()
            head = [STATUS_LINE[status], b"content-type: application/json\r\ncache-control: no-store\r\n"]
            head += [b"retry-after: 1\r\n"] if status == 503 else []
            head += [b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body), body]
            self.transport.write(b"".join(head))
        self.transport.close()

    def check(self, now: float) -> None:
        """Close the connection if its client has taken too long."""
        if self.is_full():  # nothing is read, so nothing can arrive
            for waiting in (self.limits.waiting_for_head, self.limits.waiting_for_body):
                if waiting.pop(self, None) is not None:
                    waiting[self] = now
        if now - self.limits.waiting_for_head.get(self, now) > self.limits.header_timeout_s:
            if self._head_bytes:
                self.limits.on_rejected("slow_client")
                self._refuse(
                    408, "request_timeout", f"the head did not arrive within {self.limits.header_timeout_s:g} s"
                )
            else:
                self.abort()
        elif now - self.limits.waiting_for_body.get(self, now) > self.limits.body_timeout_s:
            self.limits.on_rejected("slow_client")
            self._refuse(408, "request_timeout", f"the body did not arrive within {self.limits.body_timeout_s:g} s")
        unsent = self.unsent_bytes()
        if not unsent:
            self.sending_since = now
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > self.limits.write_timeout_s:
            self.limits.on_rejected("slow_client")
            self.abort()


def _with_path(target: bytes) -> bytes:
    """Return a request's target with a path: `http://host` and `http://host?query` have none (RFC 9112, 3.2.2)."""
    if target.startswith(b"/"):
        return target
    scheme, mark, rest = target.partition(b"://")
    host, query, words = rest.partition(b"?")
    return b"%b%b%b/%b%b" % (scheme, mark, host, query, words) if mark and b"/" not in host else target
