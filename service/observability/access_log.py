"""The access log: a line a request, gathered and written off the event loop.

Python's logging costs some 20 µs a record; so lines are put together by hand, kept for a moment, and handed on many
at a time.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Callable
from typing import Any

from service.observability import logs
from service.settings import Settings

KEEP_S = 0.2
KEEP_LINES = 10_000  # of one such moment; beyond, lines are dropped and counted
QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics", "/v1/status"})  # asked every few seconds, for ever
_SANE = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def request_id(told: bytes | None) -> str:
    """The client's X-Request-Id if it is sane (up to 128 letters, digits and ._:/+=-), else one of our own."""
    if told is not None and _SANE.fullmatch(told):
        return told.decode()
    return f"{random.getrandbits(64):016x}"


class AccessLog:
    """Which requests are logged, and how, is `settings`'; `write` takes text (default: standard output)."""

    def __init__(self, settings: Settings, as_json: bool, write: Callable[[str], Any] | None = None):
        self._which, self._sample, self._json = settings.access_log, settings.access_log_sample, as_json
        self._write = write or logs.to_stdout
        self._lines: list[str] = []
        self._dropped = 0
        self._flushing = False

    def wants(self, route: str, status: int) -> bool:
        if status >= 400 and status != 499:
            return self._which != "off"
        if self._which != "all" or route in QUIET_ROUTES:
            return False
        return self._sample >= 1 or random.random() < self._sample

    def line(
        self,
        method: str,
        route: str,
        status: int,
        seconds: float,
        request: str,
        model: str | None = None,
        rows: int | None = None,
        client: str | None = None,
        trace: str | None = None,
    ) -> None:
        """Log one request; call it on the event loop."""
        if len(self._lines) >= KEEP_LINES:
            self._dropped += 1
            return
        now, ms = time.time(), seconds * 1000
        if self._json:
            # method, route, request and trace are of our own making or sane; a model's and a client's name are quoted
            line = (
                f'{{"time":"{_utc(int(now))}.{int(now % 1 * 1000):03}Z","level":"info","event":"request",'
                f'"request_id":"{request}","method":"{method}","route":"{route}","status":{status},"ms":{ms:.2f}'
            )
            if rows is not None:
                line += f',"rows":{rows},"model":{json.dumps(model)}'
            if client is not None:
                line += f',"client":{json.dumps(client)}'
            if trace is not None:
                line += f',"trace_id":"{trace}"'
            line += "}\n"
        else:
            images = f" {rows} rows of {model}" if rows is not None else ""
            line = f"{_utc(int(now))[11:]} {status} {method} {route} {ms:.1f} ms{images} [{request}]\n"
        self._lines.append(line)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_later(KEEP_S, self._start)

    def _start(self) -> None:
        self._flushing = False
        self._write(self._taken())

    def _taken(self) -> str:
        lines, self._lines = self._lines, []
        if self._dropped:
            lines.append(f'{{"level":"warning","event":"access lines dropped","lines":{self._dropped}}}\n')
            self._dropped = 0
        return "".join(lines)

    def flush(self) -> None:
        """Write what is kept, at the end."""
        if text := self._taken():
            self._write(text)


_second: tuple[int, str] = (0, "")


def _utc(second: int) -> str:
    global _second
    if _second[0] != second:
        _second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
    return _second[1]
