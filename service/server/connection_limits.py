"""Limits of the HTTP connections of a worker: their number, their time, and the memory of unread responses.

uvicorn does not limit any of these: a client may be silent, send one byte of a header per second, never read its
response, or open more connections than the process may have files, and keep its place for as long as it likes.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

SWEEP_S = 0.5
RESERVED_FILES = 48  # for model files, logs, the workers' shared files, and a connection that is refused
MAX_CONNECTIONS = 16384
MAX_UNSENT_BYTES = 2**28  # of responses that clients have not read, of all connections together
READING_S = 2.0  # a response that is read faster is not cut off, unless there is twice that memory
BODY_PATIENCE_S = 1.0  # a request whose body arrives is not closed sooner to make room for others

_PROTOCOL = "uvicorn.protocols.http.httptools_impl"
SYMBOLS = (
    "uvicorn.config:HTTP_PROTOCOLS",
    "uvicorn.config:WS_PROTOCOLS",
    "uvicorn.middleware.proxy_headers:ProxyHeadersMiddleware.app",
    *(
        f"uvicorn.protocols.http.flow_control:FlowControl.{name}"
        for name in ("pause_reading", "resume_reading", "write_paused")
    ),
    f"{_PROTOCOL}:STATUS_LINE",
    *(
        f"{_PROTOCOL}:HttpToolsProtocol.{name}"
        for name in (
            *("connection_made", "connection_lost", "data_received", "resume_writing", "send_400_response"),
            *("on_header", "on_headers_complete", "on_body", "on_message_complete", "on_response_complete"),
            *("app", "connections", "cycle", "expect_100_continue", "flow", "headers", "loop", "parser", "pipeline"),
            *("transport", "url", "_unset_keepalive_if_required"),
        )
    ),
    *(
        f"{_PROTOCOL}:RequestResponseCycle.{name}"
        for name in ("disconnected", "message_event", "response_complete", "response_started")
    ),
)


@dataclass(eq=False)
class ConnectionLimits:
    """The limits of a worker's connections (`connections.BoundedConnection`), and those that wait for their client.

    Attributes:
        header_timeout_s: Time for a request's head to arrive.
        body_timeout_s: Time for a request's body to arrive.
        write_timeout_s: Time for which a client may read nothing of its response.
        max_connections: The most open connections.
        on_rejected: Called with the reason for which a client is rejected.
        on_count: Called with the number of connections.
        waiting_for_head: Connections that wait for a head, and since when, the oldest first.
        waiting_for_body: The same for a body.
    """

    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    write_timeout_s: float = 20.0
    max_connections: int = 1024
    on_rejected: Callable[[str], Any] = lambda _reason: None
    on_count: Callable[[int], Any] = lambda _count: None
    waiting_for_head: dict[Any, float] = field(default_factory=dict)
    waiting_for_body: dict[Any, float] = field(default_factory=dict)
    _sweeping: bool = False

    def make_room(self, now: float) -> bool:
        """Close the connection that has been without a request the longest; none with a whole request is closed."""
        for waiting, patience in ((self.waiting_for_head, 0.0), (self.waiting_for_body, BODY_PATIENCE_S)):
            oldest = next(iter(waiting), None)
            if oldest is not None and waiting[oldest] <= now - patience:
                oldest.abort()
                return True
        return False

    def forget(self, connection: Any) -> None:
        """Note that a connection no longer waits for its client."""
        self.waiting_for_head.pop(connection, None)
        self.waiting_for_body.pop(connection, None)

    def start_sweeping(self, loop: asyncio.AbstractEventLoop, connections: Iterable[Any]) -> None:
        """Check all connections regularly: cheaper than timers, which every request would set and cancel."""
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(SWEEP_S, self._sweep, loop, connections)

    def _sweep(self, loop: asyncio.AbstractEventLoop, connections: Iterable[Any]) -> None:
        now, current = loop.time(), list(connections)
        self.on_count(len(current))
        for connection in current:
            connection.check(now)
        self._close_slow_readers(now, connections)
        loop.call_later(SWEEP_S, self._sweep, loop, connections)

    def _close_slow_readers(self, now: float, connections: Iterable[Any]) -> None:
        """Close connections with the largest unread responses while all of them together are too much memory.

        A client that reads a little at a time is never idle, so that no timeout ends it.
        """
        unsent = {connection: size for connection in connections if (size := connection.unsent_bytes())}
        total = sum(unsent.values())
        patience = READING_S if total <= 2 * MAX_UNSENT_BYTES else 0.0
        for connection, size in sorted(unsent.items(), key=lambda item: -item[1]):
            if total <= MAX_UNSENT_BYTES:
                break
            if now - connection.sending_since > patience:
                self.on_rejected("slow_client")
                connection.abort()
                total -= size
