"""The features of real images: read from a reference file, or made once per image set and extractor and cached."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.files import lock_handle
from artifacts.images.resolution import Resolution
from artifacts.plugins import is_plugin, was_imported
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.extractors.extractor import file_stem
from evaluation.features.extraction import extract_features
from evaluation.features.store import FeatureSet
from evaluation.features.workdir import open_workdir, remove_workdir
from evaluation.json_files import json_digest, now, versions
from evaluation.metrics.frechet import FeatureStatistics
from evaluation.references.data_paths import DataPaths
from evaluation.references.reference_file import ROWS, Reference, load_reference, save_reference
from evaluation.sources import ImageSetSource, ImagesLike, SeedRange
from imagesets import ImageSet, ImageSetError

# What decides a cached reference, next to the extractor and the number of images.
_KEY_FIELDS = ("source", "split", "crop", "resize", "resolution", "channels", "fingerprint")


@dataclass(frozen=True)
class ReferenceSet:
    """The real side of a score: the reference, and for memorization the training images and those held out."""

    reference: Reference
    train: Reference | None = None
    held_out: Reference | None = None


def reference_features(
    reference: ImagesLike | Reference,
    extractor: Extractor,
    paths: DataPaths,
    *,
    resolution: Resolution,
    channels: int,
    needs: frozenset[str],
) -> ReferenceSet:
    """Return the features of a loaded reference, or of real images at this size, cached; with what metrics need.

    Among the needs, `train_features` adds the features of the other split.
    """
    size: dict[str, Any] = {"resolution": resolution, "channels": channels}
    if not isinstance(reference, Reference):
        keep = frozenset({"features"} if {"reference_features", "held_out_features"} & needs else ())
        reference = cached_reference(reference, extractor, paths, **size, keep=keep)
    if "train_features" not in needs:
        return ReferenceSet(reference)
    real = reference.image_set
    name = other_split(real)
    if reference.features is None:
        raise EvaluationError(f"memorization needs the features next to {reference.path}; make it again")
    size = {"resolution": real["resolution"], "channels": real["channels"]}
    try:
        other = cached_reference(name, extractor, paths, **size, keep=frozenset({"features"}))
    except ImageSetError as error:
        raise EvaluationError(f"memorization needs the other split of {real.get('source')} too: {error}") from error
    train, held_out = (reference, other) if real["split"] == "train" else (other, reference)
    return ReferenceSet(reference, train, held_out)


def check_runs_no_code(image_set: dict[str, Any]) -> None:
    """Raise EvaluationError if loading the images that a reference file records would import a module it names.

    A function that the user named has been imported already.
    """
    source = str(image_set.get("source")).partition("@")[0]
    if is_plugin(source) and not was_imported(source):
        raise EvaluationError(
            f"the reference is of {source}, and no code that a file names is run; name the function: "
            f"--reference {source}"
        )


def other_split(image_set: dict[str, Any]) -> str:
    """Return `SOURCE@SPLIT` of the other split; raise EvaluationError if this is neither train nor test."""
    check_runs_no_code(image_set)
    other = {"test": "train", "train": "test"}.get(image_set.get("split") or "")
    if other is None:
        name = "@".join(str(image_set[key]) for key in ("source", "split") if image_set.get(key) is not None)
        raise EvaluationError(f"the reference is of {name}, not of a train or test split")
    return f"{image_set['source']}@{other}"


def default_path(name: str, resolution: Resolution, extractor: Extractor) -> Path:
    """Return the path of a reference file for which none was given."""
    slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in name.removeprefix("folder:")).strip("-")
    return Path("reference") / f"{slug}-{resolution}px-{file_stem(extractor.name)}.npz"


def make_reference(
    images: ImageSet,
    extractor: Extractor,
    output: Path,
    *,
    num_images: int | None = None,
    keep: frozenset[str] = frozenset({"features"}),
) -> Reference:
    """Extract the features of an image set and write its reference file, resuming where an earlier run stopped.

    `num_images` is the size of a fixed subset, and `keep` are those of `ROWS` to keep. EvaluationError: there are fewer
    than 2 images, or all have the same features.
    """
    source = ImageSetSource(images)
    warnings: list[str] = []
    n = len(images) if num_images is None else num_images
    if n > len(images):
        warnings.append(f"there are only {len(images)} images, fewer than the {n} requested")
        n = len(images)
    if n < 2:
        raise EvaluationError(f"reference statistics need 2 images or more; {images.name} has {n}")
    warnings += size_warnings(n, "reference images", extractor)
    arguments = {"images": source.description, "n": n, "extractor": extractor.digest, "keep": sorted(keep)}
    provenance = {
        "extractor": extractor.provenance() | {"path": str(extractor.path)},
        "image_set": source.description | {"class_names": list(images.class_names)},
        "n": n,
        "warnings": warnings,
        "versions": versions(),
        "created": now(),
    }
    with open_workdir(output.with_name(f".{output.name}.partial"), arguments) as folder:
        store = extract_features(
            source, extractor, SeedRange(0, n), folder, keep=keep | {"labels"}, description=f"reference {images.name}"
        )
        if is_constant(store.statistics):
            raise EvaluationError(
                f"the images of {images.name} all have the same features: no distance to them means anything"
            )
        labels = store.rows("labels")
        rows = {name: folder / f"{name}.npy" for name in ROWS if (folder / f"{name}.npy").is_file()}
        save_reference(
            output, store.statistics, provenance, labels=None if labels is None else np.array(labels), rows=rows
        )
        remove_workdir(folder)
    return load_reference(output)


def cached_reference(
    name: ImagesLike,
    extractor: Extractor,
    paths: DataPaths,
    *,
    resolution: Resolution | None = None,
    channels: int | None = None,
    num_images: int | None = None,
    keep: frozenset[str] = frozenset(),
) -> Reference:
    """Return the reference of real images, made once per content, split, resolution, extractor and number of images.

    An entry without the rows that `keep` names is made again.
    """
    images = paths.load_images(name, resolution, channels)
    n = len(images) if num_images is None else min(num_images, len(images))
    key = json_digest({**{key: images.info[key] for key in _KEY_FIELDS}, "n": n, "extractor": extractor.digest})
    slug = re.sub(r"[^a-z0-9]+", "-", f"{images.info['source']}-{images.info['split']}".lower()).strip("-")[-40:]
    path = paths.references / f"{slug}-{images.info['resolution']}px-{file_stem(extractor.name)}-{key[:16]}.npz"
    with _lock(path):
        if path.is_file():
            with contextlib.suppress(EvaluationError):  # a damaged entry is made again
                found = load_reference(path)
                current = found.image_set.get("class_names") == list(images.class_names)
                if current and all(getattr(found, rows) is not None for rows in keep):
                    return found
                keep = keep | {rows for rows in ROWS if getattr(found, rows) is not None}
        return make_reference(images, extractor, path, num_images=n, keep=keep)


def size_warnings(n: int, what: str, extractor: Extractor) -> list[str]:
    """Return a warning if there are too few images for the number of features."""
    if n <= extractor.dim:
        return [
            f"{n} {what} for {extractor.dim} features: the covariance is singular and a Fréchet distance all but "
            "meaningless; take more"
        ]
    if extractor.dim >= 2048 and n < 2 * extractor.dim:
        return [f"{n} {what} are few for {extractor.dim} features; 10,000 are usual"]
    return []


def is_constant(features: FeatureSet | FeatureStatistics) -> bool:
    """Return whether no feature varies between images."""
    return bool(np.trace(features.sigma) <= 1e-12 * float(features.mu @ features.mu))


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process make an entry while others wait. Without file locks the rename alone keeps entries whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock").open("a")
    except OSError as error:
        if not path.is_file():
            raise EvaluationError(f"cannot write the cache of references at {path.parent}: {error.strerror}") from error
        yield  # an existing entry in a read-only cache
        return
    with lock:
        lock_handle(lock.fileno(), path)
        yield
