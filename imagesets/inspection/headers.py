"""Sizes, modes and formats of a source's images, from the headers of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from artifacts.images.resolution import height_and_width
from artifacts.resources import available_cpus
from imagesets.formats.union import with_common_split
from imagesets.registry import dataset_spec, full_name, union_parts
from imagesets.types import BrokenImageError, Header, ImageSetError, OpenedDataset

MOST_HEADERS = 20_000  # a fixed sample of larger sets
_ANY = {"resolution": 8, "channels": 3}  # given, so that opening a set reads no file


@dataclass(frozen=True)
class SetHeaders:
    """What the headers of a set's images show.

    Attributes:
        name: `SOURCE@SPLIT`.
        count: Number of images.
        sizes: How many of the images that were looked at have each (width, height).
        modes: How many have each of Pillow's modes, `+transparency` added where one color is transparent.
        formats: How many have each of Pillow's formats; empty for sets that are not files.
        unreadable: How many have no readable header.
        class_names: Names of the classes; empty without labels.
        class_counts: Number of images of each class.
    """

    name: str
    count: int
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    class_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()

    @property
    def looked_at(self) -> int:
        """The number of images that were looked at."""
        return sum(self.sizes.values()) + self.unreadable


def count_images(name: str, data_root: Path) -> int:
    """Return the number of images of a set, broken ones included; raises ImageSetError as `imagesets.load` does."""
    return _open(name, data_root).count


def read_headers(name: str, data_root: Path, most: int = MOST_HEADERS) -> SetHeaders:
    """Return what the headers of a set's images show, without decoding them.

    Args:
        name: As `imagesets.load` takes it.
        data_root: Folder of the datasets that are downloaded.
        most: Number of images above which a fixed sample of each part is looked at.

    Raises:
        ImageSetError: If there is no such source, or it has no readable image.
    """
    name = full_name(name)
    items = _open(name, data_root)
    counts = () if items.labels is None else tuple(np.bincount(items.labels, minlength=len(items.class_names)).tolist())
    found = SetHeaders(name, items.count, class_names=items.class_names, class_counts=counts)
    unreadable, reason = 0, ""
    for part in with_common_split(union_parts(name)):
        opened = _open(part, data_root)
        if opened.header is None:
            height, width = height_and_width(opened.resolution)
            found.sizes[width, height] += opened.count
            found.modes["L" if opened.channels == 1 else "RGB"] += opened.count
            continue
        with ThreadPoolExecutor(4) as pool:
            for header in pool.map(lambda i: _look(opened, i), _sample(opened.count, most)):  # noqa: B023  (used at once)
                if isinstance(header, str):
                    unreadable, reason = unreadable + 1, header
                    continue
                found.sizes[header.width, header.height] += 1
                found.modes[header.mode] += 1
                found.formats[header.format] += 1
    if not found.sizes:
        raise ImageSetError(f"no readable image in {name} ({reason})" if reason else f"{name} has no images")
    return SetHeaders(**{**vars(found), "unreadable": unreadable})


def sample_pixels(name: str, data_root: Path, most: int, side: int) -> np.ndarray:
    """Return a fixed sample of a set's readable images, uint8 [at most `most`, side, side, 3], in RGB.

    Args:
        name: As `imagesets.load` takes it.
        data_root: Folder of the datasets that are downloaded.
        most: Number of images.
        side: Side in pixels.
    """

    def decode(index: int) -> np.ndarray | None:
        try:
            return items.decode(int(index))
        except (BrokenImageError, OSError):
            return None

    items = dataset_spec(full_name(name), side, 3, data_root, scale_jpegs=True).open()
    with ThreadPoolExecutor(available_cpus()) as pool:
        found = [image for image in pool.map(decode, _sample(items.count, most)) if image is not None]
    return np.stack(found) if found else np.empty((0, side, side, 3), np.uint8)


def file_names(name: str, indices: Iterable[int], skipped: Collection[str], data_root: Path) -> dict[int, str]:
    """Return the names of images of a loaded set, by their index in it.

    Args:
        name: As `imagesets.load` takes it.
        indices: Indices of images.
        skipped: Names of the files that were left out because they are broken, as the set's info lists them.
        data_root: Folder of the datasets that are downloaded.
    """
    indices = set(indices)
    if not indices:
        return {}
    items = _open(name, data_root)
    found: dict[int, str] = {}
    index = 0
    for i in range(items.count):
        text = items.describe(i)
        if text in skipped:
            continue
        if index in indices:
            found[index] = text
        index += 1
    return found


def _open(name: str, data_root: Path) -> OpenedDataset:
    name = full_name(name)
    is_plain = len(union_parts(name)) == 1 and not name.startswith("folder:")
    format_ = {"resolution": None, "channels": None} if is_plain else _ANY
    try:
        return dataset_spec(name, data_root=data_root, **format_).open()
    except OSError as error:
        raise ImageSetError(f"cannot read {name}: {error.strerror or error}") from error


def _sample(count: int, most: int) -> np.ndarray:
    """Return all indices, or `most` of them, drawn by a fixed seed and sorted."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.argsort(np.random.Philox(key=0).random_raw(count), kind="stable")[:most])


def _look(opened: OpenedDataset, index: int) -> Header | str:
    assert opened.header is not None
    try:
        return opened.header(int(index))
    except (BrokenImageError, OSError) as error:
        return f"{opened.describe(int(index))}: {error}"
