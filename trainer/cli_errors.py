"""Turns the errors of a command into one line on stderr and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from artifacts.processes import interruptible
from artifacts.terminal import say
from artifacts.typer_group import NO_HOME, is_missing_home_error
from trainer.distributed import environment
from trainer.errors import TrainerError, TrainingDiverged, WorkerLost


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a user's error as one line on stderr and exit: 2, or 1 for a diverged run or a lost worker."""
    try:
        with interruptible():
            yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        say("interrupted", error=True)
        raise typer.Exit(130) from None
    except Exception as error:
        message = _explain(error)
        if message is None:
            raise
        environment.ignore_signals()
        if environment.is_first_to_report(message, unless_others=isinstance(error, WorkerLost)):
            say(f"error: {message}", error=True)
        raise typer.Exit(1 if isinstance(error, WorkerLost | TrainingDiverged) else 2) from None


def _explain(error: Exception) -> str | None:
    """Return the line for an error that a user can fix; None for a fault of ours."""
    from imagesets import ImageSetError

    if isinstance(error, TrainerError | ImageSetError):
        return str(error)
    if isinstance(error, ImportError):
        missing = isinstance(error, ModuleNotFoundError)
        hint = "pip install '.[train]' in the checkout" if missing else "is the memory or the disk full?"
        return f"{error}; {hint}"
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return "the memory is full; lower optim.batch_size. Checkpoints that were saved are kept"
    if isinstance(error, RuntimeError) and is_missing_home_error(error):
        return NO_HOME
    if isinstance(error, OSError):
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        return f"{error.strerror or error}{where}"
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether PyTorch could not allocate memory, on the CPU or on a GPU."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
