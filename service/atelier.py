"""What the routes work with: the models, a batcher for each, and threads for inference and for encoding."""

import asyncio
import json
import logging
import os
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from service.errors import ApiError
from service.metrics import Metrics
from service.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from starlette.types import Receive

    from service.batcher import Batcher
    from service.models import Generator
    from service.plans import Plan

log = logging.getLogger("bentoml.atelier")
T = TypeVar("T")


class ClientGone(Exception):
    """The client hung up before its answer was ready."""


class Atelier:
    """One worker's state; made before the event loop runs, started and stopped on it."""

    def __init__(self, settings: Settings):
        from service.models import Repository

        self.settings = settings
        self.metrics = Metrics()
        self.repository = Repository(settings)
        self._inference = ThreadPoolExecutor(1, "inference")
        self._encoding = ThreadPoolExecutor(2, "encoding")
        self._batchers: MutableMapping[str, Batcher] = {}

    def load(self) -> None:
        """Load and warm up the models (seconds; call it off the event loop), and say where the page is."""
        self.repository.load_all()
        if reason := self.repository.not_ready:
            log.error("not ready: %s", reason)
            return
        names = ", ".join(g.metadata.name for g in self.repository.all())
        url = next(iter(json.loads(os.environ.get("BENTOML_RUNNER_MAP", "{}")).values()), "")
        log.info("ready with %s%s", names, f": open {url}/ in a browser" if url else "")

    def stop(self) -> None:
        self._inference.shutdown(wait=False, cancel_futures=True)
        self._encoding.shutdown(wait=False, cancel_futures=True)

    def _batcher(self, generator: "Generator") -> "Batcher":
        from service.batcher import Batcher

        key = generator.metadata.digest
        if key not in self._batchers:
            self._batchers[key] = Batcher(
                generator.run,
                self._inference,
                self.settings.max_batch,
                self.settings.max_queue_rows,
                self.metrics,
                generator.metadata.name,
            )
        return self._batchers[key]

    async def images(self, plan: "Plan", receive: "Receive | None" = None) -> "NDArray[np.uint8]":
        """Run a plan's rows: uint8 [N, H, W, C]. ClientGone: `receive` told that the client hung up."""
        generator = plan.generator
        work = self._batcher(generator).submit(plan.latents, plan.labels, self.settings.deadline_s)
        images = await (work if receive is None else _while_connected(work, receive))
        self.metrics.images.labels(generator.metadata.name).inc(len(images))
        return images

    async def off_loop(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function(*args)` on an encoding thread."""
        return await asyncio.get_running_loop().run_in_executor(self._encoding, function, *args)

    def require_ready(self) -> None:
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
