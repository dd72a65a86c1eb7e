"""Decode a dataset once into a cache entry: a folder with `images.npy`, `labels.npy` and `info.json`.

An entry is built under a temporary name, flushed to the disk and renamed, so a reader sees a whole one or none.
A file lock keeps two processes from doing the same work.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.arrays import RowWriter, drop_page_cache
from artifacts.files import file_lock, sync_folder
from artifacts.images.resolution import height_and_width, parse_resolution
from artifacts.resources import available_cpus
from artifacts.terminal import printable, progress
from imagesets.types import BrokenImageError, DatasetSpec, ImageSet, ImageSetError, OpenedDataset

log = logging.getLogger("imagesets")

FORMAT_VERSION = 1
MAX_RESOLUTION = 4096
MAX_BROKEN_SHARE = 0.01
VERIFY_UP_TO_BYTES = 512 * 1024 * 1024  # hashing more than this on every start would be felt
PROGRESS_FROM = 2000  # images; less is done before a bar could be read
_CHUNK = 256
_SPARE_BYTES = 2**20  # on the disk, in addition to the arrays: headers, info.json, folders


def default_cache_root() -> Path:
    """Return $ATELIER_CACHE, else ~/.cache/gan-atelier/image-sets.

    Raises:
        ImageSetError: If a home folder is needed and the environment names none.
    """
    try:
        return Path(os.environ.get("ATELIER_CACHE") or Path.home() / ".cache/gan-atelier/image-sets").expanduser()
    except RuntimeError as error:  # no HOME, and a user without an account, as in many containers
        raise ImageSetError(
            "there is no home folder for the image cache: set ATELIER_CACHE (or HOME) to a folder that can be written"
        ) from error


def _key_fields(spec: DatasetSpec) -> dict[str, Any]:
    """Return everything that decides the pixels."""
    fields = {name: getattr(spec, name) for name in ("source", "split", "crop", "resize", "resolution", "channels")}
    if isinstance(spec.resolution, str):  # a rectangle
        fields["crop"] = "center-aspect"
    return fields | {"identity": spec.content_hash}


def cache_key(spec: DatasetSpec) -> str:
    """Return an entry's name: the source and 20 hex digits over everything that decides the pixels."""
    fields = {"format": FORMAT_VERSION, **_key_fields(spec)}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:20]
    slug = re.sub(r"[^a-z0-9]+", "-", spec.source.lower()).strip("-")[-40:]
    return f"{slug}-{re.sub(r'[^0-9A-Za-z_.-]+', '-', spec.split)[:40]}-{digest}"


def load_or_build(spec: DatasetSpec, name: str, cache_root: Path, show_progress: bool) -> ImageSet:
    """Return the cached image set of a dataset, decoded first if it is absent, stale or damaged."""
    spec = with_native_format(spec, name, cache_root)
    entry = cache_root / cache_key(spec)
    found = _read(entry, name)
    if found is None:
        with contextlib.ExitStack() as stack:
            with _cache_errors(cache_root):
                cache_root.mkdir(parents=True, exist_ok=True)
                stack.enter_context(file_lock(cache_root / f".{entry.name}.lock"))
            found = _read(entry, name)  # another process may have built it while we waited
            if found is None:
                _build(spec, name, entry, show_progress)
                found = _read(entry, name)
    if found is None:
        raise ImageSetError(f"the image cache at {entry} was damaged while it was written; check the disk")
    if broken := len(found.info.get("skipped", ())):
        log.warning("%s: %d of %d images were broken and skipped", name, broken, broken + len(found))
    return found


def with_native_format(spec: DatasetSpec, name: str, cache_root: Path) -> DatasetSpec:
    """Return the specification with the files' own resolution and channels where it has none.

    They are kept in a small file, so that the images need not be looked at again, and a set has one entry whether its
    own format was given or left out.
    """
    if spec.resolution is not None and spec.channels is not None:
        return spec
    kept = cache_root / f"{cache_key(spec)}.json"
    try:
        native = json.loads(kept.read_text(encoding="utf-8"))
        resolution, channels = parse_resolution(native["own_resolution"]), int(native["channels"])
        if all(1 <= side <= MAX_RESOLUTION for side in height_and_width(resolution)) and channels in (1, 3):
            return replace(spec, resolution=resolution, channels=channels)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not looked at yet, or damaged
    items = _open_dataset(spec, name)
    with contextlib.suppress(OSError):  # it only saves time
        cache_root.mkdir(parents=True, exist_ok=True)
        found = json.dumps({"own_resolution": items.resolution, "channels": items.channels})
        building = kept.with_name(f".{kept.name}.{os.getpid()}")
        building.write_text(found, encoding="utf-8")
        building.replace(kept)
    return replace(spec, resolution=items.resolution, channels=items.channels, open=lambda: items)


