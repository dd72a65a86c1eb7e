"""The end without loss: what a worker does from SIGTERM until it is gone.

1. Draining (`drain_s`): /readyz is 503, so that a load balancer looks elsewhere, while every request that still
   comes is answered, and its connection closed after the answer, so that its client asks elsewhere for the next.
2. No connection is let in any more, those without a request are closed, and accepted requests are answered.
3. After `grace_s` in all, what is left is cut off.

uvicorn does the second step by itself; without the first, requests that are on their way while it closes the idle
connections would be lost, and without the third one slow reader would hold up the end for ever.
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

if TYPE_CHECKING:
    from service.worker import Worker

log = logging.getLogger("bentoml.atelier")

LAST_S = 2.0  # for what comes after uvicorn's own timeout
LET_IN_S = 0.3  # for the requests of connections that were just made
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # Linux; Python's socket does not name them


def install(worker: "Worker") -> None:
    """Stand before uvicorn's signal handlers; on the event loop. Under another server (tests) nothing is done."""
    if threading.current_thread() is not threading.main_thread():
        return
    uvicorns = signal.getsignal(signal.SIGTERM)
    server: Any = getattr(uvicorns, "__self__", None)
    if not callable(uvicorns) or not hasattr(server, "handle_exit"):
        return
    ending = _Ending(worker, server, uvicorns, asyncio.get_running_loop())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ending.asked)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # the supervisor hears it too, and stops all
        signal.signal(signal.SIGHUP, lambda number, frame: ending.asked(signal.SIGTERM, frame))
    if server.should_exit:  # asked before there was this handler: uvicorn would look at that only once models are there
        server.should_exit = False
        server._captured_signals.clear()
        ending.asked(signal.SIGTERM, None)


class _Ending:
    def __init__(
        self,
        worker: "Worker",
        server: Any,
        uvicorns: Callable[[int, FrameType | None], Any],
        loop: asyncio.AbstractEventLoop,
    ):
        self._worker, self._server, self._uvicorns, self._loop = worker, server, uvicorns, loop
        self._asked = False

    def asked(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. Ctrl+C at a terminal reaches a worker twice: by itself and by its supervisor."""
        if not self._asked:
            self._asked = True
            # the kernel ends the process then, whatever holds it up: a loop that is stuck, threads that compute
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, self._worker.settings.grace_s + LAST_S)
            # without the context of the request that the signal happened to interrupt
            self._loop.call_soon_threadsafe(self._drain, number, context=contextvars.Context())

    def _drain(self, number: int) -> None:
        settings = self._worker.settings
        self._worker.drain()
        if not self._server.started:  # it lets no connection in yet, and so has nothing to bring to an end
            self._worker.stop()
            os._exit(0)
        self._server.config.timeout_graceful_shutdown = max(0.1, settings.grace_s - settings.drain_s)
        log.info("stopping: draining for %g s, at most %g s in all", settings.drain_s, settings.grace_s)
        self._loop.call_later(settings.drain_s, self._stop, number)

    def _stop(self, number: int) -> None:
        """Let in no new connection, and wait for the requests of those that are in."""
        listeners = [
            socket.socket(fileno=os.dup(s.fileno())) for server in self._server.servers for s in server.sockets
        ]
        # closing a worker's listener leaves the socket open in the supervisor, where clients would connect to nobody
        # until it ends; but while other workers live, it is theirs
        last = self._worker.metrics.recent.all_drain()
        for listener in listeners if last else ():
            _filter(listener, attach=True)
        if not last:
            for server in self._server.servers:
                server.close()
        self._loop.call_later(LET_IN_S, self._end, number, listeners, last)

    def _end(self, number: int, listeners: list[socket.socket], last: bool) -> None:
        for listener in listeners:
            if last:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # from here on clients are refused
                _filter(listener, attach=False)  # a worker that is started again listens on this very socket
            listener.close()
        self._uvicorns(number, None)


def _filter(listener: socket.socket, attach: bool) -> None:
    """Have the kernel drop, or let in again, what comes to a listening socket; connections there are go on.

    A socket that is closed resets the connections that wait to be accepted, whose requests may be here already.
    With a filter that takes nothing, no more begin to wait, and all that do are accepted before the end. A client
    that is dropped tries again by itself, and is refused then. (Linux; elsewhere that moment stays.)
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError):
        if attach:
            take_nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0
            program = struct.pack("HP", 1, ctypes.addressof(take_nothing))  # struct sock_fprog
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        else:
            listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
