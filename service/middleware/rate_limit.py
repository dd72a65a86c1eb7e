"""A rate limit per client, shared by the worker processes."""

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
from service.server.posix_modules import fcntl

log = logging.getLogger("bentoml.atelier")

SLOTS, PROBES = 8192, 8


class RateLimiter:
    """Token buckets as the generic cell rate algorithm (ITU-T I.371).

    For each client, a table holds the time at which its bucket is full again; a request delays it by 1 / `rate`. The
    bucket of a client without a slot is full; a new client takes the slot of the one whose bucket is full soonest.

    Args:
        rate: Requests per second.
        burst: Requests at once.
        folder: Folder of the table, which the workers share; None for a single worker.
        clock: Nanoseconds of a monotonic clock, which all processes of a machine share.
    """

    def __init__(self, rate: float, burst: int, folder: Path | None = None, clock: Any = time.monotonic_ns):
        self._interval = int(1e9 / rate)
        self._slack = (burst - 1) * self._interval
        self._clock = clock
        self._file: int | None = None
        table = mmap.mmap(-1, SLOTS * 16)
        if folder is not None:
            self._file = os.open(folder / "limits", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(self._file, 0, len(table))  # keeps what other workers have written
                table = mmap.mmap(self._file, len(table))
            except OSError as error:
                log.warning("this worker limits requests separately: %s: %s", folder, error.strerror)
                os.close(self._file)
                self._file = None
        self._words = memoryview(table).cast("Q")

    def take(self, client: str) -> float:
        """Count one request of a client; return 0.0 if it is allowed, else the seconds until it is."""
        key = _key(client)
        now = self._clock()
        with self._locked():
            at = self._slot(key)
            full_at = max(now, self._words[at + 1]) if self._words[at] == key else now
            wait = full_at - self._slack - now
            if wait > 0:
                return float(wait / 1e9)
            self._words[at], self._words[at + 1] = key, full_at + self._interval
        return 0.0

    def _slot(self, key: int) -> int:
        candidates = [(key + i) % SLOTS * 2 for i in range(PROBES)]
        for at in candidates:
            if self._words[at] == key:
                return at
        return min(candidates, key=lambda at: self._words[at + 1])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the table; the kernel releases the lock of a process that dies."""
        if self._file is None:
            yield
            return
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


@lru_cache(maxsize=4096)
def _key(client: str) -> int:
    """Return 64 bits that identify a client, never 0."""
    return int.from_bytes(hashlib.blake2b(client.encode(), digest_size=8).digest()) or 1


def client_id(host: str) -> str:
    """Return the name under which the client at an address is counted.

    One household has a whole IPv6 /64, so a /64 counts as one client. Link-local addresses of one network segment
    share theirs, so each is a client. An IPv6 address that represents an IPv4 address counts as that address: all
    IPv4 clients of a socket that listens on `::` would otherwise be one. Of a longer text, which a trusted proxy can
    pass on, the first 64 characters count: what is kept in memory is bounded.
    """
    return _client_network(host[:64])


@lru_cache(maxsize=4096)
def _client_network(host: str) -> str:
    parsed = parse_address(host)
    if parsed is None:
        return host
    if parsed.version == 4 or parsed.is_link_local:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def too_many_requests(wait_s: float) -> ApiError:
    """Return the 429 of a client that has to wait."""
    message = f"too many requests; try again in {wait_s:.3g} s"
    return ApiError(429, "rate_limited", message, headers={"Retry-After": str(math.ceil(wait_s))})
