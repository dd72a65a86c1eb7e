"""The command line's frame: the app, options that several commands share, and how failures are told.

Exit codes: 0 done, 1 a threshold or check failed, 2 the user's mistake, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from artifacts.command_line import NO_HOME, OneLineErrors, is_homeless
from artifacts.processes import interruptible
from artifacts.terminal import log_to_stderr, say
from evaluation.errors import CheckFailed, EvaluationError

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

    log_to_stderr()
    try:
        with interruptible():
            yield
    except CheckFailed as failed:
        say(f"failed: {failed}", error=True)
        raise typer.Exit(1) from None
    except (EvaluationError, ImageSetError) as error:
        say(f"error: {' '.join(str(error).split())}", error=True)
        raise typer.Exit(2) from None
    except OSError as error:  # the disk, a name that is too long, a folder that went away: what it says is the line
        if error.errno == errno.EPIPE:  # nobody reads on, as with `| head`
            raise
        what = "" if error.filename is None else f": {shortened(os.fsdecode(error.filename))}"
        say(f"error: {error.strerror or error}{what}", error=True)
        raise typer.Exit(2) from None
    except RuntimeError as error:
        if not is_homeless(error):
            raise
        say(f"error: {NO_HOME}", error=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        say("interrupted; `score` with the same --output goes on from here", error=True)
        raise typer.Exit(130) from None


def finite(value: float | None) -> float | None:
    """For an option: click takes inf and nan for numbers, and JSON cannot say them."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def warn(text: str) -> None:
    """Print a warning on stderr."""
    say(f"WARNING: {text}", error=True)
