"""A stop without loss: what a worker does from SIGTERM until it ends.

1. Draining (`drain_s`): /readyz is 503, so that a load balancer chooses other workers. Requests that still arrive are
   answered, and their connections are closed, so that their clients connect elsewhere next.
2. No new connection is accepted, those without a request are closed, and accepted requests are answered.
3. After `grace_s` in total, the remaining requests are cut off.

uvicorn does only the second step. Without the first, requests that are on their way while it closes idle connections
would be lost; without the third, one slow reader would delay the end without limit.
"""

import asyncio
import contextvars
import ctypes
import logging
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from service.server.private_symbols import is_supported

if TYPE_CHECKING:
    from service.worker import Worker

log = logging.getLogger("bentoml.atelier")

SYMBOLS = (
    *(f"uvicorn.server:Server.{name}" for name in ("_captured_signals", "config", "handle_exit", "servers")),
    *(f"uvicorn.server:Server.{name}" for name in ("should_exit", "started")),
    "uvicorn.config:Config.timeout_graceful_shutdown",
)
EXIT_S = 2.0  # for what follows uvicorn's own timeout
ACCEPT_S = 0.3  # for the requests of connections that were just made
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # Linux; Python's socket does not name them


def install(worker: "Worker", all_draining: Callable[[], bool]) -> None:
    """Handle signals before uvicorn does; call it on the event loop.

    Under another server, as in tests, nothing is done. Where uvicorn lacks what this needs, its own shutdown remains.

    Args:
        worker: What is stopped.
        all_draining: Returns whether all workers that share the socket are stopping.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGTERM)
    server: Any = getattr(handler, "__self__", None)
    if not callable(handler) or not type(server).__module__.startswith("uvicorn"):
        return
    if not is_supported("draining before a stop", SYMBOLS):
        return
    shutdown = GracefulShutdown(worker, all_draining, server, handler, asyncio.get_running_loop())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, shutdown.handle_signal)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # the supervisor receives it too, and stops all
        signal.signal(signal.SIGHUP, lambda _number, frame: shutdown.handle_signal(signal.SIGTERM, frame))
    if server.should_exit:  # a signal came before this handler; uvicorn would look at it only once models are loaded
        server.should_exit = False
        server._captured_signals.clear()
        shutdown.handle_signal(signal.SIGTERM, None)


class GracefulShutdown:
    """Runs the steps of a stop on uvicorn's event loop."""

    def __init__(
        self,
        worker: "Worker",
        all_draining: Callable[[], bool],
        server: Any,
        uvicorn_handler: Callable[[int, FrameType | None], Any],
        loop: asyncio.AbstractEventLoop,
    ):
        self._worker, self._all_draining, self._server = worker, all_draining, server
        self._uvicorn_handler, self._loop = uvicorn_handler, loop
        self._requested = False

    def handle_signal(self, number: int, _frame: FrameType | None) -> None:
        """Begin the stop, once: Ctrl+C at a terminal reaches a worker directly and through its supervisor."""
        if not self._requested:
            self._requested = True
            # the kernel ends the process then, even if the event loop is stuck or threads compute
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, self._worker.settings.grace_s + EXIT_S)
            # without the context of the request that the signal happened to interrupt
            self._loop.call_soon_threadsafe(self._drain, number, context=contextvars.Context())

    def _drain(self, number: int) -> None:
        settings = self._worker.settings
        self._worker.drain()
        if not self._server.started:  # it accepts no connections yet, so none has to end
            self._worker.stop()
            os._exit(0)
        self._server.config.timeout_graceful_shutdown = max(0.1, settings.grace_s - settings.drain_s)
        log.info("stopping: draining for %g s, at most %g s in all", settings.drain_s, settings.grace_s)
        self._loop.call_later(settings.drain_s, self._stop_accepting, number)

    def _stop_accepting(self, number: int) -> None:
        """Accept no new connection, and wait for the requests of those that are accepted."""
        listeners = [
            socket.socket(fileno=os.dup(s.fileno())) for server in self._server.servers for s in server.sockets
        ]
        # Closing a worker's listener leaves the socket open in the supervisor, where connections would wait until it
        # ends. While other workers run, these accept them.
        last = self._all_draining()
        for listener in listeners if last else ():
            _filter(listener, attach=True)
        if not last:
            for server in self._server.servers:
                server.close()
        self._loop.call_later(ACCEPT_S, self._end, number, listeners, last)

    def _end(self, number: int, listeners: list[socket.socket], last: bool) -> None:
        for listener in listeners:
            if last:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # from here on clients are refused
                _filter(listener, attach=False)  # a restarted worker listens on this same socket
            listener.close()
        self._uvicorn_handler(number, None)


def _filter(listener: socket.socket, attach: bool) -> None:
    """Have the kernel drop, or accept again, packets to a listening socket; open connections are not affected.

    Closing a socket resets the connections that wait to be accepted, whose requests may have arrived. With a filter
    that drops everything no more begin to wait, and all that do are accepted before the end. Clients whose packets are
    dropped try again without notice, and are refused then. Linux only. Without it, about one request per client was
    lost at each stop of a loaded worker (`test_stop_with_new_connections_loses_no_request`).
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError):
        if attach:
            drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0
            program = struct.pack("HP", 1, ctypes.addressof(drop_all))  # struct sock_fprog
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        else:
            listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