def content_fingerprint(images: np.ndarray, labels: np.ndarray | None) -> str:
    """Return the sha256 (hex) over shape, pixels (uint8, C order) and labels (int64, little-endian).

    Args:
        images: uint8 [N, H, W, C]; the page cache of a mapped array is dropped block by block.
        labels: int64 [N], or None.
    """
    digest = hashlib.sha256(f"{list(images.shape)}".encode())
    for start in range(0, len(images), 4096):
        digest.update(np.ascontiguousarray(images[start : start + 4096]).data)
        drop_page_cache(images)
    digest.update(b"labels" if labels is not None else b"no labels")
    if labels is not None:
        digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def _read(entry: Path, name: str) -> ImageSet | None:
    """Return the entry as an image set, or None if it is absent, of another format or damaged."""
    try:
        info = json.loads((entry / "info.json").read_text(encoding="utf-8"))
        if info["format_version"] != FORMAT_VERSION:
            return None
        images = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(entry / "labels.npy", allow_pickle=False) if info["labels"] else None
        shape = (info["n"], *height_and_width(info["resolution"]), info["channels"])
        if images.dtype != np.uint8 or images.shape != shape or (labels is not None and labels.shape != shape[:1]):
            raise ValueError("the arrays are not those that info.json describes")
        if images.nbytes <= VERIFY_UP_TO_BYTES and content_fingerprint(images, labels) != info["fingerprint"]:
            raise ValueError("the fingerprint does not match")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        log.warning("the cached image set %s is damaged (%s); building it again", entry, error)
        return None
    if labels is not None:
        labels.flags.writeable = False
    return ImageSet(name, images, labels, tuple(info["class_names"]), info)


