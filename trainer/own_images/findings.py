"""What is found in a set of images: their number, sizes, colors and classes, and which are held out for the score."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifacts.images.resolution import Resolution, height_and_width
from artifacts.plugins import is_plugin
from imagesets import ImageSetError, full_name, split_of_union
from imagesets.decode import SCALED_MARGIN, is_color
from imagesets.inspection.headers import SetHeaders, count_images, read_headers, sample_pixels
from trainer.config import loading
from trainer.errors import TrainerError
from trainer.plugins import announce_import
from trainer.run_names import FOLDER

# Held-out images without which nothing is held out: `memorization` needs as many to set its threshold.
MIN_HELD_OUT = 20
GRAY_SAMPLE = 64  # images of which the colors are looked at
SAMPLE_SIDE = 32
TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa", "transparency")  # marks of Pillow's modes
PANORAMA = 2.5  # width by height, or height by width, from which most of an image is cropped away


@dataclass(frozen=True)
class Source:
    """Which images are trained on, and which are not.

    Attributes:
        train: What `data.source` is.
        reference: The held-out images, `SOURCE@SPLIT`, or None.
        held_out: Number of held-out images.
        is_given: Whether the user named the split.
    """

    train: str
    reference: str | None = None
    held_out: int = 0
    is_given: bool = False

    @property
    def base(self) -> str:
        """The source without a split."""
        return split_of_union(self.train)[0]

    @property
    def can_show_copies(self) -> bool:
        """Whether the metric `memorization` can be computed, which compares the train and the test split."""
        is_train = split_of_union(self.train)[1] in (None, "train")
        return is_train and self.held_out >= MIN_HELD_OUT and str(self.reference).endswith("@test")


@dataclass(frozen=True)
class Findings:
    """What the headers of the images, and a sample of their pixels, show.

    Attributes:
        source: The images.
        headers: Their headers.
        is_gray: Whether they have no colors, in files of any mode.
        sampled: Number of images whose colors were looked at; 0 where the modes show it.
    """

    source: Source
    headers: SetHeaders
    is_gray: bool
    sampled: int = 0

    @property
    def count(self) -> int:
        """Number of images to train on."""
        return self.headers.count

    @property
    def own_side(self) -> int | None:
        """The side in pixels if all images are squares of one size."""
        sizes = list(self.headers.sizes)
        return sizes[0][0] if len(sizes) == 1 and sizes[0][0] == sizes[0][1] else None

    @property
    def short_side(self) -> int:
        """The side in pixels that nine of ten images' shorter sides reach."""
        sides = sorted(Counter(min(size) for size in self.headers.sizes.elements()).elements())
        return sides[len(sides) // 10]

    @property
    def panoramas(self) -> int:
        """Number of images that are at least 2.5 times as long as wide, or as wide as long."""
        return sum(n for (w, h), n in self.headers.sizes.items() if max(w, h) >= PANORAMA * min(w, h))

    @property
    def smallest_class(self) -> tuple[str, int] | None:
        """The class with the fewest images and their number; None without classes."""
        counts = self.headers.class_counts
        if not counts:
            return None
        index = int(np.argmin(counts))
        return self.headers.class_names[index], counts[index]

    @property
    def has_transparency(self) -> bool:
        """Whether an image may be transparent."""
        return self.mode_count(*TRANSPARENT) > 0

    def mode_count(self, *marks: str) -> int:
        """Return how many images have a mode that contains one of these marks."""
        return sum(n for mode, n in self.headers.modes.items() if any(mark in mode for mark in marks))

    def scales_jpegs(self, resolution: Resolution) -> bool:
        """Return whether most images are JPEGs that need not be decoded in full size for a resolution."""
        jpegs = sum(self.headers.formats[name] for name in ("JPEG", "MPO"))
        return 2 * jpegs > self.headers.looked_at and self.short_side >= 2 * SCALED_MARGIN * max(
            height_and_width(resolution)
        )


def find(source: str, data_root: Path) -> Findings:
    """Look at the headers of a set's images, and at the colors of a few.

    Args:
        source: As `imagesets.load` takes it.
        data_root: Folder of the datasets that are downloaded.

    Raises:
        TrainerError: If it is the name of a preset.
        ImageSetError: If there is no such source, or it has no images.
    """
    if source in loading.preset_names() and not Path(source).exists():
        raise TrainerError(f"{source} is a preset, not a folder of images: trainer train --preset {source}")
    source = full_name(source.rstrip("/") or source)  # a shell completes a folder's name with a slash
    if is_plugin(source.partition("@")[0]):
        announce_import("data.source", source)
    split = choose_split(source, data_root)
    headers = read_headers(split.train, data_root)
    if not any(is_color(mode) for mode in headers.modes):
        return Findings(split, headers, is_gray=True)
    if FOLDER not in split.train:
        return Findings(split, headers, is_gray=False)
    sample = sample_pixels(split.train, data_root, GRAY_SAMPLE, SAMPLE_SIDE)
    return Findings(split, headers, is_gray=bool((sample == sample[..., :1]).all()), sampled=len(sample))


def choose_split(source: str, data_root: Path) -> Source:
    """Choose the images to train on: the train split if another one has enough images, else all.

    Args:
        source: A full name; a split in it is kept.
        data_root: Folder of the datasets that are downloaded.
    """
    base, split = split_of_union(source)
    held_out = 0
    for other in ("test", "val") if split in (None, "train") else ():
        try:
            held_out = count_images(f"{base}@{other}", data_root)
            count_images(f"{base}@train", data_root)
        except ImageSetError:
            continue
        if not held_out:
            continue
        if split is not None or FOLDER not in source:
            return Source(source, f"{base}@{other}", held_out, split is not None)
        if held_out >= MIN_HELD_OUT:
            return Source(f"{base}@train", f"{base}@{other}", held_out)
    return Source(source, is_given=split is not None)
