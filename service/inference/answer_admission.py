"""Admission of answers by size: memory and threads, shared so that large answers cannot block small ones."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from service.errors import ApiError

T = TypeVar("T")

ENCODERS = 2  # threads per size class
MAX_WAITING = 512  # answers per size class; each keeps its latents in memory
# Per size class: its largest answer, and the pixels that its answers may have together, as shares of all pixels. With
# the default of 2^25: up to 2^16 pixels (an image of 256 x 256), up to 2^20, and larger.
CLASSES = ((1 / 512, 1 / 8), (1 / 32, 1 / 4), (1.0, 5 / 8))


class _SizeClass:
    """Answers of similar size: the pixels in use, those that wait in order, and the threads that encode them."""

    def __init__(self, largest: float, capacity: float, name: str):
        self.largest, self.capacity = largest, capacity
        self.used = 0
        self.waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.encoders = ThreadPoolExecutor(ENCODERS, name)

    def fits(self, pixels: int) -> bool:
        return not self.used or self.used + pixels <= self.capacity


class Admission:
    """Admits answers by their pixels, each size class to its own share of memory and to its own threads.

    An answer waits while its class's share is taken. One that is the only one of its class is always admitted, so that
    a small limit delays answers but blocks none. All methods run on the event loop.

    Args:
        max_pixels: Pixels of all answers that are admitted.
        on_rejection: Called when too many answers wait.
    """

    def __init__(self, max_pixels: int, on_rejection: Callable[[], object] = lambda: None):
        self._on_rejection = on_rejection
        self._classes = [
            _SizeClass(largest * max_pixels, capacity * max_pixels, f"encoding-{i}")
            for i, (largest, capacity) in enumerate(CLASSES)
        ]
        self._classes[-1].largest = float("inf")

    def try_acquire(self, pixels: int) -> bool:
        """Admit an answer if there is room for it now, and return whether; if so, `release` or `encode` must follow."""
        size_class = self._class_of(pixels)
        if size_class.waiting or not size_class.fits(pixels):
            return False
        size_class.used += pixels
        return True

    async def acquire(self, pixels: int) -> None:
        """Wait until there is room for an answer with this many pixels; `release` or `encode` must follow.

        Raises:
            ApiError: 503 if too many answers of this size already wait.
        """
        if self.try_acquire(pixels):
            return
        size_class = self._class_of(pixels)
        if len(size_class.waiting) >= MAX_WAITING:
            self._on_rejection()
            message = f"{len(size_class.waiting)} answers are already waiting; try again in a moment"
            raise ApiError(503, "queue_full", message)
        turn = asyncio.get_running_loop().create_future()
        entry = pixels, turn
        size_class.waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(pixels)
            else:
                with suppress(ValueError):  # `_admit_waiting` may have removed it
                    size_class.waiting.remove(entry)
                self._admit_waiting(size_class)
            raise

    def release(self, pixels: int) -> None:
        """Return what `acquire` admitted."""
        size_class = self._class_of(pixels)
        size_class.used -= pixels
        self._admit_waiting(size_class)

    async def encode(self, pixels: int, work: Callable[[], T]) -> T:
        """Run `work` on a thread of the answer's class, and release its pixels when the thread has finished.

        Work whose caller is cancelled keeps its memory until then.
        """
        loop = asyncio.get_running_loop()
        job: Future[T] = self._class_of(pixels).encoders.submit(work)

        def release_soon(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed, and admits nothing more
                loop.call_soon_threadsafe(self.release, pixels)

        try:
            return await asyncio.wrap_future(job)
        finally:
            if job.done():
                self.release(pixels)
            else:
                job.add_done_callback(release_soon)

    def close(self) -> None:
        """Drop the work that waits for a thread."""
        for size_class in self._classes:
            size_class.encoders.shutdown(wait=False, cancel_futures=True)

    def _class_of(self, pixels: int) -> _SizeClass:
        return next(size_class for size_class in self._classes if pixels <= size_class.largest)

    def _admit_waiting(self, size_class: _SizeClass) -> None:
        while size_class.waiting and size_class.fits(size_class.waiting[0][0]):
            pixels, turn = size_class.waiting.popleft()
            if not turn.done():
                size_class.used += pixels
                turn.set_result(None)
