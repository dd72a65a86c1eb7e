"""Text and progress for any terminal, pipe or log file, whatever its encoding and whatever a file's name contains."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import logging
import os
import re
import select
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, TextIO

# What we write and an old encoding may lack. Everything else that it lacks becomes a question mark.
PLAIN = {
    "→": "->",
    "←": "<-",
    "…": "...",
    "−": "-",
    "–": "-",
    "×": "x",
    "≥": ">=",
    "≤": "<=",
    "±": "+-",
    "·": ".",
    "∞": "inf",
    "²": "2",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}
# Zl and Zp are line and paragraph separators; Cf holds the marks that reverse the direction of text
HIDDEN = {"Cc", "Cf", "Zl", "Zp", "Cs"}
# Joiners are part of words in several scripts and of emoji
HARMLESS = {"\u200c", "\u200d", "\u00ad"}
PROGRESS_LINE_EVERY_S = 10.0
NO_READER = {errno.EPIPE, errno.EIO}


def printable(value: object) -> str:
    r"""Return text as one line without anything that a terminal acts on.

    Control characters, line breaks, escape sequences and direction marks become escapes such as `\n` and `\x1b`. A
    byte of a file name that is not UTF-8 becomes `\xff`.
    """
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in HARMLESS or unicodedata.category(character) not in HIDDEN:
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def valid_text(text: str) -> str:
    """Return text that UTF-8 can hold: the bytes of a file name that is not UTF-8 become replacement characters."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "\ufffd", text)


def say(value: object, *, error: bool = False) -> None:
    """Print one line on stdout, or on stderr if `error`, with the value made printable."""
    print(printable(value), file=sys.stderr if error else sys.stdout, flush=True)


def encodable(problem: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks; a handler for `codecs.register_error`."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    found = problem.object[problem.start : problem.end]
    return "".join(_encodable(character) for character in found), problem.end


def _encodable(character: str) -> str:
    if unicodedata.category(character) in HIDDEN:
        return _shown(character).encode("ascii", "replace").decode("ascii")
    base = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return PLAIN.get(character) or base or "?"


class SteadyFile(io.RawIOBase):
    """A file descriptor to write to whose failures do not end the program that reports on its work.

    The terminal of a lost connection, a closed pipe or a full disk must not cost the run that prints a line. After
    the first failure everything is discarded, and `failure` holds the reason.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor`, which stays open when this object is closed."""
        self.name = descriptor
        self._descriptor = descriptor
        self.failure: OSError | None = None

    def writable(self) -> bool:
        """Return True: it is a file to write to."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def write(self, data: Any) -> int:
        """Write all of `data`, or discard it after a failure; return its length."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.failure is None:
            try:
                done += os.write(self._descriptor, view[done:])
            except BlockingIOError:  # a pipe in non-blocking mode, such as Node.js gives its children
                select.select([], [self._descriptor], [], 1.0)
            except OSError as error:
                self.failure = error
        return len(view)


def prepare_streams() -> None:
    """Make stdin, stdout and stderr safe for a command line; call it once, before anything is printed.

    A closed stream becomes the null device, so that no file that is opened later takes its number. A character that the
    encoding lacks is replaced, and a failed write is discarded; see `SteadyFile`. Streams that a test or a notebook
    has put in place of the process's own are left alone.
    """
    codecs.register_error("atelier-plain", encodable)
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with_null = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if with_null != number:
                os.dup2(with_null, number)
                os.close(with_null)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _steady(sys.stdout, 1)
    sys.stderr = _steady(sys.stderr, 2)


def _steady(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        encoding = "utf-8"
    elif type(stream) is not io.TextIOWrapper or isinstance(getattr(stream.buffer, "raw", None), SteadyFile):
        return stream
    else:
        try:
            if stream.fileno() != number:
                return stream
            stream.flush()
        except (OSError, ValueError):
            return stream
        encoding = stream.encoding
    raw = SteadyFile(number)
    buffer: Any = io.BufferedWriter(raw)
    lines = raw.isatty() or number == 2 or bool(stream is not None and stream.write_through)
    return io.TextIOWrapper(buffer, encoding=encoding, errors="atelier-plain", line_buffering=lines)


def output_failure() -> OSError | None:
    """Return why stdout could not be written, or None. A reader that has left, such as `head`, is not a failure."""
    stream = sys.stdout
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if not isinstance(raw, SteadyFile):
        return None
    try:
        stream.flush()
    except (OSError, ValueError):
        return None
    return None if raw.failure is None or raw.failure.errno in NO_READER else raw.failure


def exit_code(code: int = 0) -> int:
    """Return the code to exit with: `code`, or 2 in the place of 0 if the output was lost, which is reported."""
    lost = output_failure()
    if lost is not None:
        say(f"error: the output could not be written: {lost.strerror}", error=True)
    return code or 2 * (lost is not None)


class PrintableFormatter(logging.Formatter):
    """Log records as printable lines. A traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (overrides)
        """Return the record's line, without control characters."""
        record.message = printable(record.message)
        return super().formatMessage(record)


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Write log records to stderr, one printable line each, unless logging is set up already."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(levelname)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(level)


@contextlib.contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show progress while the block runs.

    Args:
        description: What is being done.
        total: Number of steps, such as images.
        done: Steps that an earlier run did.

    Yields:
        A function to call with the number of steps that were just done.
    """
    if not sys.stderr.isatty():
        yield _plain_lines(description, total, done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(description), total=total, completed=done)
        yield lambda steps: bar.advance(task, steps)


def _plain_lines(description: str, total: int, done: int) -> Callable[[int], None]:
    printed = time.monotonic()

    def advance(steps: int) -> None:
        nonlocal done, printed
        done += steps
        if time.monotonic() - printed >= PROGRESS_LINE_EVERY_S:
            printed = time.monotonic()
            say(f"{description}: {done}/{total}", error=True)

    return advance
