"""Several sources as one image set, `folder:a+folder:b`: their images in this order, their classes merged by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from artifacts.images.resolution import Resolution
from imagesets.folder import path_and_split, reading_notes
from imagesets.types import DatasetSpec, ImageSetError, OpenedDataset

# Makes the specification of one part at a resolution and channels
MakeSpec = Callable[[str, Resolution | None, int | None], DatasetSpec]


def split_union(name: str, is_source: Callable[[str], bool]) -> tuple[str, ...]:
    """Return the parts of a union, or the name alone.

    A part begins after each `+` that `folder:` or a dataset's name follows; any other `+` belongs to a path.

    Args:
        name: The name of an image set.
        is_source: Whether a text is the name of a dataset.
    """
    parts: list[str] = []
    for piece in name.split("+"):
        begins = piece.startswith("folder:") or is_source(piece.partition("@")[0])
        if parts and not begins:
            parts[-1] += f"+{piece}"
        else:
            parts.append(piece)
    return tuple(parts)


def with_common_split(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the parts with the split after the last one in those that name none."""
    split = _source_and_split(parts[-1])[1]
    if split is None:
        return parts
    return tuple(f"{part}@{split}" if _source_and_split(part)[1] is None else part for part in parts)


def union_and_split(parts: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the name of a union without its split, and the split, which is None where parts have different ones."""
    found = [_source_and_split(part) for part in with_common_split(parts)]
    if len({split for _, split in found}) > 1:
        return "+".join(parts), None
    return "+".join(source for source, _ in found), found[0][1]


def _source_and_split(part: str) -> tuple[str, str | None]:
    if part.startswith("folder:"):
        split = path_and_split(part.removeprefix("folder:"))[1]
        return part.removesuffix(f"@{split}") if split is not None else part, split
    source, at, split = part.partition("@")
    return source, split if at else None


def union_spec(
    parts: tuple[str, ...], resolution: Resolution | None, channels: int | None, make_spec: MakeSpec
) -> DatasetSpec:
    """Return the specification of several sources as one set.

    Args:
        parts: Names of the sources, each with its split.
        resolution: Resolution in pixels, or None for the sources' own, which then must be equal.
        channels: 1 (gray), 3 (RGB), 4 (RGBA) or None: RGB if a source is in color.
        make_spec: Makes the specification of one part.

    Raises:
        ImageSetError: If a part does not exist or is named twice.
    """
    specs = [make_spec(part, resolution, channels) for part in parts]
    names = [f"{spec.source}@{spec.split}" for spec in specs]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ImageSetError(f"{repeated} is given twice; name each part of a union once")
    splits = {spec.split for spec in specs}
    split = specs[0].split if len(splits) == 1 else "all"
    # The source loads the same images again. Where the parts differ, each has its split: the last part's would be
    # that of all parts without one. A named dataset without a split is its train split.
    is_common = len(splits) == 1 and (split != "all" or all(spec.source.startswith("folder:") for spec in specs))
    source = "+".join(spec.source for spec in specs) if is_common else "+".join(names)
    digest = hashlib.sha256()
    for spec in specs:
        digest.update("\0".join((spec.source, spec.split, spec.crop, spec.resize, spec.content_hash, "")).encode())

    def open_dataset() -> OpenedDataset:
        opened = [spec.open() for spec in specs]
        sides = {found.resolution for found in opened}
        if len(sides) > 1:
            some = ", ".join(f"{name} {found.resolution} px" for name, found in zip(names, opened, strict=True))
            raise ImageSetError(f"the parts have different sizes ({some}); give a resolution: --resolution 64")
        depth = max(found.channels for found in opened)
        for i, found in enumerate(opened):
            if found.channels != depth:
                opened[i] = make_spec(parts[i], found.resolution, depth).open()
        return _joined(names, opened)

    return DatasetSpec(
        source,
        split,
        "+".join(dict.fromkeys(spec.crop for spec in specs)),
        "+".join(dict.fromkeys(spec.resize for spec in specs)),
        resolution,
        channels,
        digest.hexdigest(),
        open_dataset,
        _summary(names, specs),
    )


def _joined(names: list[str], opened: list[OpenedDataset]) -> OpenedDataset:
    """Return opened datasets of one resolution as one; `describe` begins with the part's name."""
    ends = np.cumsum([found.count for found in opened])

    def at(i: int) -> tuple[int, int]:
        part = int(np.searchsorted(ends, i, side="right"))
        return part, i - int(ends[part] - opened[part].count)

    def decode(i: int) -> np.ndarray:
        part, row = at(i)
        found = opened[part]
        pixels = found.decode(row)
        if found.modes is not None:
            modes[i] = found.modes[row]
        if found.frames is not None:
            frames[i] = found.frames[row]
        if found.sizes is not None:
            sizes[i] = found.sizes[row]
        return pixels

    def describe(i: int) -> str:
        part, row = at(i)
        return f"{names[part]}: {opened[part].describe(row)}"

    count = int(ends[-1])
    modes, frames, sizes = [""] * count, [1] * count, [(0, 0)] * count
    labels, class_names = _merged_labels(opened)
    unlabeled = [name for name, found in zip(names, opened, strict=True) if found.labels is None]
    some = 0 < len(unlabeled) < len(names)
    of_files = all(found.modes is not None for found in opened)
    return OpenedDataset(
        count=count,
        resolution=opened[0].resolution,
        channels=opened[0].channels,
        decode=decode,
        describe=describe,
        labels=labels,
        class_names=class_names,
        modes=modes if of_files else None,
        frames=frames,
        sizes=sizes if of_files else None,
        notes=(f"no classes: {', '.join(unlabeled)} has none",) if some else (),
    )


def _merged_labels(opened: list[OpenedDataset]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return labels by the merged class names, in the order in which the parts name them; none if a part has none."""
    if any(found.labels is None for found in opened):
        return None, ()
    class_names = tuple(dict.fromkeys(name for found in opened for name in found.class_names))
    index = {name: label for label, name in enumerate(class_names)}
    labels = [
        np.array([index[name] for name in found.class_names], dtype=np.int64)[found.labels]
        for found in opened
        if found.labels is not None
    ]
    return np.concatenate(labels), class_names


def _summary(names: list[str], specs: list[DatasetSpec]) -> Callable[[dict[str, Any]], tuple[str, bool]]:
    """Return a function of the union's info that describes it and each part in one line."""

    def line(info: dict[str, Any]) -> tuple[str, bool]:
        classes = len(info["class_names"])
        texts = [f"{info['n']:,} images of {len(names)} parts" + (f" ({classes:,} classes)" if classes else "")]
        lost = False
        for name, spec in zip(names, specs, strict=True):
            if spec.summary is None:
                continue
            broken = [entry for entry in info.get("skipped", ()) if entry["file"].startswith(f"{name}: ")]
            text, part_lost = spec.summary(
                {**info, "skipped": broken, "modes": None, "several_frames": 0, "crop_keeps": 1.0}
            )
            texts.append(text)
            lost = lost or part_lost
        notes = [*info.get("notes", ()), *reading_notes(info)]
        return "; ".join([*texts, *notes]), lost or bool(notes)

    return line
