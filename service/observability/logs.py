"""The service's log: JSON lines for machines, short lines for people at a terminal; nobody waits for its reader."""

import atexit
import json
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from service.settings import Settings

KEEP_BYTES = 4 * 2**20  # beyond, lines are dropped and counted: a log that nobody reads must not eat the memory
LAST_S = 1.0  # that an end waits for what is kept

# of the request that is being answered; `gate` sets it
current_request: ContextVar[str | None] = ContextVar("current_request", default=None)


def as_json(settings: Settings) -> bool:
    return settings.log_format == "json" or (settings.log_format == "auto" and not sys.stdout.isatty())


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, request_id and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if request := current_request.get():
            told["request_id"] = request
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


class Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        request = current_request.get()
        told = time.strftime("%H:%M:%S", time.gmtime(record.created)) + f" {record.levelname.lower()} "
        told += record.getMessage() + (f" [{request}]" if request else "")
        return f"{told}\n{self.formatException(record.exc_info)}" if record.exc_info else told


class Writer:
    """A file descriptor, written to by a thread of its own: a pipe that is full stops whoever writes to it."""

    def __init__(self, fd: int):
        self._fd = fd
        self._changed = threading.Condition()
        self._kept: list[bytes] = []
        self._bytes = self._dropped = 0
        self._thread: threading.Thread | None = None

    def put(self, text: str) -> None:
        """Have `text` (whole lines) written; at once, whatever becomes of it."""
        data = text.encode(errors="backslashreplace")
        with self._changed:
            if self._bytes + len(data) > KEEP_BYTES:
                self._dropped += text.count("\n")
                return
            self._kept.append(data)
            self._bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="log", daemon=True)
                self._thread.start()
                atexit.register(self.flush)
            self._changed.notify_all()

    def flush(self, seconds: float = LAST_S) -> bool:
        """Wait until all is written, but no longer than this; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._bytes, seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._kept)
                data, self._kept = b"".join(self._kept), []
                size, dropped, self._dropped = len(data), self._dropped, 0
            if dropped:
                data += b'{"level":"warning","event":"log lines dropped","lines":%d}\n' % dropped
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                pass  # nobody will read it any more; the service goes on
            with self._changed:
                self._bytes -= size
                self._changed.notify_all()


class Unblocked(logging.Handler):
    """A stream's handler, by the writer of its file descriptor."""

    def __init__(self, inner: logging.StreamHandler[Any]):
        super().__init__(inner.level)
        self.filters = inner.filters
        self._writer = writer(inner.stream.fileno())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.put(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


@lru_cache(maxsize=8)
def writer(fd: int) -> Writer:
    """The one of this descriptor."""
    return Writer(fd)


def to_stdout(text: str) -> None:
    """Write whole lines to standard output, and wait for nobody."""
    try:
        writer(sys.stdout.fileno()).put(text)
    except (OSError, ValueError):  # no file: a test's, or one that is closed
        with suppress(OSError, ValueError):
            sys.stdout.write(text)


def configure(settings: Settings) -> None:
    """Give BentoML's and uvicorn's loggers our formats and level. They were configured already, so this mends them."""
    formatter = JsonLines() if as_json(settings) else Text()
    level = getattr(logging, settings.log_level.upper())
    for name in ("", "bentoml", "uvicorn.error", "circus"):
        logger = logging.getLogger(name or None)
        for handler in list(logger.handlers):
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                with suppress(OSError, ValueError):  # a stream that is no file is nobody's pipe
                    logger.removeHandler(handler)
                    handler = Unblocked(handler)
                logger.addHandler(handler)
            handler.setFormatter(formatter)
        # uvicorn and circus tell much that concerns nobody
        logger.setLevel(level if name == "bentoml" else max(level, logging.WARNING))
