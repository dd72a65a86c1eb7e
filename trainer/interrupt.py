"""Ctrl-C while Python still imports: one line and exit code 130, in place of a traceback through half-loaded modules.

Only the standard library's lightest modules here: this is what stands guard while everything else loads.
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

LINE = b"interrupted\n"
# What asks a process to end; Windows has no SIGHUP
TERMINATION = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Guard:
    """What SIGINT, SIGTERM and SIGHUP do.

    `working` is set by a command once it reports KeyboardInterrupt in one line itself.
    """

    working = False
    ending = False  # a SIGTERM or SIGHUP was taken


def install() -> None:
    """Take SIGINT over from Python, and SIGTERM and SIGHUP from the system, unless they are ignored.

    A shell's background job may have SIGINT ignored, and `nohup` ignores SIGHUP.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    for number in TERMINATION:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> None:
    if Guard.working and not _importing(frame):
        if number in TERMINATION:  # a hangup is sent twice, and cleaning up is not to be disturbed
            if Guard.ending:
                return
            Guard.ending = True
        raise KeyboardInterrupt
    # nothing is begun yet; and an exception inside an import, of C code above all, comes out as anything but itself
    with contextlib.suppress(OSError):  # of a terminal that is gone
        os.write(2, LINE)
    os._exit(130)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
