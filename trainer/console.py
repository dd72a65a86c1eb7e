"""The console that reports a run's progress: plain text, whatever names and settings hold."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from artifacts.terminal import printable


class PlainConsole(Console):
    """A rich console that takes no markup from the text that it prints, and makes each string printable."""

    def __init__(self, **options: Any) -> None:
        """Pass `options` on to rich."""
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects as rich does, strings as printable text."""
        super().print(*(printable(one) if isinstance(one, str) else one for one in objects), **options)


def progress_console(*, quiet: bool = False) -> PlainConsole:
    """Return the console of a run or a sweep; a `quiet` one prints nothing."""
    return PlainConsole(soft_wrap=True, quiet=quiet)


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or 120 columns wide into a file or pipe."""
    console = PlainConsole(width=None if sys.stdout is not None and sys.stdout.isatty() else 120)
    console.print(table)
