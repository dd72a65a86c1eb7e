"""Types of the package: an image set, and a dataset on its way into the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from artifacts.images.resolution import Resolution
from artifacts.terminal import printable


class ImageSetError(ValueError):
    """The image set cannot be loaded. The message is one line: why, and what to do."""

    def __init__(self, message: str) -> None:
        """Keep the message as one line without anything that a terminal acts on: it may name files."""
        super().__init__(printable(message))


class BrokenImageError(ValueError):
    """One image cannot be decoded; its set may still be usable without it."""


class Header(NamedTuple):
    """The header of an image file: size in pixels as it is shown, Pillow's mode (`mode_of`), and format."""

    width: int
    height: int
    mode: str
    format: str


@dataclass(frozen=True)
class ImageSet:
    """Images of one resolution in a memory-mapped array.

    Attributes:
        name: `SOURCE@SPLIT`.
        images: uint8 [N, H, W, C] in 0..255, read-only; C is 1 (gray), 3 (RGB) or 4 (RGBA, straight alpha).
        labels: int64 [N], or None.
        class_names: `class_names[label]` is the name of a class; empty without labels.
        info: The JSON document of the cache entry: source, split, crop, resize, resolution, channels, n, fingerprint
            (sha256 of images and labels), skipped files, modes (number of image files by Pillow mode, before
            conversion), several_frames (number of files of which only the first frame is used), crop_keeps (mean share
            of a file's pixels that the crop keeps), typical_size (median height and width), library versions; of a
            folder or zip also `contents`, one line about what the source contains.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    info: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def fingerprint(self) -> str:
        """The sha256 over shape, pixels and labels: equal for equal content."""
        return str(self.info["fingerprint"])


@dataclass(frozen=True)
class OpenedDataset:
    """An opened dataset. `decode(i)` returns uint8 [H, W, channels] of its resolution, or raises BrokenImageError.

    For image files, decoding i sets `modes[i]` to the file's mode, as `decode.mode_of` returns it, `frames[i]` to its
    number of frames and `sizes[i]` to its height and width. `notes` are remarks for the line about what the source
    contains. `header(i)` returns the header of image file i without decoding it, or raises BrokenImageError.
    """

    count: int
    resolution: Resolution
    channels: int
    decode: Callable[[int], np.ndarray]
    describe: Callable[[int], str]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    modes: list[str] | None = None
    frames: list[int] | None = None
    sizes: list[tuple[int, int]] | None = None
    notes: tuple[str, ...] = ()
    header: Callable[[int], Header] | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """Everything that decides the pixels of an image set, known before any image is decoded.

    Every field except the functions is part of the cache key. A `resolution` or `channels` of None means that of the
    files, which `content_hash` (a hash of what the files contain) then decides. `summary` takes a built set's info and
    returns one line that describes the source, and whether anything was left out.
    """

    source: str
    split: str
    crop: str
    resize: str
    resolution: Resolution | None
    channels: int | None
    content_hash: str
    open: Callable[[], OpenedDataset] = field(compare=False)
    summary: Callable[[dict[str, Any]], tuple[str, bool]] | None = field(default=None, compare=False)
