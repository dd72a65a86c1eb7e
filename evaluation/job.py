"""The work: fetch images and extract features at the same time, then compare the statistics."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.extractors import Extracted, Extractor
from evaluation.metrics.frechet import frechet_distance
from evaluation.progress import progress
from evaluation.sources import ImageBatch, ImageSetSource, ImageSource, open_source
from evaluation.statistics import FeatureStatistics, Reference
from imagesets import ImageSetError

BATCH = 64
_AHEAD = 4  # batches fetched before they are asked for
INCEPTION_DIM = 2048


@dataclass
class Pass:
    """One pass over a source's images: statistics, and where the time went."""

    statistics: FeatureStatistics
    seconds: float = 0.0
    fetching_s: float = 0.0
    extracting_s: float = 0.0

    def timing(self) -> dict[str, float]:
        """Images a second: of the whole, and of either side by itself (they run at the same time)."""
        n = self.statistics.n
        return {
            "seconds": round(self.seconds, 3),
            "images_per_s": round(n / max(self.seconds, 1e-9), 1),
            "generating_images_per_s": round(n / max(self.fetching_s, 1e-9), 1),
            "extracting_images_per_s": round(n / max(self.extracting_s, 1e-9), 1),
        }


@dataclass(frozen=True)
class Score:
    """A Fréchet distance under its full name (`fid10k`, `fd_classifier10k`), and what it was made of."""

    name: str
    value: float
    n: int
    images: Pass
    baseline: dict[str, Any] | None
    warnings: list[str] = field(default_factory=list)


def metric_name(metric: str, n: int) -> str:
    """`fid` and 10,000 → `fid10k`. N is part of the name: the distance is biased by it."""
    return f"{metric}{n // 1000}k" if n >= 1000 and n % 1000 == 0 else f"{metric}{n}"


def extract(
    source: ImageSource,
    extractor: Extractor,
    n: int,
    *,
    first_seed: int = 0,
    description: str = "scoring",
    see: Callable[[Extracted], None] | None = None,
) -> Pass:
    """Statistics of n images, fetched in one thread while features are extracted in another.

    `see` is shown every batch's features and logits. Raises EvaluationError when images of another size
    than the source's come, or features that are not finite.
    """
    done = Pass(FeatureStatistics(extractor.dim))
    started = time.perf_counter()
    with progress(description, n) as advance, _ahead(source.batches(first_seed, n, BATCH), done) as batches:
        for batch in batches:
            if batch.images.dtype != np.uint8 or batch.images.shape[1:] != source.shape:
                raise EvaluationError(
                    f"images came as {batch.images.dtype} {list(batch.images.shape[1:])}, not as the uint8 "
                    f"{list(source.shape)} that their source tells"
                )
            before = time.perf_counter()
            extracted = extractor(batch.images)
            done.statistics.update(extracted.features)
            if see is not None:
                see(extracted)
            done.extracting_s += time.perf_counter() - before
            advance(len(batch.images))
    done.seconds = time.perf_counter() - started
    if done.statistics.n != n:
        raise EvaluationError(f"the source gave {done.statistics.n} of {n} images")
    return done


def how_many(source: ImageSource, wanted: int, warnings: list[str]) -> int:
    """The number of images to score. Raises EvaluationError below 2, which have no covariance."""
    limit = source.limit()
    if limit is not None and limit < wanted:
        warnings.append(f"there are only {limit} images, fewer than the {wanted} asked for")
        wanted = limit
    if wanted < 2:
        raise EvaluationError(f"a Fréchet distance needs 2 images or more, not {wanted}")
    return wanted


