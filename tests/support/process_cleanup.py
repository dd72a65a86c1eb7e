"""A test session leaves no process and no temporary folder behind, however it ends."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

OWNER = "TESTS_TMPDIR_OWNER"  # the process that made the folder, and that removes it
PREFIX = "atelier-tests-"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent ends; for `preexec_fn=` of what a test starts."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def own_temporary_folder() -> None:
    """Give this session a folder for temporary files, pytest's included, and clean up at its end.

    The processes of `pytest -n` share the folder of the process that started them. To keep the folders of failed tests,
    set PYTEST_DEBUG_TEMPROOT to another folder.
    """
    if OWNER in os.environ:
        return
    shared = Path(tempfile.gettempdir())
    remove_left_over(shared)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=shared))
    os.environ |= {OWNER: str(os.getpid()), "TMPDIR": str(folder)}
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))
    tempfile.tempdir = None
    atexit.register(clean_up, folder, os.getpid())


def clean_up(folder: Path, owner: int) -> None:
    """End a session's processes and remove its folder, unless this is a fork of the process that made it."""
    if os.getpid() == owner:
        kill_processes_of(owner)
        shutil.rmtree(folder, ignore_errors=True)


def kill_processes_of(owner: int) -> None:
    """Kill every process that a session started and that still runs: those that inherited its environment."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or it is another user's
            if int(entry.name) != os.getpid() and f"{OWNER}={owner}".encode() in _environment(entry):
                os.kill(int(entry.name), signal.SIGKILL)


def _environment(process: Path) -> list[bytes]:
    return (process / "environ").read_bytes().split(b"\0")


def remove_left_over(shared: Path) -> None:
    """Remove the folders, and end the processes, of sessions that were killed."""
    for folder in shared.glob(f"{PREFIX}*"):
        made_by = re.match(rf"{PREFIX}(\d+)-", folder.name)
        if made_by is None:
            continue
        try:
            os.kill(int(made_by[1]), 0)
        except ProcessLookupError:
            kill_processes_of(int(made_by[1]))
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # it runs, as another user
            continue


def stop_on_signals() -> None:
    """Have Ctrl-C, SIGTERM and SIGHUP end the session in the same way: each fixture stops what it started.

    A shell starts what it runs in the background with SIGINT ignored, and children inherit that, so the programs that
    tests interrupt would ignore it too.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError):  # not the main thread
            if number == signal.SIGINT or signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _interrupt)


_interrupted: list[int] = []


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _interrupted.append(number)
    if len(_interrupted) == 1 or number == signal.SIGINT:  # SIGTERM after another signal does not disturb the fixtures
        raise KeyboardInterrupt
