"""Ctrl-C while Python still imports: one line and exit code 130, in place of a traceback through half-loaded modules.

Only the standard library's lightest modules here: this is what stands guard while everything else loads.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

LINE = b"interrupted\n"


class Guard:
    """What SIGINT does. `working` is set by a command once it can turn KeyboardInterrupt into a line of its own."""

    working = False


def install() -> None:
    """Take SIGINT over from Python, where Python has it (a background job of a shell may have it ignored)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> None:
    if Guard.working and not _importing(frame):
        raise KeyboardInterrupt
    # nothing is begun yet; and an exception inside an import, of C code above all, comes out as anything but itself
    os.write(2, LINE)
    os._exit(130)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
