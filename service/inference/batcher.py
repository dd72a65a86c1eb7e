"""Rows of many requests, one inference: adaptive batching for one model.

Greedy: an idle model runs what has come at once, a busy one gathers what came meanwhile, so no request
waits for company. A step gathers, runs and posts the results from the inference thread itself, which thus
never waits for the event loop between two batches; models that share the lanes take turns by the batch.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.errors import INTERNAL, ApiError
from service.inference.pool import Lanes
from service.observability import tracing
from service.observability.metrics import Metrics

log = logging.getLogger("bentoml.atelier")

# latents, labels, whether the batch has the cores to itself → images
Run = Callable[[NDArray[np.float32], NDArray[np.int64] | None, bool], NDArray[np.uint8]]

MAX_RETRY_AFTER_S = 60


class _Job:
    """One request's rows: `taken` of them are in a batch or done, `done` have their image."""

    __slots__ = ("done", "future", "images", "labels", "latents", "since", "taken", "trace")

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
        self.trace = tracing.current.get()


class Batcher:
    """`submit` from one event loop; `run` is called on the lanes' threads, a batch a lane.

    max_rows: rows of a batch; max_queue_rows: rows that may wait; labels are given by all jobs or by none.
    """

    def __init__(
        self,
        run: Run,
        lanes: Lanes,
        max_rows: int,
        max_queue_rows: int,
        metrics: Metrics,
        model: str = "",
    ):
        self._run, self._lanes, self._metrics, self._model = run, lanes, metrics, model
        self._max_rows, self._max_queue_rows = max_rows, max_queue_rows
        # a request's share of a batch while others wait: large ones then cannot starve small ones
        self._share = max(1, max_rows // 4)
        self._lock = threading.Lock()
        self._queue: deque[_Job] = deque()
        self._waiting = 0  # rows in the queue that no batch has taken
        self._steps = 0  # on a lane, or waiting for one
        self._row_seconds = 0.0  # of one lane, for one row, lately

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
            # an idle model takes any one request that the limits allow, however short the queue; the last quarter of it
            # is for requests that fit into their share of a batch, so that large ones cannot deny them
            room = self._max_queue_rows if rows <= self._share else self._max_queue_rows * 3 // 4
            if self._waiting and self._waiting + rows > room:
                raise self._full()
            self._queue.append(job)
            self._wait(rows)
            start = min(self._lanes.count - self._steps, -(-self._waiting // self._max_rows))
            self._steps += start
        for _ in range(start):
            self._lanes.submit(partial(self._step, loop))
        timer = loop.call_later(deadline_s, self._expire, job, deadline_s)
        try:
            return await job.future
        finally:
            timer.cancel()
            self._forget(job)

    def _full(self) -> ApiError:
        """503, with the time after which what waits now will have been run."""
        self._metrics.rejected.labels("queue_full").inc()
        seconds = math.ceil(self._waiting * self._row_seconds / self._lanes.count)
        return ApiError(
            503,
            "queue_full",
            f"{self._waiting} images are waiting already; try again in a moment",
            headers={"Retry-After": str(min(max(seconds, 1), MAX_RETRY_AFTER_S))},
        )

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

    def _gather(self) -> tuple[list[tuple[_Job, int, int]], bool]:
        """Take rows in turn, a share of each job, until a batch is full: (job, first row, end row) of each, and
        whether none are left. No rows: the step has ended."""
        batch: dict[_Job, int] = {}
        with self._lock:
            if not self._waiting:
                self._steps -= 1
                return [], True
            # what does not fill a batch a lane is shared out evenly
            room = min(self._max_rows, -(-self._waiting // self._lanes.count))
            room = self._waiting if self._waiting <= self._max_rows else room
            while room and self._queue:
                job = self._queue.popleft()
                rows = min(self._share, room, len(job.latents) - job.taken)
                batch[job] = batch.get(job, 0) + rows
                job.taken += rows
                room -= rows
                self._wait(-rows)
                if job.taken < len(job.latents):
                    self._queue.append(job)
            last = not self._waiting
        return [(job, job.taken - rows, job.taken) for job, rows in batch.items()], last

    def _step(self, loop: asyncio.AbstractEventLoop) -> None:
        """Batch after batch, on a lane's thread, until no rows wait or another step waits for the lane."""
        while True:
            batch, last = self._gather()
            if not batch:
                return
            alone = self._lanes.enter() == 1 and last
            try:
                results = self._infer(batch, alone)
            finally:
                self._lanes.leave()
            try:
                loop.call_soon_threadsafe(self._deliver, batch, results)
            except RuntimeError:  # the loop is closed: nobody is left to answer
                return
            if self._lanes.wanted:
                self._lanes.submit(partial(self._step, loop))
                return

    def _infer(self, batch: list[tuple[_Job, int, int]], alone: bool) -> list[NDArray[np.uint8] | None]:
        """The images of each part; None where inference fails, which is tried alone before it is believed."""
        started = time.perf_counter()
        for job, first, _ in batch:
            if first == 0:
                self._metrics.queue_seconds.observe(started - job.since)
        try:
            if len(batch) == 1:
                [(job, first, end)] = batch
                labels_of = None if job.labels is None else job.labels[first:end]
                images = self._run(job.latents[first:end], labels_of, alone)
            else:
                latents = np.concatenate([job.latents[first:end] for job, first, end in batch])
                labels = [job.labels[first:end] for job, first, end in batch if job.labels is not None]
                images = self._run(latents, np.concatenate(labels) if labels else None, alone)
        except Exception:
            log.exception("inference of %s failed on %d rows", self._model, sum(e - f for _, f, e in batch))
            return [None] if len(batch) == 1 else [self._infer([part], alone)[0] for part in batch]
        seconds = time.perf_counter() - started
        each = seconds * (self._lanes.count if alone else 1) / len(images)
        self._row_seconds = 0.8 * self._row_seconds + 0.2 * each if self._row_seconds else each
        self._metrics.inference_seconds.observe(seconds)
        for job, first, end in batch:
            if job.trace is not None:
                if first == 0:
                    job.trace.add("queue", job.since, started)
                told = {"atelier.rows": end - first, "atelier.batch_rows": len(images)}
                job.trace.add("inference", started, started + seconds, **told)
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
