"""A progress bar on stderr where a person looks on; a few plain lines where nobody does."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from artifacts.terminal import printable, say

PLAIN_EVERY_S = 10.0


@contextlib.contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Gives `advance(images)`; `done` were seen before."""
    if not sys.stderr.isatty():
        yield _plain(description, total, done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(description), total=total, completed=done)
        yield lambda images: bar.advance(task, images)


def _plain(description: str, total: int, done: int) -> Callable[[int], None]:
    told = time.monotonic()

    def advance(images: int) -> None:
        nonlocal done, told
        done += images
        if time.monotonic() - told >= PLAIN_EVERY_S:
            told = time.monotonic()
            say(f"{description}: {done}/{total}", error=True)

    return advance
