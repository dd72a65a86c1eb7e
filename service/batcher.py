"""Rows of many requests, one inference: adaptive batching for one model.

Greedy: an idle model runs what has come at once, a busy one gathers what came meanwhile, so no request
waits for company. A step gathers, runs and posts the results from the inference thread itself, which thus
never waits for the event loop between two batches; models that share the thread take turns by the step.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from service.errors import INTERNAL, ApiError
from service.metrics import Metrics

log = logging.getLogger("bentoml.atelier")

Run = Callable[[NDArray[np.float32], NDArray[np.int64] | None], NDArray[np.uint8]]


class _Job:
    """One request's rows: `taken` of them are in a batch or done, `done` have their image."""

    __slots__ = ("done", "future", "images", "labels", "latents", "since", "taken")

    def __init__(
        self,
        latents: NDArray[np.float32],
        labels: NDArray[np.int64] | None,
        future: asyncio.Future[NDArray[np.uint8]],
    ):
        self.latents, self.labels, self.future = latents, labels, future
        self.images: NDArray[np.uint8] | None = None
        self.taken = self.done = 0
        self.since = time.perf_counter()


class Batcher:
    """`submit` from one event loop; `run` is called on `executor`'s thread, one batch at a time.

    max_rows: rows of a batch; max_queue_rows: rows that may wait; labels are given by all jobs or by none.
    """

    def __init__(
        self,
        run: Run,
        executor: Executor,
        max_rows: int,
        max_queue_rows: int,
        metrics: Metrics,
        model: str = "",
    ):
        self._run, self._executor, self._metrics, self._model = run, executor, metrics, model
        self._max_rows, self._max_queue_rows = max_rows, max_queue_rows
        # a request's share of a batch while others wait: large ones then cannot starve small ones
        self._share = max(1, max_rows // 4)
        self._lock = threading.Lock()
        self._queue: deque[_Job] = deque()
        self._waiting = 0  # rows in the queue that no batch has taken
        self._stepping = False

    @property
    def waiting_rows(self) -> int:
        return self._waiting

    def _wait(self, rows: int) -> None:
        self._waiting += rows
        self._metrics.queued(rows)

    async def submit(
        self, latents: NDArray[np.float32], labels: NDArray[np.int64] | None, deadline_s: float
    ) -> NDArray[np.uint8]:
        """latents float32 [N, z_dim] → images uint8 [N, H, W, C]. Cancelling frees the rows still waiting.

        ApiError: 503 queue_full, 503 deadline_exceeded, 500 when inference fails on these very rows.
        """
        loop = asyncio.get_running_loop()
        rows = len(latents)
        job = _Job(latents, labels, loop.create_future())
        with self._lock:
            # an idle model takes any one request that the limits allow, however short the queue
            if self._waiting and self._waiting + rows > self._max_queue_rows:
                self._metrics.rejected.labels("queue_full").inc()
                raise ApiError(503, "queue_full", f"{self._waiting} images are waiting already; try again in a moment")
            self._queue.append(job)
            self._wait(rows)
            start = not self._stepping
            self._stepping = True
        if start:
            self._executor.submit(self._step, loop)
        timer = loop.call_later(deadline_s, self._expire, job, deadline_s)
        try:
            return await job.future
        finally:
            timer.cancel()
            self._forget(job)

    def _expire(self, job: _Job, deadline_s: float) -> None:
        if not job.future.done():
            self._metrics.rejected.labels("deadline").inc()
            message = f"not finished within {deadline_s:g} s; ask for fewer images or try again"
            job.future.set_exception(ApiError(503, "deadline_exceeded", message))

    def _forget(self, job: _Job) -> None:
        """Give up the rows of a job that no batch has taken yet (none, if it ran to its end)."""
        with self._lock:
            left = len(job.latents) - job.taken
            if left:
                job.taken = len(job.latents)
                self._wait(-left)
                self._queue.remove(job)

    def _gather(self) -> list[tuple[_Job, int, int]]:
        """Take rows in turn, a share of each job, until a batch is full: (job, first row, end row)."""
        batch: dict[_Job, int] = {}
        room = self._max_rows
        with self._lock:
            while room and self._queue:
                job = self._queue.popleft()
                rows = min(self._share, room, len(job.latents) - job.taken)
                batch[job] = batch.get(job, 0) + rows
                job.taken += rows
                room -= rows
                self._wait(-rows)
                if job.taken < len(job.latents):
                    self._queue.append(job)
        return [(job, job.taken - rows, job.taken) for job, rows in batch.items()]

    def _step(self, loop: asyncio.AbstractEventLoop) -> None:
        """One batch, on the inference thread; then another behind whatever else waits for the thread."""
        if batch := self._gather():
            results = self._infer(batch)
            try:
                loop.call_soon_threadsafe(self._deliver, batch, results)
            except RuntimeError:  # the loop is closed: nobody is left to answer
                return
        with self._lock:
            self._stepping = bool(self._queue)
            again = self._stepping
        if again:
            self._executor.submit(self._step, loop)

    def _infer(self, batch: list[tuple[_Job, int, int]]) -> list[NDArray[np.uint8] | None]:
        """The images of each part; None where inference fails, which is tried alone before it is believed."""
        started = time.perf_counter()
        for job, first, _ in batch:
            if first == 0:
                self._metrics.queue_seconds.observe(started - job.since)
        try:
            if len(batch) == 1:
                [(job, first, end)] = batch
                images = self._run(job.latents[first:end], None if job.labels is None else job.labels[first:end])
            else:
                latents = np.concatenate([job.latents[first:end] for job, first, end in batch])
                labels = [job.labels[first:end] for job, first, end in batch if job.labels is not None]
                images = self._run(latents, np.concatenate(labels) if labels else None)
        except Exception:
            log.exception("inference of %s failed on %d rows", self._model, sum(e - f for _, f, e in batch))
            return [None] if len(batch) == 1 else [self._infer([part])[0] for part in batch]
        self._metrics.inference_seconds.observe(time.perf_counter() - started)
        self._metrics.batch_rows.observe(len(images))
        parts: list[NDArray[np.uint8] | None] = []
        at = 0
        for _, first, end in batch:
            parts.append(images[at : at + end - first])
            at += end - first
        return parts

    def _deliver(self, batch: list[tuple[_Job, int, int]], results: list[NDArray[np.uint8] | None]) -> None:
        """On the event loop: put each part into its job, and wake those that are complete."""
        for (job, first, end), images in zip(batch, results, strict=True):
            if job.future.done():
                continue
            if images is None:
                job.future.set_exception(INTERNAL)
            elif end - first == len(job.latents):
                job.future.set_result(images)
            else:
                if job.images is None:
                    job.images = np.empty((len(job.latents), *images.shape[1:]), np.uint8)
                job.images[first:end] = images
                job.done += end - first
                if job.done == len(job.latents):
                    job.future.set_result(job.images)
