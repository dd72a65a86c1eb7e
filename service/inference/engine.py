"""The inference engine: the models, a batcher for each, and threads that encode the images."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive

from service.errors import ClientDisconnectedError
from service.inference.answer_admission import Admission
from service.inference.batcher import Batcher, InferencePool, deadline_exceeded
from service.inference.inputs import InferenceInputs
from service.models.repository import Repository
from service.models.served_model import ServedModel
from service.observability import tracing
from service.observability.metrics import Metrics
from service.settings import Settings

Encode = Callable[[NDArray[np.uint8]], bytes]


class InferenceEngine:
    """Runs inputs and encodes the images; used on one event loop."""

    def __init__(self, settings: Settings, metrics: Metrics):
        self.settings, self.metrics = settings, metrics
        self.repository = Repository(settings, metrics, lambda model: self._batchers.pop(model, None))
        self.admission = Admission(settings.max_encoding_pixels, metrics.rejected.labels("queue_full").inc)
        self._pool = InferencePool(self.repository.parallel_batches)
        self._batchers: MutableMapping[ServedModel, Batcher] = {}

    def close(self) -> None:
        """Stop watching the models, and drop what waits for a thread."""
        self.repository.close()
        self._pool.close()
        self.admission.close()

    async def answer(
        self,
        inputs: InferenceInputs,
        pixels: int,
        encode: Encode,
        receive: Receive | None = None,
        inline: bool = False,
    ) -> bytes:
        """Run inputs and encode the images, within one deadline for waiting, inference and encoding.

        Args:
            inputs: The rows.
            pixels: Pixels of the answer's images, after enlarging.
            encode: Makes the body of the answer.
            receive: The request's channel, to notice when the client disconnects; None to ignore that.
            inline: Whether encoding takes less time than waking a thread.

        Returns:
            The body of the answer.

        Raises:
            ApiError: 503 if too many answers already wait, or if the deadline has passed.
            ClientDisconnectedError: If the client disconnected.
        """
        work = self._admit_and_run(inputs, pixels, encode, inline)
        return await (work if receive is None else _while_connected(work, receive))

    async def _admit_and_run(self, inputs: InferenceInputs, pixels: int, encode: Encode, inline: bool) -> bytes:
        deadline = asyncio.get_running_loop().time() + self.settings.deadline_s
        # The batcher's own deadline is enough, unless the model has to be loaded first.
        if inline and inputs.generator.loaded and self.admission.try_acquire(pixels):
            try:
                return encode(await self._infer(inputs))
            finally:
                self.admission.release(pixels)
        try:
            async with asyncio.timeout_at(deadline):
                await self.admission.acquire(pixels)
                try:
                    images = await self._infer(inputs)
                except BaseException:
                    self.admission.release(pixels)
                    raise
                with tracing.span("encode"):
                    return await self.admission.encode(pixels, partial(encode, images))
        except TimeoutError:
            raise deadline_exceeded(self.metrics, self.settings.deadline_s) from None

    async def _infer(self, inputs: InferenceInputs) -> NDArray[np.uint8]:
        generator = inputs.generator
        if not generator.loaded:  # its session was evicted
            await self.repository.reload(generator)
        images = await self._batcher(generator).submit(inputs.latents, inputs.labels, self.settings.deadline_s)
        self.metrics.count_images(generator.metadata.name, len(images))
        return images

    def _batcher(self, generator: ServedModel) -> Batcher:
        batcher = self._batchers.get(generator)
        if batcher is None:
            batcher = self._batchers[generator] = Batcher(
                generator.run,
                self._pool,
                generator.batch_rows,
                self.settings.max_queue_rows,
                self.metrics,
                generator.metadata.name,
            )
        if generator.replaced:  # replaced since this request chose it; the batcher is for this request only
            self._batchers.pop(generator, None)
        return batcher


async def _while_connected(work: Awaitable[bytes], receive: Receive) -> bytes:
    """Await `work`, cancelled if the client disconnects first."""
    task, gone = asyncio.current_task(), False
    assert task is not None

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone and not task.uncancel():  # nothing else cancels the request
            raise ClientDisconnectedError from None
        raise
    finally:
        watching.cancel()
