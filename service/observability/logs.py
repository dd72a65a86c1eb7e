"""The service's log: JSON lines for programs, short lines for a terminal.

A thread writes the lines (`QueueListener`), so that a pipe without a reader never blocks a request. What waits for it
is bounded: further lines are dropped and counted.
"""

import atexit
import json
import logging
import os
import queue
import random
import re
import sys
import time
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from logging.handlers import QueueHandler, QueueListener

from service.settings import Settings

MAX_QUEUED = 1000  # records
EXIT_WAIT_S = 1.0  # for the queued records
_VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")

current_request: ContextVar[str | None] = ContextVar("current_request", default=None)  # id of the request in work


def request_id(given: bytes | None) -> str:
    """Return the client's X-Request-Id if it is valid (up to 128 letters, digits and ._:/+=-), else a new one."""
    if given is not None and _VALID_REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"{random.getrandbits(64):016x}"


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time (UTC), level, logger, event, request_id, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": f"{utc(int(record.created))}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if request := current_request.get():
            line["request_id"] = request
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Formats a record as a short line for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        request = current_request.get()
        line = f"{utc(int(record.created))[11:]} {record.levelname.lower()} {record.getMessage()}"
        line += f" [{request}]" if request else ""
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


@lru_cache(maxsize=1)
def utc(second: int) -> str:
    """Return a time as ISO 8601, without a fraction."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


class DroppingQueueHandler(QueueHandler):
    """Queues formatted records for a listener's thread; drops and counts them while the queue is full."""

    dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a record, after a line on those that were dropped."""
        try:
            if self.dropped:
                self.queue.put_nowait(as_record(dropped_line("log lines dropped", self.dropped)))
                self.dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _DescriptorListener(QueueListener):
    """Writes formatted records to a file descriptor."""

    def __init__(self, records: "queue.Queue[logging.LogRecord]", descriptor: int):
        super().__init__(records)
        self._descriptor = descriptor

    def handle(self, record: logging.LogRecord) -> None:
        """Write a record; only the listener's thread waits for the reader."""
        data = f"{record.getMessage()}\n".encode(errors="backslashreplace")
        with suppress(OSError):  # the reader is gone, which must not stop the service
            while data:
                data = data[os.write(self._descriptor, data) :]


def as_record(lines: str) -> logging.LogRecord:
    """Return a record whose message is `lines`, already formatted."""
    return logging.makeLogRecord({"msg": lines})


def dropped_line(event: str, count: int) -> str:
    """Return the JSON line that says how many lines were dropped."""
    return json.dumps({"level": "warning", "event": event, "lines": count})


@lru_cache(maxsize=8)
def queue_for(descriptor: int) -> "queue.Queue[logging.LogRecord]":
    """Start the thread that writes to a file descriptor, and return its queue."""
    records: queue.Queue[logging.LogRecord] = queue.Queue(MAX_QUEUED)
    _DescriptorListener(records, descriptor).start()
    atexit.register(_flush, records)
    return records


def _flush(records: "queue.Queue[logging.LogRecord]") -> None:
    """Wait until all queued records are written, but no longer than EXIT_WAIT_S."""
    with records.all_tasks_done:
        records.all_tasks_done.wait_for(lambda: not records.unfinished_tasks, EXIT_WAIT_S)


def uses_json(settings: Settings) -> bool:
    """Return whether the log has JSON lines; `auto` means text at a terminal only."""
    return settings.log_format == "json" or (settings.log_format == "auto" and not sys.stdout.isatty())


def configure(settings: Settings) -> None:
    """Give the loggers of BentoML, uvicorn and circus, which are configured already, our format, level and thread."""
    formatter = JsonFormatter() if uses_json(settings) else TextFormatter()
    level = getattr(logging, settings.log_level.upper())
    for name in ("", "bentoml", "uvicorn.error", "circus"):
        logger = logging.getLogger(name or None)
        for handler in list(logger.handlers):
            handler.setFormatter(formatter)
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                with suppress(OSError, ValueError):  # a stream without a file descriptor cannot block
                    queueing = DroppingQueueHandler(queue_for(handler.stream.fileno()))
                    queueing.setFormatter(formatter)
                    queueing.setLevel(handler.level)
                    queueing.filters = handler.filters
                    logger.removeHandler(handler)
                    logger.addHandler(queueing)
        # Messages of uvicorn and circus below a warning are of no use to an operator.
        logger.setLevel(level if name == "bentoml" else max(level, logging.WARNING))
