"""What the routes work with: the models, a batcher for each, and threads for inference and for encoding."""

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from service import logs, protocol, tracing
from service.access import AccessLog
from service.errors import ApiError, ClientGone
from service.keys import Keys
from service.lanes import Lanes
from service.limits import Limiter
from service.metrics import Metrics, meeting_place
from service.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from starlette.types import Receive

    from service.batcher import Batcher
    from service.models import Generator
    from service.plans import Plan

log = logging.getLogger("bentoml.atelier")

JOIN_S, LOOK_S = 0.05, 0.25  # between two looks at the other workers: while models load; once that is over
PATIENCE_S = 5.0  # of a worker that is ready, with one that takes requests and still loads


class Atelier:
    """One worker's state; made before the event loop runs, started and stopped on it."""

    def __init__(self, settings: Settings):
        from service.models import Repository

        self.settings = settings
        self.metrics = Metrics()
        self.keys = Keys(settings)
        self.limiter = (
            Limiter(settings.rate_limit, settings.rate_burst, meeting_place()) if settings.rate_limit else None
        )
        self.access = AccessLog(settings, logs.as_json(settings))
        self.draining = False
        protocol.BOUNDS.counted = self.metrics.connections.set
        protocol.BOUNDS.rejected = lambda reason: self.metrics.rejected.labels(reason).inc()
        self.repository = Repository(settings, self.metrics, self._forget)
        self._lanes = Lanes(self.repository.lanes)
        self._encoding = ThreadPoolExecutor(2, "encoding")
        self._encoding_lock = threading.Lock()
        self._encoding_pixels = 0  # admitted, and not yet encoded
        self._batchers: MutableMapping[Generator, Batcher] = {}

    def load(self) -> None:
        """Load and warm up the models (seconds; call it off the event loop), and say where the page is."""
        try:
            self.repository.load_all()
        except Exception as error:
            log.exception("loading the models failed")
            self.repository.give_up(error)
        self.repository.watch()
        if reason := self.repository.not_ready:
            log.error("not ready: %s", reason)
            return
        names = ", ".join(g.metadata.name for g in self.repository.all())
        url = next(iter(json.loads(os.environ.get("BENTOML_RUNNER_MAP", "{}")).values()), "")
        log.info("ready with %s%s", names, f": open {url}/ in a browser" if url else "")

    async def join(self, loading: "asyncio.Future[None]") -> None:
        """Until this worker should let connections in.

        The first does at once: while its models load, /livez answers and /readyz says what is missing. One that comes
        beside others, or in the place of one that crashed, lets them answer until it has models to serve.
        """
        recent, now = self.metrics.recent, asyncio.get_running_loop().time
        ready_at: float | None = None
        while True:
            if self.repository.not_ready:
                ready_at, wait = None, recent.others_answer()
            else:
                # beside one that loads, some would get its 503: a moment is no loss, but it may hang
                ready_at = now() if ready_at is None else ready_at
                wait = now() - ready_at < PATIENCE_S and recent.others_load()
            if not wait:
                break
            await asyncio.sleep(LOOK_S if loading.done() else JOIN_S)
        recent.let_in(loading=not loading.done())
        loading.add_done_callback(lambda _: recent.let_in(loading=False))

    def drain(self) -> None:
        """Tell everyone that the end is near: /readyz is 503 and answers close their connections."""
        self.draining = True
        self.metrics.recent.drain()

    def stop(self) -> None:
        self.repository.close()
        self._lanes.close()
        self.access.flush()
        tracing.shutdown()
        self._encoding.shutdown(wait=False, cancel_futures=True)

    def _batcher(self, generator: "Generator") -> "Batcher":
        from service.batcher import Batcher

        batcher = self._batchers.get(generator)
        if batcher is None:
            batcher = self._batchers[generator] = Batcher(
                generator.run,
                self._lanes,
                generator.batch_rows,
                self.settings.max_queue_rows,
                self.metrics,
                generator.metadata.name,
            )
        if generator.retired:  # this request chose it just before; its batcher lives as long as that
            self._forget(generator)
        return batcher

    def _forget(self, generator: "Generator") -> None:
        """A retired generator's batcher ends with the requests that wait for it."""
        self._batchers.pop(generator, None)

    async def images(self, plan: "Plan", receive: "Receive | None" = None) -> "NDArray[np.uint8]":
        """Run a plan's rows: uint8 [N, H, W, C]. ClientGone: `receive` told that the client hung up."""
        generator = plan.generator
        if not generator.loaded:  # it had to make way for others
            await self.repository.recall(generator)
        work = self._batcher(generator).submit(plan.latents, plan.labels, self.settings.deadline_s)
        images = await (work if receive is None else _while_connected(work, receive))
        self.metrics.made(generator.metadata.name, len(images))
        return images

    async def pictures(
        self, plan: "Plan", pixels: int, encode: "Callable[[NDArray[np.uint8]], bytes]", receive: "Receive"
    ) -> bytes:
        """Run a plan's rows and `encode` the images, `pixels` in all, on a thread; one deadline is over both.

        ApiError: 503 queue_full before anything is computed, 503 deadline_exceeded. ClientGone as `images`.
        """
        return await _while_connected(self._encoded(plan, pixels, encode), receive)

    async def _encoded(self, plan: "Plan", pixels: int, encode: "Callable[[NDArray[np.uint8]], bytes]") -> bytes:
        self._admit(pixels)
        job: Future[bytes] | None = None
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                images = await self.images(plan)
                with tracing.part("encode"):
                    job = self._encoding.submit(encode, images)
                    return await asyncio.wrap_future(job)
        except TimeoutError:
            self.metrics.rejected.labels("deadline").inc()
            message = f"not finished within {self.settings.deadline_s:g} s; ask for fewer images or try again"
            raise ApiError(503, "deadline_exceeded", message) from None
        finally:
            # one that nobody waits for any more holds its memory until its thread is done with it
            if job is None:
                self._release(pixels)
            else:
                job.add_done_callback(lambda _: self._release(pixels))

    def _admit(self, pixels: int) -> None:
        """Count a request's pixels in. ApiError: others' fill the room already; a lone request always has it."""
        with self._encoding_lock:
            waiting = self._encoding_pixels
            admitted = not waiting or waiting + pixels <= self.settings.max_encoding_pixels
            if admitted:
                self._encoding_pixels += pixels
        if not admitted:
            self.metrics.rejected.labels("queue_full").inc()
            message = f"pictures of {waiting} pixels are being made already; try again in a moment"
            raise ApiError(503, "queue_full", message)

    def _release(self, pixels: int) -> None:
        with self._encoding_lock:
            self._encoding_pixels -= pixels

    def require_ready(self) -> None:
        if self.draining:
            raise ApiError(503, "draining", "this worker is stopping; others, or the next one, take its requests")
        if reason := self.repository.not_ready:
            raise ApiError(503, "not_ready", reason)


async def _while_connected(work: Any, receive: "Receive") -> Any:
    """Await `work`, cancelled if the client disconnects first."""

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        task.cancel()
        gone.cancel()
