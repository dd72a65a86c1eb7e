"""Dynamic batching: rows of many requests run as one batch, on a pool of inference threads that all models share.

An idle model runs what has arrived at once; a busy one collects what arrives meanwhile, so no request waits for others
to fill its batch. A step collects, runs and delivers on the inference thread itself, which thus never waits for the
event loop between two batches. Models that share the pool alternate by batch.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.errors import INTERNAL_ERROR, ApiError
from service.observability import tracing
from service.observability.metrics import Metrics

log = logging.getLogger("bentoml.atelier")

# latents, labels, whether the batch may use all cores → images
Run = Callable[[NDArray[np.float32], NDArray[np.int64] | None, bool], NDArray[np.uint8]]

MAX_RETRY_AFTER_S = 60


class InferencePool:
    """Threads that run batches of all models side by side, in the order of submission.

    Batches that run side by side, each on its share of the cores, need not synchronize after every layer as the threads
    of one batch must, and other work of a core delays one of them instead of all. A batch that no other runs next to is
    faster on all cores; `acquire` returns how many run.
    """

    def __init__(self, size: int):
        self.size = size
        self._threads = ThreadPoolExecutor(size, "inference")
        self._lock = threading.Lock()
        self._pending = 0
        self._running = 0

    @property
    def has_pending(self) -> bool:
        """Whether a step waits for a thread."""
        return self._pending > 0

    def submit(self, step: Callable[[], None]) -> None:
        """Run a step on the next free thread.

        Raises:
            RuntimeError: If the pool is closed.
        """
        with self._lock:
            self._pending += 1
        self._threads.submit(self._run, step)

    def acquire(self) -> int:
        """Begin a batch, and return how many now run. `release` must follow."""
        with self._lock:
            self._running += 1
            return self._running

    def release(self) -> None:
        """End a batch."""
        with self._lock:
            self._running -= 1

    def close(self) -> None:
        """Drop the steps that wait; those that run end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, step: Callable[[], None]) -> None:
        with self._lock:
            self._pending -= 1
        try:
            step()
        except Exception:
            log.exception("an inference step failed")


class _Job:
    """The rows of one request: `taken` of them are in a batch or done, `done` have their image."""

    __slots__ = ("done", "future", "images", "labels", "latents", "submitted", "taken", "trace")

    def __init__(
        self,
        latents: NDArray[np.float32],
        labels: NDArray[np.int64] | None,
        future: asyncio.Future[NDArray[np.uint8]],
    ):
        self.latents, self.labels, self.future = latents, labels, future
        self.images: NDArray[np.uint8] | None = None
        self.taken = self.done = 0
        self.submitted = time.perf_counter()
        self.trace = tracing.current_span()


_Part = tuple[_Job, int, int]  # job, first row, end row


