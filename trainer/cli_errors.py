"""Turns the errors of a command into one line on stderr and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from artifacts.command_line import NO_HOME, is_missing_home_error
from artifacts.processes import interruptible
from artifacts.terminal import say


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a user's error as one line on stderr and exit: 2, or 1 for a diverged run or a lost worker."""
    from imagesets import ImageSetError
    from trainer.errors import TrainerError, TrainingDiverged, WorkerLost

    try:
        with interruptible():
            yield
    except (WorkerLost, TrainingDiverged) as error:
        _print_error(str(error), unless_others=isinstance(error, WorkerLost))
        raise typer.Exit(1) from None
    except (TrainerError, ImageSetError) as error:
        _print_error(str(error))
        raise typer.Exit(2) from None
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        hint = "pip install 'gan-atelier[train]'" if missing else "is the memory or the disk full?"
        _print_error(f"{error}; {hint}")
        raise typer.Exit(2) from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or _is_out_of_memory(error):
            _print_error("the memory is full; lower optim.batch_size. Checkpoints that were saved are kept")
        elif is_missing_home_error(error):
            _print_error(NO_HOME)
        else:
            raise
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        say("interrupted", error=True)
        raise typer.Exit(130) from None
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        _print_error(f"{error.strerror or error}{where}")
        raise typer.Exit(2) from None


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether PyTorch could not allocate memory, on the CPU or on a GPU."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _print_error(message: str, *, unless_others: bool = False) -> None:
    """Print an error of several processes once; `unless_others`: not if another process printed any."""
    from trainer.distributed import environment

    environment.ignore_signals()
    if environment.is_first_to_report(message, unless_others=unless_others):
        say(f"error: {message}", error=True)
