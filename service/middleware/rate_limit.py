"""A rate limit for each client, shared by the worker processes."""

import hashlib
import ipaddress
import logging
import math
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from service.errors import ApiError
from service.middleware.client_address import parse_address
from service.server.posix import fcntl

log = logging.getLogger("bentoml.atelier")

SLOTS, PROBES = 8192, 8


class Limiter:
    """Token buckets as the generic cell rate algorithm (ITU-T I.371): of each client the time is kept at which its
    bucket is full again, and a request moves it on by 1 / `rate`.

    The table is in memory that the workers share by a file in `folder` (None: one worker). Of a client that has no
    slot the bucket is full; a new one takes the slot of the client whose bucket is full soonest.
    """

    def __init__(self, rate: float, burst: int, folder: Path | None = None, clock: Any = time.monotonic_ns):
        self._interval = int(1e9 / rate)
        self._slack = (burst - 1) * self._interval
        self._clock = clock  # a machine's processes share the monotonic clock
        self._file: int | None = None
        size = SLOTS * 16
        if folder is None:
            table = mmap.mmap(-1, size)
        else:
            self._file = os.open(folder / "limits", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(self._file, 0, size)  # the others' marks stay
                table = mmap.mmap(self._file, size)
            except OSError as error:
                log.warning("this worker counts requests by itself: %s: %s", folder, error.strerror)
                os.close(self._file)
                self._file, table = None, mmap.mmap(-1, size)
        self._words = memoryview(table).cast("Q")

    def take(self, client: str) -> float:
        """One request of `client`: 0.0 if it may go on, else the seconds until it may."""
        mark = _mark(client)
        now = self._clock()
        with self._locked():
            at = self._slot(mark)
            full = max(now, self._words[at + 1]) if self._words[at] == mark else now
            wait = full - self._slack - now
            if wait > 0:
                return wait / 1e9
            self._words[at], self._words[at + 1] = mark, full + self._interval
        return 0.0

    def _slot(self, mark: int) -> int:
        places = [(mark + i) % SLOTS * 2 for i in range(PROBES)]
        for at in places:
            if self._words[at] == mark:
                return at
        return min(places, key=lambda at: self._words[at + 1])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The kernel lets go of the lock of a process that dies."""
        if self._file is None:
            yield
            return
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


@lru_cache(maxsize=4096)
def _mark(client: str) -> int:
    """64 bits that stand for a client, never 0."""
    return int.from_bytes(hashlib.blake2b(client.encode(), digest_size=8).digest()) or 1


def address(host: str) -> str:
    """Return the name under which the client at an address is counted.

    One household has a whole IPv6 /64, so a /64 counts as one client. Link-local addresses of one network segment
    share theirs, so each is a client. An IPv6 address that stands for an IPv4 address counts as that address: all
    IPv4 clients of a socket that listens on `::` would otherwise be one.
    """
    return _network(host[:64])


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    parsed = parse_address(host)
    if parsed is None:
        return host
    if parsed.version == 4 or parsed.is_link_local:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def too_many(wait: float) -> ApiError:
    message = f"more requests than this service allows; try again in {wait:.3g} s"
    return ApiError(429, "rate_limited", message, headers={"Retry-After": str(math.ceil(wait))})
