"""The service's log: JSON lines for machines, short lines for people at a terminal."""

import json
import logging
import sys
import time
from contextvars import ContextVar

from service.settings import Settings

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


def configure(settings: Settings) -> None:
    """Give BentoML's and uvicorn's loggers our formats and level. They were configured already, so this mends them."""
    formatter = JsonLines() if as_json(settings) else Text()
    level = getattr(logging, settings.log_level.upper())
    for name in ("", "bentoml", "uvicorn.error", "circus"):
        logger = logging.getLogger(name or None)
        for handler in logger.handlers:
            handler.setFormatter(formatter)
        # uvicorn and circus tell much that concerns nobody
        logger.setLevel(level if name == "bentoml" else max(level, logging.WARNING))
