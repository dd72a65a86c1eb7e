"""What a source of images becomes, and what is between a source and its cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from artifacts.terminal import printable


class ImageSetError(ValueError):
    """The image set cannot be had. The message is one line that says why and what to do."""

    def __init__(self, message: str) -> None:
        """Keep the message as one line without anything that a terminal acts on: it may name files."""
        super().__init__(printable(message))


class BrokenImageError(ValueError):
    """One image cannot be decoded; its set may still be usable without it."""


@dataclass(frozen=True)
class ImageSet:
    """Images in memory-mapped form.

    `images` is uint8 [N, H, W, C] in 0..255, read-only, C 1 or 3; `labels` int64 [N] or None;
    `class_names[label]` names a class. `info` is the JSON document beside the cached array: source,
    split, crop, resize, resolution, channels, n, fingerprint (sha256 of images and labels), skipped
    files, modes (of image files: how many had which of Pillow's, before conversion), several_frames (how many
    files had more than the one frame that was used), library versions; of a folder or zip also `contents`, one line
    on what the source holds.
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
        """sha256 over the shape, the pixels and the labels: equal for equal content."""
        return str(self.info["fingerprint"])


@dataclass(frozen=True)
class Items:
    """An opened source; `decode(i)`: uint8 [resolution, resolution, channels], or BrokenImageError.

    Of image files, decoding i sets `modes[i]` to the file's mode, as `pixels.mode_of` returns it, and `frames[i]` to
    its number of frames.
    """

    count: int
    resolution: int
    channels: int
    decode: Callable[[int], np.ndarray]
    describe: Callable[[int], str]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    modes: list[str] | None = None
    frames: list[int] | None = None


@dataclass(frozen=True)
class Recipe:
    """All that decides the pixels of an image set, known without decoding any.

    Every field but the functions is in the cache's key. `resolution` or `channels` of None means
    "whatever the files have", which `identity` (what the content is) then decides.

    `summary` describes a built set's source, given its info: one line, and whether anything was left out.
    """

    source: str
    split: str
    crop: str
    resize: str
    resolution: int | None
    channels: int | None
    identity: str
    open_items: Callable[[], Items] = field(compare=False)
    summary: Callable[[dict[str, Any]], tuple[str, bool]] | None = field(default=None, compare=False)
