"""One pass over a source's images: fetched and decoded in one thread while features are extracted in another."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.extractors import Extracted, Extractor
from evaluation.sources import Draw, ImageBatch, ImageSource

_AHEAD = 4  # batches fetched before they are asked for


@dataclass
class Timing:
    """Where the time of a pass went. Fetching and extracting run at the same time."""

    images: int = 0
    seconds: float = 0.0
    fetching_s: float = 0.0
    extracting_s: float = 0.0

    def told(self) -> dict[str, float]:
        """Images a second: of the whole, and of either side by itself."""
        return {
            "seconds": round(self.seconds, 3),
            "images_per_s": round(self.images / max(self.seconds, 1e-9), 1),
            "generating_images_per_s": round(self.images / max(self.fetching_s, 1e-9), 1),
            "extracting_images_per_s": round(self.images / max(self.extracting_s, 1e-9), 1),
        }


def batch_size(extractor: Extractor) -> int:
    """Images a run of the extractor. A large network's activations for 64 images would be most of a gigabyte."""
    on_gpu = "CUDAExecutionProvider" in extractor.session.get_providers()
    return 64 if on_gpu or extractor.dim < 1024 else 16


def extracted(
    source: ImageSource, extractor: Extractor, draw: Draw, start: int, stop: int, timing: Timing
) -> Iterator[tuple[ImageBatch, Extracted]]:
    """Images start … stop-1 of a draw with their features, in order.

    Raises EvaluationError when images of another size than the source's come, features that are not finite, or
    fewer images than asked for.
    """
    began, seen = time.perf_counter(), 0
    with _ahead(source.batches(draw, start, stop, batch_size(extractor)), timing) as batches:
        for batch in batches:
            if batch.images.dtype != np.uint8 or batch.images.shape[1:] != source.shape:
                raise EvaluationError(
                    f"images came as {batch.images.dtype} {list(batch.images.shape[1:])}, not as the uint8 "
                    f"{list(source.shape)} that their source tells"
                )
            before = time.perf_counter()
            got = extractor(batch.images)
            timing.extracting_s += time.perf_counter() - before
            seen += len(batch.images)
            timing.images += len(batch.images)
            yield batch, got
            now = time.perf_counter()
            timing.seconds += now - began
            began = now
    if seen != stop - start:
        raise EvaluationError(f"the source gave {seen} of {stop - start} images")


@contextlib.contextmanager
def _ahead(batches: Iterator[ImageBatch], timing: Timing) -> Generator[Iterator[ImageBatch], None, None]:
    """The batches, pulled by a thread of their own, at most a few ahead; its errors are raised here."""
    waiting: queue.Queue[ImageBatch | BaseException | None] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(item: ImageBatch | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def fetch() -> None:
        try:
            before = time.perf_counter()
            for batch in batches:
                timing.fetching_s += time.perf_counter() - before
                put(batch)
                if stop.is_set():
                    return
                before = time.perf_counter()
            put(None)
        except BaseException as error:
            put(error)

    def arriving() -> Iterator[ImageBatch]:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=fetch, name="fetch", daemon=True)
    thread.start()
    try:
        yield arriving()
    finally:
        stop.set()
        thread.join(timeout=5.0)
