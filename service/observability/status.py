"""What the service is doing now: the last minute's requests, latency and images, of all workers together.

Each worker keeps a ring of seconds in memory that it shares with the others by a file (`metrics.place` made the
folder); one worker alone needs no file. Nothing is locked between processes: a worker writes its own ring alone.
"""

import logging
import math
import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from artifacts.processes import is_alive
from service import runtime_folder

log = logging.getLogger("bentoml.atelier")

WINDOW_S = 60
# latencies are counted in bins that are each 10% wider than the one before: a percentile is exact to 5%
FIRST_MS, GROWTH = 0.1, 1.1
BINS = 150  # the last one ends at 160 s

_STARTED, _QUEUE_ROWS, _DRAINING, _DOOR, _HEADER = 0, 1, 2, 3, 4
_SHUT, _LOADING, _OPEN = 0, 1, 2  # of the door: lets no connection in yet; does, while it loads; does
_SECOND, _REQUESTS, _REFUSED, _FAILED, _IMAGES, _BINS = 0, 1, 2, 3, 4, 5
_SLOT = _BINS + BINS
_SLOTS = WINDOW_S + 4
_WORDS = _HEADER + _SLOTS * _SLOT
_PREFIX = "status-"


class Recent:
    """One worker's last minute. `folder`: where the workers meet; None: this worker is alone."""

    def __init__(self, folder: Path | None = None, clock: Any = time.monotonic):
        self._folder, self._clock = folder, clock  # a machine's processes share the monotonic clock
        self._lock = threading.Lock()
        if folder is None:
            self._map = mmap.mmap(-1, 8 * _WORDS)
        else:
            path = folder / f"{_PREFIX}{os.getpid()}"
            try:
                path.unlink(missing_ok=True)
                runtime_folder.allocate(path, 8 * _WORDS)
                with path.open("r+b") as file:
                    self._map = mmap.mmap(file.fileno(), 8 * _WORDS)
            except OSError as error:
                log.warning("this worker is missing from /v1/status: %s: %s", folder, error.strerror)
                self._folder, self._map = None, mmap.mmap(-1, 8 * _WORDS)
        self._words = memoryview(self._map).cast("q")
        self._words[_STARTED] = int(clock() * 1000)

    def _slot(self) -> int:
        """Where this second's counts begin; a second of the last round is emptied first."""
        second = int(self._clock())
        at = _HEADER + second % _SLOTS * _SLOT
        if self._words[at] != second:
            self._words[at : at + _SLOT] = memoryview(bytes(8 * _SLOT)).cast("q")
            self._words[at] = second
        return at

    def answered(self, status: int, seconds: float) -> None:
        """Count a request for images; only a 200 counts with its latency."""
        with self._lock:
            at = self._slot()
            words = self._words
            words[at + _REQUESTS] += 1
            if status in (429, 503):
                words[at + _REFUSED] += 1
            elif status >= 500:
                words[at + _FAILED] += 1
            elif status == 200:
                words[at + _BINS + _bin(seconds)] += 1

    def images(self, rows: int) -> None:
        with self._lock:
            self._words[self._slot() + _IMAGES] += rows

    def queued(self, rows: int) -> None:
        """Rows that began to wait (or, below 0, that wait no more)."""
        with self._lock:
            self._words[_QUEUE_ROWS] += rows

    def let_in(self, loading: bool) -> None:
        """From now on this worker takes connections, while its models load or not."""
        self._words[_DOOR] = _LOADING if loading else _OPEN

    def others_answer(self) -> bool:
        """Whether others take connections, or are about to: of those that take none yet, the lowest pid goes first."""
        return any(not head[_DRAINING] and (head[_DOOR] or pid < os.getpid()) for pid, head in self._others(_HEADER))

    def others_load(self) -> bool:
        """Whether others take connections while their models still load."""
        return any(not head[_DRAINING] and head[_DOOR] == _LOADING for _, head in self._others(_HEADER))

    def drain(self) -> None:
        self._words[_DRAINING] = 1

    def all_drain(self) -> bool:
        """Whether every worker that lives is stopping."""
        return all(ring[_DRAINING] for ring in self._rings())

    def report(self) -> dict[str, Any]:
        """The last minute over all workers that live, as /v1/status tells it."""
        now = self._clock()
        rings = list(self._rings())
        totals = [0] * _SLOT
        for ring in rings:
            for at in range(_HEADER, _WORDS, _SLOT):
                if now - WINDOW_S < ring[at] <= now:
                    totals = [a + b for a, b in zip(totals, ring[at : at + _SLOT], strict=True)]
        uptime = now - min(ring[_STARTED] for ring in rings) / 1000
        span = max(1.0, min(WINDOW_S, uptime))
        return {
            "workers": sum(ring[_DOOR] != _SHUT for ring in rings),
            "uptime_s": round(uptime, 1),
            "queue_rows": sum(ring[_QUEUE_ROWS] for ring in rings),
            "window_s": WINDOW_S,
            "requests": totals[_REQUESTS],
            "refused": totals[_REFUSED],
            "failed": totals[_FAILED],
            "requests_per_s": round(totals[_REQUESTS] / span, 2),
            "images": totals[_IMAGES],
            "images_per_s": round(totals[_IMAGES] / span, 2),
            "latency_ms": {f"p{p}": percentile(totals[_BINS:], p) for p in (50, 95, 99)},
        }

    def _rings(self) -> Iterator[list[int]]:
        yield self._words.tolist()
        for _, ring in self._others(_WORDS):
            yield ring

    def _others(self, words: int) -> Iterator[tuple[int, list[int]]]:
        """The pid of every other worker that lives, and the first words of its ring."""
        for pid, path in living(self._folder, _PREFIX):
            # another may find a dead one's first, and remove it
            with suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
                content = file.read(8 * words) if pid != os.getpid() else b""
                if len(content) == 8 * words:
                    yield pid, memoryview(content).cast("q").tolist()


def living(folder: Path | None, prefix: str, suffix: str = "") -> list[tuple[int, Path]]:
    """The files `<prefix><pid><suffix>` of processes that live; those of the dead are removed."""
    found = []
    for path in sorted(folder.glob(f"{prefix}*{suffix}")) if folder else ():
        pid = int(path.name.removeprefix(prefix).removesuffix(suffix))
        if is_alive(pid):
            found.append((pid, path))
        else:
            path.unlink(missing_ok=True)
    return found


def _bin(seconds: float) -> int:
    ms = seconds * 1000
    return 0 if ms <= FIRST_MS else min(BINS - 1, 1 + int(math.log(ms / FIRST_MS, GROWTH)))


def percentile(counts: list[int], p: float) -> float | None:
    """The p-th percentile (nearest rank) in ms of latencies counted by bins; None: there are none."""
    left = math.ceil(sum(counts) * p / 100)
    if not left:
        return None
    for i, count in enumerate(counts):
        left -= count
        if left <= 0:
            return round(FIRST_MS * GROWTH ** (i - 0.5), 3)
    raise AssertionError("unreachable: the counts sum to more than is left")
