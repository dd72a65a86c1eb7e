"""What the commands share: options, and failures that are one line on stderr and an exit code.

Exit codes: 0 done, 1 a threshold or check failed, 2 a user error, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from artifacts.images.resolution import Resolution, height_and_width, parse_resolution
from artifacts.processes import interruptible
from artifacts.terminal import log_to_stderr, say
from artifacts.typer_group import NO_HOME, is_missing_home_error
from evaluation.errors import CheckFailedError, EvaluationError

DataRoot = Annotated[
    Path,
    typer.Option("--data-root", envvar="DATA_ROOT", help="Folder of the downloaded datasets."),
]
CacheRoot = Annotated[
    Path | None,
    typer.Option(help="The image cache.", show_default="$ATELIER_CACHE, else ~/.cache/gan-atelier"),
]
ExtractorFile = Annotated[Path, typer.Option("--extractor", help="An extractor file.")]
ExtractorOutput = Annotated[Path, typer.Option("--output", "-o", help="The extractor file to write.")]
ServiceModel = Annotated[str | None, typer.Option(help="The service's model.", show_default="the service's default")]
Seed = Annotated[int, typer.Option(help="The first seed; image i has seed + i.", min=0)]
PIXELS = "<PIXELS>"
DEFAULT_EXTRACTOR = "Inception, if its weights are cached; else EfficientNet-Lite0 for color"
Force = Annotated[bool, typer.Option("--force", help="Use a classifier below twice chance accuracy.")]


@contextlib.contextmanager
def one_line_errors(after_interrupt: str = "") -> Iterator[None]:
    """Turn failures that a user can act on into one line on stderr and an exit code, without a traceback.

    `after_interrupt` is added to "interrupted": how to resume.
    """
    from evaluation.output_files import shorten_path
    from imagesets import ImageSetError

    log_to_stderr()
    try:
        with interruptible():
            yield
        return
    except CheckFailedError as failed:
        say(f"failed: {failed}", error=True)
        code = 1
    except (EvaluationError, ImageSetError) as error:
        say(f"error: {' '.join(str(error).split())}", error=True)
        code = 2
    except OSError as error:  # a full disk, a name that is too long, a folder that was removed
        if error.errno == errno.EPIPE:  # the reader has left, as with `| head`
            raise
        where = "" if error.filename is None else f": {shorten_path(os.fsdecode(error.filename))}"
        say(f"error: {error.strerror or error}{where}", error=True)
        code = 2
    except RuntimeError as error:
        if not is_missing_home_error(error):
            raise
        say(f"error: {NO_HOME}", error=True)
        code = 2
    except KeyboardInterrupt:
        say(f"interrupted{after_interrupt}", error=True)
        code = 130
    raise typer.Exit(code)


def finite(value: float | None) -> float | None:
    """Reject inf and nan, which click accepts as numbers and JSON cannot hold."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def resolution_within(least: int, most: int) -> Callable[[str | None], Resolution | None]:
    """Return the callback of an option that is a side in pixels or HEIGHTxWIDTH, each side from least to most."""

    def parse(value: str | None) -> Resolution | None:
        if value is None:
            return None
        try:
            found = parse_resolution(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is neither a side in pixels, such as 64, nor 64x96.") from None
        if not all(least <= side <= most for side in height_and_width(found)):
            raise typer.BadParameter(f"{found} is not in the range {least}<=x<={most}.")
        return found

    return parse


def warn(text: str) -> None:
    """Print a warning on stderr."""
    say(f"WARNING: {text}", error=True)
