"""What cannot be measured here is told in one line, and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def attempt(name: str, failed: dict[str, str]) -> Iterator[None]:
    """Whatever fails within is a line of output and an entry of `failed`. An interruption is none of that."""
    try:
        yield
    except (Exception, SystemExit) as error:
        failed[name] = in_a_line(error)
        print(f"{name}: not measured: {failed[name]}", flush=True)


def in_a_line(error: BaseException) -> str:
    """What happened, and of a text of several lines (a program's output) the first and the last."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " … ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else ""
    if isinstance(error, SystemExit):
        return said or "it gave up"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
