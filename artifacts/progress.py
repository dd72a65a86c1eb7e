"""A progress bar on stderr in a terminal; elsewhere a plain line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from artifacts.terminal import printable, say

LINE_EVERY_S = 10.0


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
        if time.monotonic() - printed >= LINE_EVERY_S:
            printed = time.monotonic()
            say(f"{description}: {done}/{total}", error=True)

    return advance
