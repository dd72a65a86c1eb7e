"""What the routes work with: the models, a batcher for each, and threads for inference and for encoding."""

import asyncio
import json
import logging
import os
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any

from service.errors import ApiError, ClientGone
from service.inference.admission import Admission
from service.inference.pool import Lanes
from service.middleware.auth import Keys
from service.middleware.rate_limit import Limiter
from service.observability import logs, tracing
from service.observability.access_log import AccessLog
from service.observability.metrics import Metrics, meeting_place
from service.server import connections
from service.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from starlette.types import Receive

    from service.inference.batcher import Batcher
    from service.inference.inputs import Plan
    from service.models.repository import Generator

log = logging.getLogger("bentoml.atelier")

JOIN_S, LOOK_S = 0.05, 0.25  # between two looks at the other workers: while models load; once that is over
PATIENCE_S = 5.0  # of a worker that is ready, with one that takes requests and still loads


class Atelier:
    """One worker's state; made before the event loop runs, started and stopped on it."""

    def __init__(self, settings: Settings):
        from service.models.repository import Repository

        self.settings = settings
        self.metrics = Metrics()
        self.keys = Keys(settings)
        self.limiter = (
            Limiter(settings.rate_limit, settings.rate_burst, meeting_place()) if settings.rate_limit else None
        )
        self.access = AccessLog(settings, logs.as_json(settings))
        self.draining = False
        self.body_bytes = 0  # of large request bodies; the gate counts them
        connections.BOUNDS.counted = self.metrics.connections.set
        connections.BOUNDS.rejected = lambda reason: self.metrics.rejected.labels(reason).inc()
        self.repository = Repository(settings, self.metrics, self._forget)
        self._lanes = Lanes(self.repository.lanes)
        self.admission = Admission(settings.max_encoding_pixels, self.metrics.rejected.labels("queue_full").inc)
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
        self.admission.close()

    def _batcher(self, generator: "Generator") -> "Batcher":
        from service.inference.batcher import Batcher

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

    async def _images(self, plan: "Plan") -> "NDArray[np.uint8]":
        """Run a plan's rows: uint8 [N, H, W, C]."""
        generator = plan.generator
        if not generator.loaded:  # it had to make way for others
            await self.repository.recall(generator)
        images = await self._batcher(generator).submit(plan.latents, plan.labels, self.settings.deadline_s)
        self.metrics.made(generator.metadata.name, len(images))
        return images

    async def answer(
        self,
        plan: "Plan",
        pixels: int,
        encode: "Callable[[NDArray[np.uint8]], bytes]",
        receive: "Receive | None",
        inline: bool = False,
    ) -> bytes:
        """Run a plan's rows and encode the images; one deadline holds for both, and for the wait before them.

        Args:
            plan: The rows.
            pixels: Pixels of the answer's images, after enlarging.
            encode: Makes the body of the answer.
            receive: Reports that the client hung up; None if that need not be noticed.
            inline: Whether encoding is so quick that no thread is worth its while.

        Returns:
            The body of the answer.

        Raises:
            ApiError: 503 if too many answers wait already, or if the deadline has passed.
            ClientGone: If the client hung up.
        """
        work = self._answered(plan, pixels, encode, inline)
        return await (work if receive is None else _while_connected(work, receive))

    async def _answered(
        self, plan: "Plan", pixels: int, encode: "Callable[[NDArray[np.uint8]], bytes]", inline: bool
    ) -> bytes:
        admission, ends = self.admission, asyncio.get_running_loop().time() + self.settings.deadline_s
        # the batcher's deadline is enough, unless the model has to be loaded before
        if inline and plan.generator.loaded and admission.try_acquire(pixels):
            try:
                return encode(await self._images(plan))
            finally:
                admission.release(pixels)
        try:
            async with asyncio.timeout_at(ends):
                await admission.acquire(pixels)
                try:
                    images = await self._images(plan)
                except BaseException:
                    admission.release(pixels)
                    raise
                with tracing.part("encode"):
                    return await admission.encode(pixels, partial(encode, images))
        except TimeoutError:
            self.metrics.rejected.labels("deadline").inc()
            message = f"not finished within {self.settings.deadline_s:g} s; ask for fewer images or try again"
            raise ApiError(503, "deadline_exceeded", message) from None

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
