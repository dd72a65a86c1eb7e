"""The command line's frame: the app, options that several commands share, and how failures are told.

Exit codes: 0 done, 1 a threshold or check failed, 2 the user's mistake, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from evaluation.errors import CheckFailed, EvaluationError

# click's own or typer's copy of it, by the version of typer; both are below what typer exports
UsageError: Any = typer.BadParameter.__mro__[1]


class OneLineErrors(TyperGroup):
    """Commands whose mistaken options are told in one line, as every other mistake is, not in a box of five."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        with contextlib.suppress(AttributeError):  # a name of bytes that are no text is told, as far as it can be
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                print(error.ctx.get_help(), file=sys.stderr)
            else:
                print(f"error: {' '.join(error.format_message().split())}", file=sys.stderr)
            sys.exit(error.exit_code)
        except typer.Abort:
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # in 80 columns rich's table cuts the names of options
    help="Score images of a running service, a generator, a checkpoint or any files against real ones.",
)

DataRoot = Annotated[
    Path,
    typer.Option("--data-root", envvar="DATA_ROOT", help="Where MNIST, CIFAR-10 and CelebA lie or are downloaded to."),
]
CacheRoot = Annotated[Path | None, typer.Option(help="The image cache; default: $ATELIER_CACHE or ~/.cache.")]


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Failures a person can act on are one line on stderr and an exit code, never a traceback."""
    from evaluation.atomic import shortened
    from imagesets import ImageSetError

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        yield
    except CheckFailed as failed:
        print(f"failed: {failed}", file=sys.stderr)
        raise typer.Exit(1) from None
    except (EvaluationError, ImageSetError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from None
    except OSError as error:  # the disk, a name that is too long, a folder that went away: what it says is the line
        if error.errno == errno.EPIPE:  # nobody reads on, as with `| head`
            raise
        what = "" if error.filename is None else f": {shortened(os.fsdecode(error.filename))}"
        print(f"error: {error.strerror or error}{what}", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        print("interrupted; `score` with the same --output goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None


def finite(value: float | None) -> float | None:
    """For an option: click takes inf and nan for numbers, and JSON cannot say them."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def warn(text: str) -> None:
    print(f"WARNING: {text}", file=sys.stderr)
