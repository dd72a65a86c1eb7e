"""Threads for inference: as many batches run side by side as there are lanes, of all the models together."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger("bentoml.atelier")


class Lanes:
    """`count` threads that take steps in the order they were submitted.

    Batches that run side by side, each on its share of the cores, need not meet at the end of every layer as the
    threads of one batch must, and what else the cores do delays one of them and not all. A batch that is alone is
    better run on all the cores; `enter` tells.
    """

    def __init__(self, count: int):
        self.count = count
        self._pool = ThreadPoolExecutor(count, "inference")
        self._lock = threading.Lock()
        self._pending = 0
        self._running = 0

    @property
    def wanted(self) -> bool:
        """Whether a step waits for a thread."""
        return self._pending > 0

    def submit(self, step: Callable[[], None]) -> None:
        """RuntimeError: the lanes are closed."""
        with self._lock:
            self._pending += 1
        self._pool.submit(self._take, step)

    def enter(self) -> int:
        """A batch begins: how many now run, it among them. `leave` must follow."""
        with self._lock:
            self._running += 1
            return self._running

    def leave(self) -> None:
        with self._lock:
            self._running -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _take(self, step: Callable[[], None]) -> None:
        with self._lock:
            self._pending -= 1
        try:
            step()
        except Exception:
            log.exception("a step of inference failed")