def _build(spec: DatasetSpec, name: str, entry: Path, show_progress: bool) -> None:
    for left_over in entry.parent.glob(f".{entry.name}.tmp-*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    items = _open_dataset(spec, name)
    with _cache_errors(entry.parent):
        _require_room(items, name, entry.parent)
        building = Path(tempfile.mkdtemp(prefix=f".{entry.name}.tmp-", dir=entry.parent))
    try:
        info = _decode_into(building, items, spec, name, show_progress)
        with _cache_errors(entry.parent):
            _write_durably(building / "info.json", json.dumps(info, indent=2).encode())
            building.chmod(0o755)
            sync_folder(building)
            _move_into_place(building, entry)
            sync_folder(entry.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _open_dataset(spec: DatasetSpec, name: str) -> OpenedDataset:
    try:
        items = spec.open()
    except OSError as error:
        raise ImageSetError(f"cannot read {name}: {_first_line(error)}") from error
    if items.count == 0:
        raise ImageSetError(f"{name} has no images")
    return items


def _require_room(items: OpenedDataset, name: str, folder: Path) -> None:
    """Raise ImageSetError unless the disk has room for the arrays and a margin."""
    row = math.prod(height_and_width(items.resolution)) * items.channels + (8 if items.labels is not None else 0)
    need = items.count * row + _SPARE_BYTES
    if (free := shutil.disk_usage(folder).free) >= need:
        return
    tenth = 2**20 / 10  # of a MiB; rounded up and down, so that the two never read the same
    wanted, there = math.ceil(need / tenth) / 10, math.floor(free / tenth) / 10
    raise ImageSetError(
        f"{name} needs {wanted:,.1f} MiB in {folder} but {there:,.1f} MiB are free; "
        "free some, or set ATELIER_CACHE to another disk"
    )


def _decode_into(
    building: Path, items: OpenedDataset, spec: DatasetSpec, name: str, show_progress: bool
) -> dict[str, Any]:
    from imagesets.decode import describe_crop  # Pillow: listing the datasets needs none

    path = building / "images.npy"
    with _cache_errors(building.parent):
        rows = RowWriter(path, (*height_and_width(items.resolution), items.channels))
    kept: list[int] = []
    skipped: list[dict[str, str]] = []
    allowed = items.count * MAX_BROKEN_SHARE

    def decode(start: int) -> list[np.ndarray | str]:
        results: list[np.ndarray | str] = []
        for i in range(start, min(start + _CHUNK, items.count)):
            try:
                results.append(items.decode(i))
            except (BrokenImageError, OSError) as error:  # an OSError here is of that image, not of the cache
                results.append(_first_line(error))
        return results

    threads, starts = min(16, available_cpus()), range(0, items.count, _CHUNK)
    shown = show_progress and items.count >= PROGRESS_FROM
    bar = progress(f"preparing {name}", items.count) if shown else contextlib.nullcontext(lambda _: None)
    with rows, bar as advance, ThreadPoolExecutor(threads) as pool:
        # A window of submitted chunks, not map(): what is decoded but not yet written stays bounded.
        window: list[Any] = []
        queue = iter(starts)
        for start in starts:
            while len(window) < 2 * threads and (upcoming := next(queue, None)) is not None:
                window.append(pool.submit(decode, upcoming))
            for i, result in enumerate(window.pop(0).result(), start):
                if isinstance(result, str):
                    skipped.append({"file": items.describe(i), "reason": result})
                    log.warning("skipping a broken image, %s: %s", items.describe(i), result)
                    if len(skipped) > allowed:
                        for pending in window:
                            pending.cancel()
                        raise ImageSetError(
                            f"{name}: more than {MAX_BROKEN_SHARE:.0%} of {items.count} images are broken, "
                            f"{items.describe(i)} among them ({result}); repair or remove them"
                        )
                else:
                    with _cache_errors(building.parent):
                        rows.append(result)
                    kept.append(i)
                advance(1)
        with _cache_errors(building.parent):
            rows.finish()
    labels = None
    if items.labels is not None:
        labels = items.labels[kept].astype(np.int64)
        packed = io.BytesIO()
        np.save(packed, labels, allow_pickle=False)
        with _cache_errors(building.parent):
            _write_durably(building / "labels.npy", packed.getvalue())
    content = content_fingerprint(np.load(path, mmap_mode="r", allow_pickle=False), labels)
    return {
        "format_version": FORMAT_VERSION,
        **_key_fields(spec),
        "n": len(kept),
        "labels": labels is not None,
        "class_names": list(items.class_names),
        "fingerprint": content,
        "skipped": skipped,
        "several_frames": sum(items.frames[i] > 1 for i in kept) if items.frames else 0,
        "modes": None if items.modes is None else dict(sorted(Counter(items.modes[i] for i in kept).items())),
        **(describe_crop([items.sizes[i] for i in kept], items.resolution) if items.sizes and kept else {}),
        **({"notes": list(items.notes)} if items.notes else {}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("numpy", "pillow")},
    }


@contextlib.contextmanager
def _cache_errors(cache_root: Path) -> Iterator[None]:
    """Turn the OSErrors of what writes the cache, and of nothing else, into one line that names ATELIER_CACHE."""
    try:
        yield
    except OSError as error:
        raise ImageSetError(
            f"cannot write the image cache at {cache_root}: {error.strerror or _first_line(error)}; "
            "set ATELIER_CACHE to a folder that can be written"
        ) from error


def _first_line(error: Exception) -> str:
    return printable(next(iter(str(error).splitlines()), type(error).__name__))


def _move_into_place(building: Path, entry: Path) -> None:
    if entry.exists():  # stale or damaged; readers that mapped it keep their pages
        graveyard = Path(tempfile.mkdtemp(prefix=f".{entry.name}.tmp-", dir=entry.parent))
        try:
            entry.rename(graveyard / "old")
        finally:
            shutil.rmtree(graveyard, ignore_errors=True)
    try:
        building.rename(entry)
    except OSError:
        if not (entry / "info.json").exists():  # else another process, without our lock, was first: as good
            raise


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