class Batcher:
    """Batches the requests to one model. `submit` is called on one event loop, `run` on the pool's threads.

    Args:
        run: Computes images; labels are given in all calls or in none.
        pool: Threads, shared with other models.
        max_rows: Largest number of rows in a batch.
        max_queue_rows: Largest number of rows that may wait.
        metrics: Receives counts and times.
        model: Name for the log.
    """

    def __init__(
        self,
        run: Run,
        pool: InferencePool,
        max_rows: int,
        max_queue_rows: int,
        metrics: Metrics,
        model: str = "",
    ):
        self._run, self._pool, self._metrics, self._model = run, pool, metrics, model
        self._max_rows, self._max_queue_rows = max_rows, max_queue_rows
        # One request's share of a batch while others wait, so that large requests cannot starve small ones.
        self._share = max(1, max_rows // 4)
        self._lock = threading.Lock()
        self._queue: deque[_Job] = deque()
        self._waiting = 0  # rows in the queue that are in no batch yet
        self._steps = 0  # steps that run or wait for a thread
        self._row_seconds = 0.0  # moving average of one thread's time per row

    async def submit(
        self, latents: NDArray[np.float32], labels: NDArray[np.int64] | None, deadline_s: float
    ) -> NDArray[np.uint8]:
        """Run the rows of one request. Cancelling frees those that still wait.

        Args:
            latents: float32 [N, z_dim].
            labels: int64 [N] if the model is conditional.
            deadline_s: Seconds until the request fails.

        Returns:
            Images, uint8 [N, H, W, C].

        Raises:
            ApiError: 503 `queue_full` or `deadline_exceeded`; 500 if inference fails on these very rows.
        """
        loop = asyncio.get_running_loop()
        rows = len(latents)
        job = _Job(latents, labels, loop.create_future())
        with self._lock:
            # An idle model accepts any single request that the limits allow, however short the queue. The last quarter
            # of the queue is for requests that fit into their share of a batch, so that large ones cannot block them.
            capacity = self._max_queue_rows if rows <= self._share else self._max_queue_rows * 3 // 4
            if self._waiting and self._waiting + rows > capacity:
                raise self._queue_full()
            self._queue.append(job)
            self._count_waiting(rows)
            new_steps = min(self._pool.size - self._steps, -(-self._waiting // self._max_rows))
            self._steps += new_steps
        for _ in range(new_steps):
            self._pool.submit(partial(self._step, loop))
        timer = loop.call_later(deadline_s, self._expire, job, deadline_s)
        try:
            return await job.future
        finally:
            timer.cancel()
            self._withdraw(job)

    def _count_waiting(self, rows: int) -> None:
        self._waiting += rows
        self._metrics.count_queued(rows)

    def _queue_full(self) -> ApiError:
        """Return a 503 whose Retry-After is the time that the waiting rows will take."""
        self._metrics.rejected.labels("queue_full").inc()
        seconds = math.ceil(self._waiting * self._row_seconds / self._pool.size)
        return ApiError(
            503,
            "queue_full",
            f"{self._waiting} images are already waiting; try again in a moment",
            headers={"Retry-After": str(min(max(seconds, 1), MAX_RETRY_AFTER_S))},
        )

    def _expire(self, job: _Job, deadline_s: float) -> None:
        if not job.future.done():
            job.future.set_exception(deadline_exceeded(self._metrics, deadline_s))

    def _withdraw(self, job: _Job) -> None:
        """Remove the rows of a job that are in no batch yet; a finished job has none."""
        with self._lock:
            left = len(job.latents) - job.taken
            if left:
                job.taken = len(job.latents)
                self._count_waiting(-left)
                self._queue.remove(job)

    def _collect(self) -> tuple[list[_Part], bool]:
        """Take rows, a share of each job at a time, until a batch is full.

        Returns:
            The parts of the batch, and whether no rows are left in the queue. Without parts the step has ended.
        """
        batch: dict[_Job, int] = {}
        with self._lock:
            if not self._waiting:
                self._steps -= 1
                return [], True
            # Rows that do not fill a batch on every thread are divided evenly.
            room = min(self._max_rows, -(-self._waiting // self._pool.size))
            room = self._waiting if self._waiting <= self._max_rows else room
            while room and self._queue:
                job = self._queue.popleft()
                rows = min(self._share, room, len(job.latents) - job.taken)
                batch[job] = batch.get(job, 0) + rows
                job.taken += rows
                room -= rows
                self._count_waiting(-rows)
                if job.taken < len(job.latents):
                    self._queue.append(job)
            last = not self._waiting
        return [(job, job.taken - rows, job.taken) for job, rows in batch.items()], last

    def _step(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run batch after batch on one thread, until no rows wait or another step waits for the thread."""
        while True:
            batch, last = self._collect()
            if not batch:
                return
            exclusive = self._pool.acquire() == 1 and last
            try:
                results = self._infer(batch, exclusive)
            finally:
                self._pool.release()
            try:
                loop.call_soon_threadsafe(self._deliver, batch, results)
            except RuntimeError:  # the loop is closed, so no request waits any more
                return
            if self._pool.has_pending:
                self._pool.submit(partial(self._step, loop))
                return

    def _infer(self, batch: list[_Part], exclusive: bool) -> list[NDArray[np.uint8] | None]:
        """Return the images of each part, or None where inference fails. Each part of a failed batch is retried."""
        started = time.perf_counter()
        for job, first, _ in batch:
            if first == 0:
                self._metrics.queue_seconds.observe(started - job.submitted)
        try:
            if len(batch) == 1:
                [(job, first, end)] = batch
                labels_of = None if job.labels is None else job.labels[first:end]
                images = self._run(job.latents[first:end], labels_of, exclusive)
            else:
                latents = np.concatenate([job.latents[first:end] for job, first, end in batch])
                labels = [job.labels[first:end] for job, first, end in batch if job.labels is not None]
                images = self._run(latents, np.concatenate(labels) if labels else None, exclusive)
        except Exception:
            log.exception("inference of %s failed on %d rows", self._model, sum(e - f for _, f, e in batch))
            return [None] if len(batch) == 1 else [self._infer([part], exclusive)[0] for part in batch]
        seconds = time.perf_counter() - started
        row_seconds = seconds * (self._pool.size if exclusive else 1) / len(images)
        self._row_seconds = 0.8 * self._row_seconds + 0.2 * row_seconds if self._row_seconds else row_seconds
        self._metrics.inference_seconds.observe(seconds)
        self._metrics.batch_rows.observe(len(images))
        self._trace(batch, started, started + seconds, len(images))
        parts: list[NDArray[np.uint8] | None] = []
        at = 0
        for _, first, end in batch:
            parts.append(images[at : at + end - first])
            at += end - first
        return parts

    def _trace(self, batch: list[_Part], started: float, ended: float, batch_rows: int) -> None:
        for job, first, end in batch:
            if job.trace is not None:
                if first == 0:
                    tracing.add_span("queue", job.trace, job.submitted, started)
                rows = {"atelier.rows": end - first, "atelier.batch_rows": batch_rows}
                tracing.add_span("inference", job.trace, started, ended, **rows)

    def _deliver(self, batch: list[_Part], results: list[NDArray[np.uint8] | None]) -> None:
        """Copy each part into its job, and complete the jobs that have all their rows. Runs on the event loop."""
        for (job, first, end), images in zip(batch, results, strict=True):
            if job.future.done():
                continue
            if images is None:
                job.future.set_exception(INTERNAL_ERROR)
            elif end - first == len(job.latents):
                job.future.set_result(images)
            else:
                if job.images is None:
                    job.images = np.empty((len(job.latents), *images.shape[1:]), np.uint8)
                job.images[first:end] = images
                job.done += end - first
                if job.done == len(job.latents):
                    job.future.set_result(job.images)


def deadline_exceeded(metrics: Metrics, deadline_s: float) -> ApiError:
    """Count a request that took too long, and return its 503."""
    metrics.rejected.labels("deadline").inc()
    message = f"not finished within {deadline_s:g} s; request fewer images or try again"
    return ApiError(503, "deadline_exceeded", message)
