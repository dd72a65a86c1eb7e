"""`folder:PATH`: images of any size, mode and format in a folder or an archive, flat or one folder per class."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.images.alpha import RGBA
from artifacts.images.resolution import Resolution, height_and_width, resolution_of
from artifacts.terminal import printable
from imagesets.decode import (
    Filter,
    channels_of,
    decode_image,
    frames_of,
    header_of,
    is_color,
    is_transparent,
    mode_of,
    read_header,
)
from imagesets.folder_contents import Contents, ImageFile, files_signature
from imagesets.folder_layout import SplitLayout, select_split, split_family
from imagesets.formats.archives import all_contents, archive_kind
from imagesets.types import BrokenImageError, DatasetSpec, Header, ImageSetError, OpenedDataset

RESIZE: Filter = "pil-bilinear"
SCALED_RESIZE: Filter = "dct-scaled+pil-bilinear"
_CHUNK = 64  # images to look at before the search for a color one is decided
LARGE_CROP = 0.5  # share of the pixels below which the summary remarks on the crop: images beyond 2:1 as squares
MOST_ASPECT = 8.0  # of the resolution that it suggests
_MOST_KINDS = 6  # of what was left out in the summary's line
_PLURALS = {
    "file without extension": "files without extension",
    "further image of a sample": "further images of samples",
    "hidden file": "hidden files",
    "image next to the class folders": "images next to the class folders",
    "image outside the splits": "images outside the splits",
    "image that a link repeats": "images that a link repeats",
    "link in a tar": "links in a tar",
    "link to a folder that was entered often": "links to folders that were entered often",
    "link to a parent folder": "links to parent folders",
    "member that is repeated": "members that are repeated",
    "path that leads out of the tar": "paths that lead out of the tar",
    "path that leads out of the zip": "paths that lead out of the zip",
    "pipe, socket or device": "pipes, sockets or devices",
    "sparse file": "sparse files",
    "system file": "system files",
    "thumbnail": "thumbnails",
    "unreadable folder": "unreadable folders",
}
_ARCHIVES = (".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def folder_spec(text: str, resolution: Resolution | None, channels: int | None, resize: Filter = RESIZE) -> DatasetSpec:
    """Return the specification of the dataset that `folder:` names.

    Args:
        text: What follows `folder:`: PATH or PATH@SPLIT. Without a folder `all`, `@all` is everything, like PATH.
        resolution: Resolution in pixels, or None for the files' own.
        channels: 1 (gray), 3 (RGB), 4 (RGBA) or None for the files' own, 1 or 3.
        resize: How images are resized; `SCALED_RESIZE` decodes large JPEGs at a fraction of their size.

    Raises:
        ImageSetError: If there is no such folder or archive, or it has no images.
    """
    path, split = path_and_split(text)
    contents = all_contents(path)
    if not contents.members:
        left = _left_out(contents.left_out + contents.folders)
        raise ImageSetError(
            f"no images in {printable(path)}; expected files such as .png or .jpg, or archives of them "
            "(.zip, .tar, .parquet, .npz)" + (f" (there are {left})" if left else "")
        )
    if split == "all" and not any(member.path.startswith("all/") for member in contents.members):
        split = None
    layout = select_split(contents.members, split, path, contents.classes)
    chosen = layout.chosen
    # The labels depend on the classes of the other splits too, so these are part of what the content is.
    content_hash = files_signature(chosen, layout.class_names)
    source, split = f"folder:{printable(path)}", _split_name(split)

    def open_dataset() -> OpenedDataset:
        where, classes = printable(path), layout.class_names
        return open_image_files(chosen, resolution, channels, where, layout.labels, classes, resize)

    return DatasetSpec(
        source,
        split,
        "centre-square",
        resize,
        resolution,
        channels,
        content_hash,
        open_dataset,
        _summary(f"{source}@{split}", contents, layout),
    )


def open_image_files(
    members: list[ImageFile],
    resolution: Resolution | None,
    channels: int | None,
    where: str,
    labels: np.ndarray | None = None,
    class_names: tuple[str, ...] = (),
    resize: Filter = RESIZE,
) -> OpenedDataset:
    """Open image files as a dataset; without `resolution` all must have one size, which is found from the headers."""
    if resolution is None:
        sizes, native = _read_sizes(members, where)
        if len(sizes) > 1:
            some = ", ".join(f"{w}x{h}" for w, h in sorted(sizes)[:3])
            raise ImageSetError(
                f"the images in {where} have different sizes ({some}, ...); give a resolution: --resolution 64, or "
                "resolution=64 in Python"
            )
        width, height = next(iter(sizes))
        resolution = resolution_of(height, width)
        channels = channels or native
    size, depth = resolution, channels or _native_channels(members)
    modes = [""] * len(members)
    frames = [1] * len(members)
    whole = [(0, 0)] * len(members)

    def decode(i: int) -> np.ndarray:
        data = members[i].read()
        modes[i], frames[i] = mode_of(data), frames_of(data)
        pixels, whole[i] = decode_image(data, size, depth, resize)
        return pixels

    def header(i: int) -> Header:
        if (read_head := members[i].read_head) is not None:
            with contextlib.suppress(BrokenImageError):  # the header may be longer
                return header_of(read_head())
        return header_of(members[i].read())

    return OpenedDataset(
        count=len(members),
        resolution=size,
        channels=depth,
        decode=decode,
        describe=lambda i: printable(members[i].path),
        labels=labels,
        class_names=class_names,
        modes=modes,
        frames=frames,
        sizes=whole,
        header=header,
    )


def path_and_split(text: str) -> tuple[Path, str | None]:
    """Return the path and the split that `PATH` or `PATH@SPLIT` names; raise ImageSetError if nothing is there."""
    try:
        whole = Path(text).expanduser()
        before, at, split = text.rpartition("@")
        if not at or whole.exists():  # a path may contain an @
            path, chosen = whole, None
        else:
            path, chosen = Path(before).expanduser(), split
        if not text or not path.exists():
            raise ImageSetError(f"there is no folder or file at {printable(path) if text else '(empty path)'}")
        if not path.is_dir() and not (path.is_file() and archive_kind(path)):
            hint = "; unpack it, and name the folder" if path.suffix.lower() in _ARCHIVES else ""
            raise ImageSetError(
                f"{printable(path)} is neither a folder nor a .zip, .tar, .parquet, .npz or .npy file{hint}"
            )
        return path.resolve(), chosen
    except OSError as error:  # a name too long, a folder above that may not be searched
        raise ImageSetError(f"cannot read {printable(text)[:200]}: {error.strerror}") from error
    except (RuntimeError, ValueError) as error:  # ~ without a home, a null character
        if isinstance(error, ImageSetError):
            raise
        raise ImageSetError(f"cannot read {printable(text)}: {printable(error)}") from error


def _split_name(split: str | None) -> str:
    known = split_family(split) if split else None
    return "all" if split is None else known if known in ("train", "test") else printable(split)


def _read_sizes(members: list[ImageFile], where: str) -> tuple[set[tuple[int, int]], int]:
    """Return the sizes, and 1 channel if every image is gray, else 3. Broken images do not count."""

    def look(member: ImageFile) -> tuple[tuple[int, int], int] | str:
        try:
            return read_header(member.read())
        except BrokenImageError as error:
            return f"{printable(member.path)}: {error}"

    with ThreadPoolExecutor(4) as pool:
        looked = list(pool.map(look, members))
    seen = [found for found in looked if not isinstance(found, str)]
    if not seen:
        raise ImageSetError(f"no readable image in {where} ({looked[0]})")
    return {size for size, _ in seen}, max(depth for _, depth in seen)


def _native_channels(members: list[ImageFile]) -> int:
    """Return 1 if every readable image is gray, else 3; the first color image ends the search."""

    def look(member: ImageFile) -> int:
        try:
            return channels_of(member.read())
        except BrokenImageError:
            return 0

    found: set[int] = set()
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(members), _CHUNK):
            found.update(pool.map(look, members[start : start + _CHUNK]))
            if 3 in found:
                return 3
    return 1 if 1 in found else 3


def _summary(name: str, contents: Contents, layout: SplitLayout) -> Callable[[dict[str, Any]], tuple[str, bool]]:
    """Return a function of a built set's info that describes in one line what the source holds.

    The function returns the line, and whether images or folders were left out before decoding.
    """
    lost = contents.left_out + layout.left_out
    files, classes = contents.files, len(layout.class_names)
    counts = ", ".join(f"{printable(split)} {count:,}" for split, count in sorted(layout.counts.items(), key=_order))
    inside = "; ".join(filter(None, (counts, f"{classes:,} classes" if classes else "")))

    def line(info: dict[str, Any]) -> tuple[str, bool]:
        broken = len(info.get("skipped", ()))
        images = files - sum(lost.values()) - broken
        counted = files if contents.unit == "files" else len(contents.members)
        text = f"{name}: {images:,} of {counted:,} {contents.unit} are images" + (f" ({inside})" if inside else "")
        if left := _left_out(lost + contents.folders, broken):
            text += f"; left out: {left}"
        notes = [*contents.notes, *layout.notes, *reading_notes(info)]
        return "; ".join((text, *notes)), bool(lost + contents.folders) or bool(notes)

    return line


def reading_notes(info: dict[str, Any]) -> list[str]:
    """Return remarks on how the images of a built set were read."""
    notes = []
    color = sum(count for mode, count in (info.get("modes") or {}).items() if is_color(mode))
    if info["channels"] == 1 and color:
        notes.append(f"{color:,} in color, read as gray")
    modes = info.get("modes") or {}
    transparent = sum(count for mode, count in modes.items() if is_transparent(mode))
    opaque = sum(modes.values()) - transparent
    if info["channels"] == RGBA and opaque:
        notes.append(f"{opaque:,} without transparency, read as opaque")
    elif info["channels"] != RGBA and transparent:
        notes.append(f"{transparent:,} with transparency, drawn over white (channels=4 keeps it)")
    if info.get("crop_keeps", 1.0) < LARGE_CROP:
        notes.append(_crop_note(info))
    if several := info.get("several_frames"):
        notes.append(f"{several:,} with several frames, of which the first is used")
    return notes


def _crop_note(info: dict[str, Any]) -> str:
    """Return a remark on a crop that leaves out most of the images, with a resolution that fits them."""
    down, across = info["typical_size"]
    shorter = min(height_and_width(info["resolution"]))
    longer = shorter * round(min(MOST_ASPECT, max(down, across) / min(down, across)))
    fitting = resolution_of(*((longer, shorter) if down > across else (shorter, longer)))
    advice = "" if fitting == info["resolution"] else f"; a resolution of {fitting} (height x width) keeps more"
    lost = 1 - info["crop_keeps"]
    return f"the center crop leaves out {lost:.0%} of the pixels, of images of typically {down}x{across}{advice}"


def _order(count: tuple[str, int]) -> tuple[bool, bool, str]:
    """Sort train first, then test."""
    return split_family(count[0]) != "train", split_family(count[0]) != "test", count[0]


def _left_out(counts: Counter[str], broken: int = 0) -> str:
    """Return counts of what was left out, the most frequent first, as in `95 .HEIC, 20 thumbnails`."""
    merged: Counter[str] = Counter()
    spelling: dict[str, str] = {}
    for kind, count in counts.items():
        merged[spelling.setdefault(kind.casefold(), kind)] += count
    shown = merged.most_common(_MOST_KINDS)
    words = [f"{count:,} {kind if count == 1 else _PLURALS.get(kind, kind)}" for kind, count in shown if count]
    if rest := sum(merged.values()) - sum(count for _, count in shown):
        words.append(f"{rest:,} others")
    return ", ".join([*words, *([f"{broken:,} unreadable"] if broken else [])])