def score(
    source: ImageSource,
    reference: Reference,
    extractor: Extractor,
    *,
    num_images: int,
    first_seed: int = 0,
    baseline: bool = True,
    data_root: Path | str = "data",
    cache_root: Path | str | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> Score:
    """The Fréchet distance of a source's images to the reference, with train-against-test beside it.

    Raises EvaluationError when the two cannot be compared: other extractor, other size, fewer than 2 images.
    `warn` is told each warning as it arises; all are in the result too.
    """
    warnings: list[str] = []
    _comparable(source, reference, extractor)
    n = how_many(source, num_images, warnings)
    warnings += _size_warnings(n, reference.n, extractor)
    real_channels = reference.provenance["image_set"].get("channels")
    if real_channels != source.shape[2]:
        warnings.append(f"the images have {source.shape[2]} channels, the reference's have {real_channels}")
    for text in warnings:
        warn(text)
    images = extract(source, extractor, n, first_seed=first_seed)
    value = _distance(images.statistics, reference)

    beside: dict[str, Any] | None = None
    if baseline:
        try:
            beside = train_against_test(reference, extractor, n, data_root=data_root, cache_root=cache_root)
        except (EvaluationError, ImageSetError) as error:
            warnings.append(f"no train-against-test baseline: {error}")
            warn(warnings[-1])
        else:
            if beside["n"] != n:
                warnings.append(
                    f"the baseline is of {beside['n']} images and the score of {n}: N biases the distance, "
                    "compare them with care"
                )
                warn(warnings[-1])
    return Score(metric_name(extractor.metric, n), value, n, images, beside, warnings)


def train_against_test(
    reference: Reference,
    extractor: Extractor,
    n: int,
    *,
    data_root: Path | str = "data",
    cache_root: Path | str | None = None,
) -> dict[str, Any]:
    """The distance of real images to the reference: of its source's other split, as near n as there are.

    It is what a perfect generator would get, and the scale on which a score can be read.
    """
    real = reference.provenance["image_set"]
    other = {"test": "train", "train": "test"}.get(real["split"])
    if other is None:
        raise EvaluationError(f"the reference is of {real['source']}@{real['split']}, not of a train or test split")
    name = f"{real['source']}@{other}"
    source = open_source(
        name,
        resolution=real["resolution"],
        channels=real["channels"],
        data_root=data_root,
        cache_root=cache_root,
    )
    taken = how_many(source, n, [])
    done = extract(source, extractor, taken, description=f"baseline {name}")
    return {
        "name": metric_name(extractor.metric, taken),
        "value": _distance(done.statistics, reference),
        "image_set": name,
        "against": f"{real['source']}@{real['split']}",
        "n": taken,
        "fingerprint": source.description["fingerprint"],
    }


def make_reference(
    source: ImageSetSource, extractor: Extractor, num_images: int | None
) -> tuple[FeatureStatistics, dict[str, Any], list[str]]:
    """Statistics of an image set and their provenance, for `save_reference`; and warnings."""
    warnings: list[str] = []
    n = how_many(source, num_images or source.limit() or 0, warnings)
    warnings += _size_warnings(n, None, extractor)
    done = extract(source, extractor, n, description=f"reference {source.description['name']}")
    provenance = {
        "extractor": extractor.provenance() | {"path": str(extractor.path)},
        "image_set": source.description,
        "n": n,
        "warnings": warnings,
    }
    return done.statistics, provenance, warnings


def _comparable(source: ImageSource, reference: Reference, extractor: Extractor) -> None:
    made_by = reference.provenance["extractor"]
    if made_by.get("digest") != extractor.digest:
        raise EvaluationError(
            f"the reference was made with extractor {made_by.get('name')} ({str(made_by.get('digest'))[:12]}), "
            f"not with {extractor.name} ({extractor.digest[:12]}); their features cannot be compared"
        )
    if len(reference.mu) != extractor.dim:
        raise EvaluationError(f"the reference has {len(reference.mu)} features, the extractor {extractor.dim}")
    resolution = reference.provenance["image_set"].get("resolution")
    height, width, _ = source.shape
    if (height, width) != (resolution, resolution):
        raise EvaluationError(
            f"the images are {height}x{width} and the reference's {resolution}x{resolution}: a resize between "
            f"them would be scored too; make a reference with --resolution {height}"
        )


def _size_warnings(n: int, n_reference: int | None, extractor: Extractor) -> list[str]:
    warnings = []
    for what, count in (("images", n), ("reference images", n_reference)):
        if count is None:
            continue
        if count <= extractor.dim:
            warnings.append(
                f"{count} {what} for {extractor.dim} features: the covariance is singular and the distance all "
                "but meaningless; take more"
            )
        elif extractor.dim >= INCEPTION_DIM and count < 2 * INCEPTION_DIM:
            warnings.append(f"{count} {what} are few for {extractor.dim} features; 10,000 are usual")
    return warnings


def _distance(statistics: FeatureStatistics, reference: Reference) -> float:
    value = frechet_distance(statistics.mu, statistics.sigma, reference.mu, reference.sigma)
    if not math.isfinite(value):
        raise EvaluationError("the distance is not finite; are the statistics sound?")
    return value


@contextlib.contextmanager
def _ahead(batches: Iterator[ImageBatch], done: Pass) -> Generator[Iterator[ImageBatch], None, None]:
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
                done.fetching_s += time.perf_counter() - before
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
