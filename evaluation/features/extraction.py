"""Extract the features of a source's images: fetched in one thread, while another one runs the extractor."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np

from artifacts.terminal import progress
from evaluation.errors import EvaluationError
from evaluation.extractors import Extracted, Extractor
from evaluation.features.store import FeatureStore, Timing
from evaluation.sources import ImageBatch, ImageSource, SeedRange

_BATCHES_AHEAD = 4
_SAVE_EVERY_S = 1.0
_SAVE_SHARE = 0.05  # of the time at most: the state of 2048 features is 32 MB


def extract_features(
    source: ImageSource,
    extractor: Extractor,
    seeds: SeedRange,
    folder: Path,
    *,
    keep: frozenset[str] = frozenset(),
    start: int = 0,
    stop: int | None = None,
    description: str = "scoring",
) -> FeatureStore:
    """Extract the features of images start … stop-1 of a range, resuming what an earlier run left in `folder`.

    `keep` names those of `store.ROWS` to keep. Whatever ends it, what was extracted until then is kept.

    Raises:
        EvaluationError: As `iter_features` does, and if the model changed since the earlier run.
    """
    stop = seeds.n if stop is None else stop
    total = stop - start
    store = FeatureStore.open(folder, extractor.dim)
    if store.n > total:
        raise EvaluationError(f"{folder} holds {store.n} images of {total}; remove it and score again")
    with store.writing(), progress(description, total, store.n) as advance:
        saved, cost = time.monotonic(), 0.0
        for batch, extracted in iter_features(source, extractor, seeds, start + store.n, stop, store.timing):
            if store.digest and batch.digest != store.digest:
                raise EvaluationError(
                    f"the model changed: {store.n} images are of {store.digest[:12]}, the next of "
                    f"{batch.digest[:12]}; a score is of one model"
                )
            store.digest = batch.digest
            rows = {"features": extracted.features, "logits": extracted.logits, "labels": batch.labels}
            rows |= {"samples": batch.images}
            store.write({name: values for name, values in rows.items() if name in keep}, total)
            store.statistics.update(extracted.features)
            advance(len(batch.images))
            if time.monotonic() - saved > max(_SAVE_EVERY_S, cost / _SAVE_SHARE):
                began = time.monotonic()
                store.save()
                saved = time.monotonic()
                cost = saved - began
    return store


def iter_features(
    source: ImageSource, extractor: Extractor, seeds: SeedRange, start: int, stop: int, timing: Timing
) -> Iterator[tuple[ImageBatch, Extracted]]:
    """Yield images start … stop-1 of a range with their features, in order, and add to `timing`.

    Raises:
        EvaluationError: If images have another size than the source states, features are not finite, or there are
            fewer images than requested.
    """
    if start >= stop:
        return
    began, seen = time.perf_counter(), 0
    with _prefetch(source.batches(seeds, start, stop, extractor.batch_size), timing) as batches:
        for batch in batches:
            if batch.images.dtype != np.uint8 or batch.images.shape[1:] != source.shape:
                raise EvaluationError(
                    f"images are {batch.images.dtype} {list(batch.images.shape[1:])}, not uint8 "
                    f"{list(source.shape)} as their source states"
                )
            before = time.perf_counter()
            extracted = extractor(batch.images)
            timing.extracting_s += time.perf_counter() - before
            seen += len(batch.images)
            timing.images += len(batch.images)
            yield batch, extracted
            now = time.perf_counter()
            timing.seconds += now - began
            began = now
    if seen != stop - start:
        raise EvaluationError(f"the source returned {seen} of {stop - start} images")


@contextlib.contextmanager
def _prefetch(batches: Iterator[ImageBatch], timing: Timing) -> Generator[Iterator[ImageBatch], None, None]:
    """Pull the batches in a thread, at most a few ahead; its errors are raised here."""
    waiting: queue.Queue[ImageBatch | BaseException | None] = queue.Queue(_BATCHES_AHEAD)
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
