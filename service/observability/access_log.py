"""The access log: one record per request, written several at a time."""

import asyncio
import json
import random
import sys
import time
from typing import TextIO

from service.observability.logs import as_record, dropped_line, queue_for, uses_json, utc
from service.settings import Settings

MAX_ACCESS_LINES = 10_000  # that wait for the next write
ACCESS_WRITE_S = 0.2  # between two writes: a record per request would take ten times as long
ACCESS_BACKLOG = 10  # queued records from which on the reader is too slow, and access lines wait
QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics", "/v1/status"})  # requested every few seconds


class AccessLog:
    """One line per request, formatted at once and written several at a time.

    Args:
        settings: Which requests are logged, and in which format.
        stream: Where to; standard output by default.
    """

    def __init__(self, settings: Settings, stream: TextIO | None = None):
        self._which, self._sample, self._json = settings.access_log, settings.access_log_sample, uses_json(settings)
        self._stream = stream
        self._lines: list[str] = []
        self._dropped = 0
        self._scheduled = False

    def is_logged(self, route: str, status: int) -> bool:
        """Return whether a request is logged: errors unless the log is off, others unless sampled out."""
        if status >= 400 and status != 499:
            return self._which != "off"
        if self._which != "all" or route in QUIET_ROUTES:
            return False
        return self._sample >= 1 or random.random() < self._sample

    def log(
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
        """Log one request, on the event loop."""
        if len(self._lines) >= MAX_ACCESS_LINES:
            self._dropped += 1
            return
        now, ms = time.time(), seconds * 1000
        if self._json:
            # By hand, in a third of the time of `json`: only the names of models and clients can need escapes.
            line = (
                f'{{"time":"{utc(int(now))}.{int(now % 1 * 1000):03}Z","level":"info","event":"request",'
                f'"request_id":"{request}","method":"{method}","route":"{route}","status":{status},"ms":{ms:.2f}'
            )
            line += f',"rows":{rows},"model":{json.dumps(model)}' if rows is not None else ""
            line += f',"client":{json.dumps(client)}' if client is not None else ""
            line += f',"trace_id":"{trace}"' if trace is not None else ""
            self._lines.append(line + "}")
        else:
            images = f" {rows} rows of {model}" if rows is not None else ""
            time_of_day = utc(int(now))[11:]
            self._lines.append(f"{time_of_day} {status} {method} {route} {ms:.1f} ms{images} [{request}]")
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(ACCESS_WRITE_S, self.flush)

    def flush(self) -> None:
        """Hand the lines to the thread that writes them, unless its queue shows that the reader is too slow."""
        self._scheduled = False
        stream = self._stream or sys.stdout
        try:
            records = queue_for(stream.fileno())
        except (OSError, ValueError):  # a stream without a file descriptor: a test's
            stream.write("".join(f"{line}\n" for line in self._take()))
            return
        if records.qsize() < ACCESS_BACKLOG and (lines := self._take()):
            records.put(as_record("\n".join(lines)))

    def _take(self) -> list[str]:
        lines, self._lines = self._lines, []
        if self._dropped:
            lines.append(dropped_line("access lines dropped", self._dropped))
            self._dropped = 0
        return lines
