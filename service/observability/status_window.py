"""The last minute of all workers, for /v1/status: requests, latencies and images per second.

Each worker keeps a ring of seconds in memory, which it shares with the other workers through a file in the folder that
`metrics.configure_multiprocess_dir` made; a single worker needs no file. Only its own worker writes to a ring, so that
no lock between processes is needed. Prometheus' counters cannot replace it: they have neither the latency of successful
requests only, nor percentiles this exact, nor who accepts connections.
"""

import ctypes
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
from service.server import runtime_folder

log = logging.getLogger("bentoml.atelier")

WINDOW_S = 60
SLOTS = WINDOW_S + 4
# Latencies are counted in bins, each 10 % wider than the one before, so percentiles are exact to 5 %.
FIRST_MS, GROWTH = 0.1, 1.1
BINS = 150  # the last one ends at 160 s
PREFIX = "status-"
CLOSED, LOADING, OPEN = 0, 1, 2  # accepts no connections yet; accepts while its models load; accepts


class _Second(ctypes.Structure):
    """Counts of one second."""

    _fields_ = (
        ("second", ctypes.c_int64),
        ("requests", ctypes.c_int64),
        ("refused", ctypes.c_int64),
        ("failed", ctypes.c_int64),
        ("images", ctypes.c_int64),
        ("latencies", ctypes.c_int64 * BINS),
    )


class _State(ctypes.Structure):
    """What the workers share: the state of one of them, and its ring of seconds."""

    _fields_ = (
        ("started_ms", ctypes.c_int64),
        ("queue_rows", ctypes.c_int64),
        ("draining", ctypes.c_int64),
        ("connections", ctypes.c_int64),
        ("seconds", _Second * SLOTS),
    )


class StatusWindow:
    """One worker's state and last minute.

    Args:
        folder: Folder that the workers share; None for a single worker.
        clock: Seconds of a monotonic clock, which all processes of a machine share.
    """

    def __init__(self, folder: Path | None = None, clock: Any = time.monotonic):
        self._folder, self._clock = folder, clock
        self._lock = threading.Lock()
        self._state = _State()
        if folder is not None:
            path = folder / f"{PREFIX}{os.getpid()}"
            try:
                path.unlink(missing_ok=True)
                runtime_folder.allocate(path, ctypes.sizeof(_State))
                with path.open("r+b") as file:
                    self._state = _State.from_buffer(mmap.mmap(file.fileno(), 0))
            except OSError as error:
                log.warning("this worker is missing from /v1/status: %s: %s", folder, error.strerror)
                self._folder = None
        self._state.started_ms = int(clock() * 1000)

    def _second(self) -> _Second:
        """Return the counts of the current second, cleared if they are of an earlier round."""
        now = int(self._clock())
        seconds = self._state.seconds
        if seconds[now % SLOTS].second != now:
            seconds[now % SLOTS] = _Second(now)
        second: _Second = seconds[now % SLOTS]
        return second

    def count_request(self, status: int, seconds: float) -> None:
        """Count a request for images; only the latency of a 200 is counted."""
        with self._lock:
            second = self._second()
            second.requests += 1
            if status in (429, 503):
                second.refused += 1
            elif status >= 500:
                second.failed += 1
            elif status == 200:
                second.latencies[_bin(seconds)] += 1

    def count_images(self, rows: int) -> None:
        """Count generated images."""
        with self._lock:
            self._second().images += rows

    def count_queued(self, rows: int) -> None:
        """Count rows that begin to wait, or, if negative, that no longer wait."""
        with self._lock:
            self._state.queue_rows += rows

    def accept_connections(self, loading: bool) -> None:
        """Announce that this worker accepts connections, perhaps while its models still load."""
        self._state.connections = LOADING if loading else OPEN

    def others_accept(self) -> bool:
        """Return whether other workers accept connections or soon will: the lowest pid of those that wait is first."""
        return any(not o.draining and (o.connections != CLOSED or pid < os.getpid()) for pid, o in self._others())

    def others_load(self) -> bool:
        """Return whether other workers accept connections while their models still load."""
        return any(not other.draining and other.connections == LOADING for _, other in self._others())

    def drain(self) -> None:
        """Announce that this worker stops."""
        self._state.draining = 1

    def all_drain(self) -> bool:
        """Return whether every living worker is stopping."""
        return all(state.draining for state in self._all())

    def report(self) -> dict[str, Any]:
        """Return the last minute of all living workers, as in /v1/status."""
        now = self._clock()
        states = self._all()
        seconds = [s for state in states for s in state.seconds if now - WINDOW_S < s.second <= now]
        requests, images = sum(s.requests for s in seconds), sum(s.images for s in seconds)
        latencies = [sum(counts) for counts in zip(*(s.latencies for s in seconds), strict=True)]
        uptime = now - min(state.started_ms for state in states) / 1000
        span = max(1.0, min(WINDOW_S, uptime))
        return {
            "workers": sum(state.connections != CLOSED for state in states),
            "uptime_s": round(uptime, 1),
            "queue_rows": sum(state.queue_rows for state in states),
            "window_s": WINDOW_S,
            "requests": requests,
            "refused": sum(s.refused for s in seconds),
            "failed": sum(s.failed for s in seconds),
            "requests_per_s": round(requests / span, 2),
            "images": images,
            "images_per_s": round(images / span, 2),
            "latency_ms": {f"p{p}": percentile(latencies, p) for p in (50, 95, 99)},
        }

    def _all(self) -> list[_State]:
        return [self._state, *(state for _, state in self._others())]

    def _others(self) -> Iterator[tuple[int, _State]]:
        """Yield the pid and a copy of the state of every other living worker."""
        for pid, path in living_files(self._folder, PREFIX):
            if pid != os.getpid():
                with suppress(FileNotFoundError, ValueError):  # removed since it was listed; not yet whole
                    yield pid, _State.from_buffer_copy(path.read_bytes())


def living_files(folder: Path | None, prefix: str, suffix: str = "") -> list[tuple[int, Path]]:
    """List the files `<prefix><pid><suffix>` of living processes, and remove those of dead ones."""
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
    """Return the p-th percentile (nearest rank) in ms of latencies counted by bins; None if there are none."""
    rank = math.ceil(sum(counts) * p / 100)
    for i, count in enumerate(counts):
        rank -= count
        if rank <= 0 < count:
            return float(round(FIRST_MS * GROWTH ** (i - 0.5), 3))
    return None
