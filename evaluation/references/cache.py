"""Reference statistics: found where they were made before, made where they were not."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.files import lock_handle
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.extractors.extractor import file_stem
from evaluation.metrics.frechet import FeatureStatistics
from evaluation.references.file import ROWS, Reference, load_reference, save_reference
from evaluation.report.schema import now, versions
from evaluation.scoring.feature_store import collect
from evaluation.sources import Draw, ImageSetSource, array_image_set, resolve
from evaluation.sources.location import expanded
from imagesets import ImageSet, load_image_set
from imagesets.cache import default_cache_root


@dataclass(frozen=True)
class Places:
    """Where data sets lie, and where what is made of them is kept; None is $ATELIER_CACHE, else ~/.cache."""

    data_root: Path = Path("data")
    cache_root: Path | None = None

    @property
    def references(self) -> Path:
        """The folder of reference statistics that were made by themselves."""
        if self.cache_root is not None:
            return expanded(str(self.cache_root)) / "references"
        if folder := os.environ.get("ATELIER_CACHE"):
            return expanded(folder) / "references"
        return default_cache_root().parent / "references"

    def image_set(self, name: str, resolution: int | None = None, channels: int | None = None) -> ImageSet:
        """Return real images by any name that `resolve` reads: an image set, a folder, a zip or an array file.

        Args:
            name: The name.
            resolution: Side in pixels that the images are brought to; None: their own.
            channels: 1 or 3; None: their own. An array file keeps its own: extractors take both.

        Raises:
            EvaluationError: If the name is not that of real images.
            ImageSetError: If they cannot be had.
        """
        location = resolve(name).of_real_images()
        if location.kind == "statistics":
            raise EvaluationError(
                f"{name} holds statistics, where images are needed; `evaluation reference {name} --import-as NAME` "
                "imports those of another tool"
            )
        if location.kind == "arrays":
            assert location.path is not None
            return array_image_set(location.path, resolution)
        return load_image_set(
            location.name,
            resolution=resolution,
            channels=channels,
            data_root=self.data_root,
            cache_root=self.cache_root,
        )


def other_split(image_set: dict[str, Any]) -> str:
    """`SOURCE@SPLIT` of the real images on the other side. EvaluationError: this is neither train nor test."""
    other = {"test": "train", "train": "test"}.get(image_set.get("split") or "")
    if other is None:
        what = "@".join(str(image_set[key]) for key in ("source", "split") if image_set.get(key) is not None)
        raise EvaluationError(f"the reference is of {what}, not of a train or test split")
    return f"{image_set['source']}@{other}"


def make_reference(
    images: ImageSet,
    extractor: Extractor,
    output: Path,
    *,
    num_images: int | None = None,
    keep: frozenset[str] = frozenset({"features"}),
    work: Path | None = None,
) -> Reference:
    """Pass over an image set and write its reference file, with the rows named in `keep` beside it.

    Taken up again where it was stopped, in the folder `work`. Raises EvaluationError for fewer than 2 images, or
    features that do not vary.
    """
    source = ImageSetSource(images)
    warnings: list[str] = []
    n = len(images) if num_images is None else num_images
    if n > len(images):
        warnings.append(f"there are only {len(images)} images, fewer than the {n} asked for")
        n = len(images)
    if n < 2:
        raise EvaluationError(f"reference statistics need 2 images or more; {images.name} has {n}")
    warnings += size_warnings(n, "reference images", extractor)
    work = work or output.with_name(f".{output.name}.partial")
    key = _digest({"images": source.description, "n": n, "extractor": extractor.digest, "keep": sorted(keep)})
    folder = work / key[:20]
    done = collect(
        source, extractor, Draw(0, n), folder, keep=keep | {"labels"}, description=f"reference {images.name}"
    )
    if is_constant(done.statistics):
        raise EvaluationError(
            f"the images of {images.name} all have the same features: no distance to them means anything"
        )
    provenance = {
        "extractor": extractor.provenance() | {"path": str(extractor.path)},
        "image_set": source.description | {"class_names": list(images.class_names)},
        "n": n,
        "warnings": warnings,
        "versions": versions(),
        "created": now(),
    }
    labels = done.rows("labels")
    rows = {what: folder / f"{what}.npy" for what in ROWS if (folder / f"{what}.npy").is_file()}
    save_reference(output, done.statistics, provenance, labels=None if labels is None else np.array(labels), rows=rows)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        work.rmdir()
    return load_reference(output)


def cached_reference(
    name: str,
    extractor: Extractor,
    places: Places,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    num_images: int | None = None,
    keep: frozenset[str] = frozenset(),
) -> Reference:
    """The reference of an image set, made once for each (content, split, resolution, extractor with its resize).

    `keep`: the rows that the metrics at hand need; an entry that lacks them is made again with them.
    """
    images = places.image_set(name, resolution, channels)
    n = min(num_images or len(images), len(images))
    kept = ("source", "split", "crop", "resize", "resolution", "channels", "fingerprint")
    key = _digest({**{k: images.info[k] for k in kept}, "n": n, "extractor": extractor.digest})
    slug = re.sub(r"[^a-z0-9]+", "-", f"{images.info['source']}-{images.info['split']}".lower()).strip("-")[-40:]
    path = places.references / f"{slug}-{images.info['resolution']}px-{file_stem(extractor.name)}-{key[:16]}.npz"
    with _lock(path):
        if path.is_file():
            with contextlib.suppress(EvaluationError):  # a damaged entry is made again
                found = load_reference(path)
                named = found.image_set.get("class_names") == list(images.class_names)
                if named and all(getattr(found, what) is not None for what in keep):
                    return found
                keep = keep | {what for what in ROWS if getattr(found, what) is not None}
        return make_reference(images, extractor, path, num_images=n, keep=keep)


def size_warnings(n: int, what: str, extractor: Extractor) -> list[str]:
    """Loud words on too few images for so many features."""
    if n <= extractor.dim:
        return [
            f"{n} {what} for {extractor.dim} features: the covariance is singular and a Fréchet distance all but "
            "meaningless; take more"
        ]
    if extractor.dim >= 2048 and n < 2 * extractor.dim:
        return [f"{n} {what} are few for {extractor.dim} features; 10,000 are usual"]
    return []


def is_constant(statistics: FeatureStatistics) -> bool:
    """Whether no feature varies from image to image, so that nothing can be told from them."""
    return bool(np.trace(statistics.sigma) <= 1e-12 * float(statistics.mu @ statistics.mu))


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, ensure_ascii=False).encode(errors="backslashreplace")
    ).hexdigest()


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process makes an entry; others wait for it. Without `fcntl` the rename alone keeps them right."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock").open("a")
    except OSError as error:
        if not path.is_file():
            raise EvaluationError(f"cannot write the cache of references at {path.parent}: {error.strerror}") from error
        yield  # an entry in a folder that takes no files, such as a cache that is mounted read-only
        return
    with lock:
        lock_handle(lock.fileno(), path)
        yield
