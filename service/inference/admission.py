"""Which answers are made at once: memory and threads, shared so that large answers cannot deny small ones."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from service.errors import ApiError

T = TypeVar("T")

ENCODERS = 2  # threads of each class
MAX_WAITING = 512  # answers of one class; each keeps its latents in memory
# The largest answer of a class and the pixels that its answers may have together, as shares of all pixels. With the
# default of 2^25: up to 2^16 pixels (an image of 256 x 256), up to 2^20, and larger.
CLASSES = ((1 / 512, 1 / 8), (1 / 32, 1 / 4), (1.0, 5 / 8))


class _Class:
    """Answers of about one size: those that are made, those that wait in order, and the threads that encode them."""

    def __init__(self, largest: float, room: float, name: str):
        self.largest, self.room = largest, room
        self.used = 0
        self.waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.encoders = ThreadPoolExecutor(ENCODERS, name)

    def fits(self, pixels: int) -> bool:
        return not self.used or self.used + pixels <= self.room


class Admission:
    """Admit answers by their pixels, each size class to its own share of memory and to its own threads.

    An answer that finds its share taken waits for it. One that is alone in its class is always admitted, so that a
    small limit delays answers but denies none. Every method runs on the event loop.
    """

    def __init__(self, max_pixels: int, on_refusal: Callable[[], object] = lambda: None):
        self._on_refusal = on_refusal
        self._classes = [
            _Class(largest * max_pixels, room * max_pixels, f"encoding-{i}")
            for i, (largest, room) in enumerate(CLASSES)
        ]
        self._classes[-1].largest = float("inf")

    def try_acquire(self, pixels: int) -> bool:
        """Admit an answer if there is room for it now; `release` or `encode` must follow if so."""
        chosen = self._of(pixels)
        if chosen.waiting or not chosen.fits(pixels):
            return False
        chosen.used += pixels
        return True

    async def acquire(self, pixels: int) -> None:
        """Wait until there is room for an answer; `release` or `encode` must follow.

        Args:
            pixels: Pixels of all images of the answer.

        Raises:
            ApiError: 503 if too many answers of this size wait already.
        """
        if self.try_acquire(pixels):
            return
        chosen = self._of(pixels)
        if len(chosen.waiting) >= MAX_WAITING:
            self._on_refusal()
            message = f"{len(chosen.waiting)} answers are waiting already; try again in a moment"
            raise ApiError(503, "queue_full", message)
        turn = asyncio.get_running_loop().create_future()
        entry = pixels, turn
        chosen.waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(pixels)
            else:
                with suppress(ValueError):  # it may have been passed over already
                    chosen.waiting.remove(entry)
                self._admit_waiting(chosen)
            raise

    def release(self, pixels: int) -> None:
        """Give back what `acquire` admitted."""
        chosen = self._of(pixels)
        chosen.used -= pixels
        self._admit_waiting(chosen)

    async def encode(self, pixels: int, work: Callable[[], T]) -> T:
        """Run `work` on a thread of the answer's class, and release its pixels when the thread is done with it.

        Work that is no longer wanted keeps its memory until then.
        """
        loop = asyncio.get_running_loop()
        job: Future[T] = self._of(pixels).encoders.submit(work)

        def done(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nothing is admitted any more
                loop.call_soon_threadsafe(self.release, pixels)

        try:
            return await asyncio.wrap_future(job)
        finally:
            if job.done():
                self.release(pixels)
            else:
                job.add_done_callback(done)

    def close(self) -> None:
        for each in self._classes:
            each.encoders.shutdown(wait=False, cancel_futures=True)

    def _of(self, pixels: int) -> _Class:
        return next(each for each in self._classes if pixels <= each.largest)

    def _admit_waiting(self, chosen: _Class) -> None:
        while chosen.waiting and chosen.fits(chosen.waiting[0][0]):
            pixels, turn = chosen.waiting.popleft()
            if not turn.done():
                chosen.used += pixels
                turn.set_result(None)
