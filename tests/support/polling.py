"""Wait for a condition no longer than the machine needs."""

import time
from collections.abc import Callable


def wait_until(true: Callable[[], object], seconds: float = 30.0, every: float = 0.01) -> None:
    """Poll, so that no test waits longer than the machine needs."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(every)
