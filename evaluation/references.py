"""Reference statistics: found where they were made before, made where they were not, imported where others did."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.collecting import collect
from evaluation.document import now, versions
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.reference_files import ROWS, Reference, load_reference, save_reference
from evaluation.sources import Draw, ImageSetSource
from evaluation.statistics import FeatureStatistics
from imagesets import ImageSet, load_image_set


@dataclass(frozen=True)
class Places:
    """Where data sets lie, and where what is made of them is kept; None is $ATELIER_CACHE, else ~/.cache."""

    data_root: Path = Path("data")
    cache_root: Path | None = None

    @property
    def references(self) -> Path:
        """The folder of reference statistics that were made by themselves."""
        if self.cache_root is not None:
            return self.cache_root.expanduser() / "references"
        default = Path.home() / ".cache/gan-atelier"
        return Path(os.environ.get("ATELIER_CACHE") or default).expanduser() / "references"

    def image_set(self, name: str, resolution: int | None = None, channels: int | None = None) -> ImageSet:
        """An image set as `imagesets` has it."""
        return load_image_set(
            name, resolution=resolution, channels=channels, data_root=self.data_root, cache_root=self.cache_root
        )


def other_split(image_set: dict[str, Any]) -> str:
    """`SOURCE@SPLIT` of the real images on the other side. EvaluationError: this is neither train nor test."""
    other = {"test": "train", "train": "test"}.get(image_set.get("split") or "")
    if other is None:
        what = f"{image_set.get('source')}@{image_set.get('split')}"
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
    path = places.references / f"{slug}-{images.info['resolution']}px-{extractor.name}-{key[:16]}.npz"
    with _lock(path):
        if path.is_file():
            with contextlib.suppress(EvaluationError):  # a damaged entry is made again
                found = load_reference(path)
                if all(getattr(found, what) is not None for what in keep):
                    return found
                keep = keep | {what for what in ROWS if getattr(found, what) is not None}
        return make_reference(images, extractor, path, num_images=n, keep=keep)


def import_reference(
    path: Path, extractor: Extractor, output: Path, *, called: str, resolution: int, num_images: int | None
) -> Reference:
    """Statistics that another tool made, as a reference file of ours that tells so.

    Known: `.npz` with mu and sigma (pytorch-fid, clean-fid, torch-fidelity's and EDM's), with `feats` or `features`
    float [N, d] (clean-fid's for KID), and `.npy` of features. Which extractor made them is the caller's word. Raises
    EvaluationError for what is not known, does not fit the extractor, or would have to be unpickled (StyleGAN's).
    """
    if path.suffix in (".pkl", ".pickle", ".pt", ".pth"):
        raise EvaluationError(
            f"{path} is a pickle, which runs code when it is read; where it was made, save its statistics with "
            "numpy.savez('reference.npz', mu=mu, sigma=sigma) and import that (StyleGAN's: mu = raw_mean / num_items, "
            "sigma = raw_cov / num_items - outer(mu, mu))"
        )
    stored = _arrays(path)
    features = next((stored[key] for key in ("features", "feats", "array") if key in stored), None)
    provenance: dict[str, Any] = {
        "extractor": extractor.provenance() | {"path": str(extractor.path)},
        "image_set": {
            "kind": "imported statistics",
            "name": called,
            "source": called.partition("@")[0],
            "split": called.partition("@")[2] or None,
            "resolution": resolution,
            "channels": None,
        },
        "imported": {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        "warnings": [],
        "versions": versions(),
        "created": now(),
    }
    if features is not None:
        if features.ndim != 2 or features.shape[1] != extractor.dim:
            raise EvaluationError(
                f"{path} has features {list(features.shape)}; {extractor.name}'s are [N, {extractor.dim}]"
            )
        if len(features) < 2 or not np.isfinite(features).all():
            raise EvaluationError(f"{path}: its {len(features)} features are too few, or not finite")
        statistics = FeatureStatistics.of(features)
        packed = output.with_name(f".{output.name}.features.npy")
        packed.parent.mkdir(parents=True, exist_ok=True)
        np.save(packed, features.astype(np.float32), allow_pickle=False)
        save_reference(output, statistics, provenance | {"n": statistics.n}, rows={"features": packed})
        return load_reference(output)
    if not {"mu", "sigma"} <= set(stored):
        raise EvaluationError(
            f"{path} holds {', '.join(sorted(stored)) or 'nothing'}; mu and sigma, or features, are known"
        )
    mu, sigma = stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64)
    if mu.shape != (extractor.dim,) or sigma.shape != (extractor.dim, extractor.dim):
        raise EvaluationError(
            f"{path} has mu {list(mu.shape)}, sigma {list(sigma.shape)}; {extractor.name} has {extractor.dim} features"
        )
    if num_images is None:
        raise EvaluationError(f"{path} does not tell how many images it is of; say so with --num-images")
    if (
        not np.isfinite(mu).all()
        or not np.isfinite(sigma).all()
        or not np.allclose(sigma, sigma.T, rtol=1e-6, atol=1e-9)
    ):
        raise EvaluationError(f"{path}: its statistics are not finite, or its sigma is not symmetric")
    statistics = FeatureStatistics.restored(num_images, mu, sigma * (num_images - 1))
    save_reference(output, statistics, provenance | {"n": num_images})
    return load_reference(output)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"array": loaded}
        with loaded:
            return {key: loaded[key] for key in ("mu", "sigma", "features", "feats") if key in loaded.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise EvaluationError(f"{path} is not a file of statistics, or is truncated ({str(error)[:100]})") from error


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
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process makes an entry; others wait for it. Without `fcntl` the rename alone keeps them right."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.with_name(f".{path.name}.lock").open("a")
    except OSError as error:
        raise EvaluationError(f"cannot write the cache of references at {path.parent}: {error.strerror}") from error
    with handle:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
