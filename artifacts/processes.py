"""Child processes that run our modules and end with their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG = 1  # linux/prctl.h
# What asks a process to end; Windows has no SIGHUP
TERMINATION = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def python_module(module: str) -> list[str]:
    """Return the command that runs `module` with this Python; pass `child_environment()` with it.

    The working directory is not on the module path (`-P`), so that a user's `trainer.py` or `random.py` is not run in
    the place of ours or of the standard library's.
    """
    return [sys.executable, "-P", "-m", module]


def child_environment() -> dict[str, str]:
    """Return this process's environment for a child that runs our modules.

    Grandchildren leave the working directory off the module path too. A checkout that is not installed is found
    where it is.
    """
    environment = dict(os.environ, PYTHONSAFEPATH="1")
    if not {"site-packages", "dist-packages"} & set(ROOT.parts):
        paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        if str(ROOT) not in paths:
            environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *paths])
    return environment


def end_with(parent: int, number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process the signal `number` when its parent ends, even by SIGKILL. Linux only.

    Args:
        parent: The parent's process id, as the parent itself knew it: if it is gone already, exit with code 130.
        number: The signal.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise SystemExit(130)


def be_killed_first(score: int = 1000) -> None:
    """Have the kernel kill this process before others where memory runs out. Linux only.

    Args:
        score: What is added to its share of the memory, in thousandths, 0 to 1000.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(score), encoding="ascii")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise KeyboardInterrupt once, as Ctrl-C does, so that temporary files are removed.

    A signal that is ignored (`nohup`) or has a handler is left alone. A lost connection often sends SIGHUP twice, and
    systemd sends it after SIGTERM, so both are ignored from the first one on.
    """
    ours = [number for number in TERMINATION if signal.getsignal(number) is signal.SIG_DFL] if _is_main_thread() else []

    raised: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        raised.append(number)
        if len(raised) == 1:
            raise KeyboardInterrupt

    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in ours if not raised else ():  # the process is about to exit, and nothing disturbs that
            signal.signal(number, signal.SIG_DFL)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def is_alive(pid: int) -> bool:
    """Return whether a process with this number runs, also one of another user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
