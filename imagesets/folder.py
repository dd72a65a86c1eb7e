"""`folder:PATH`: a folder or a zip of images, flat or a folder a class, of any size, mode and format."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from imagesets.image_set import BrokenImageError, ImageSetError, Items, Recipe
from imagesets.members import Member, Renamed, members_of, signature_of, unwrap
from imagesets.pixels import Filter, decode_image, peek

SPLIT_FOLDERS = ("train", "test", "val", "valid", "validation")
TEST_TENTHS = 1  # of ten: the hold-out of a folder that has no split of its own
RESIZE: Filter = "pil-bilinear"


def folder_recipe(text: str, resolution: int | None, channels: int | None) -> Recipe:
    """The recipe of what follows `folder:`: PATH or PATH@SPLIT."""
    path, split = _path_and_split(text)
    members = _all_members(path)
    if not members:
        raise ImageSetError(f"no images in {path}; expected files such as .png or .jpg, or zips of them")
    members, crop = _of_split(members, split, path), "centre-square"
    identity = signature_of(members)

    def open_items() -> Items:
        return member_items(members, resolution, channels, str(path))

    return Recipe(f"folder:{path}", split or "all", crop, RESIZE, resolution, channels, identity, open_items)


def member_items(members: list[Member], resolution: int | None, channels: int | None, where: str) -> Items:
    """Items of image files. Native size and channels are found from the headers, and must be one size."""
    if resolution is None or channels is None:
        sizes, native = _survey(members)
        if resolution is None:
            if len(sizes) > 1:
                some = ", ".join(f"{w}x{h}" for w, h in sorted(sizes)[:3])
                raise ImageSetError(f"the images in {where} have different sizes ({some}, ...); give a resolution")
            resolution = min(next(iter(sizes), (0, 0)))
            if resolution == 0:
                raise ImageSetError(f"no readable image in {where}")
        channels = channels or native
    size, depth = resolution, channels
    labels, class_names = _classes(members)
    return Items(
        count=len(members),
        resolution=size,
        channels=depth,
        decode=lambda i: decode_image(members[i].read(), size, depth, RESIZE),
        describe=lambda i: members[i].path,
        labels=labels,
        class_names=class_names,
    )


def _path_and_split(text: str) -> tuple[Path, str | None]:
    whole = Path(text).expanduser()
    before, at, split = text.rpartition("@")
    if not at or whole.exists():  # a path may hold an @ of its own
        path, chosen = whole, None
    else:
        path, chosen = Path(before).expanduser(), split
    if not text or not path.exists():
        raise ImageSetError(f"there is no folder or zip file at {path if text else '(empty path)'}")
    if path.is_file() and path.suffix.lower() != ".zip":
        raise ImageSetError(f"{path} is neither a folder nor a .zip file")
    return path.resolve(), chosen


def _all_members(path: Path) -> list[Member]:
    members = members_of(path)
    if members or path.is_file():
        return members
    zips = sorted(file for file in path.glob("*.zip") if not file.name.startswith("."))
    for file in zips:
        split = next((s for s in SPLIT_FOLDERS if file.stem == s or file.stem.endswith(f"-{s}")), file.stem)
        members += [Renamed(f"{split}/{member.path}", member) for member in members_of(file)]
    return sorted(members, key=lambda member: member.path)


def _of_split(members: list[Member], split: str | None, path: Path) -> list[Member]:
    if split is None:
        return members
    inside: list[Member] = [Renamed(m.path.split("/", 1)[1], m) for m in members if m.path.startswith(f"{split}/")]
    if inside:
        return unwrap(inside)
    if split not in ("train", "test"):
        raise ImageSetError(f"{path} has no folder {split!r}; use @train or @test, or name a folder in it")
    chosen = [member for member in members if held_out(member.path) == (split == "test")]
    if not chosen:
        raise ImageSetError(f"{path} has {len(members)} images, too few for a hold-out: its {split} split is empty")
    return chosen


def held_out(path: str) -> bool:
    """Whether a relative path is in the test tenth: by the path alone, so adding files moves no other."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 10 < TEST_TENTHS


def _classes(members: list[Member]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """A label an image when every one lies in one of two or more folders; split folders are no classes."""
    paths = [member.path.split("/") for member in members]
    if all(len(parts) > 1 and parts[0] in SPLIT_FOLDERS for parts in paths):
        paths = [parts[1:] for parts in paths]
    if any(len(parts) < 2 for parts in paths):
        return None, ()
    class_names = tuple(sorted({parts[0] for parts in paths}))
    if len(class_names) < 2:
        return None, ()
    index = {name: label for label, name in enumerate(class_names)}
    return np.array([index[parts[0]] for parts in paths], dtype=np.int64), class_names


def _survey(members: list[Member]) -> tuple[set[tuple[int, int]], int]:
    """The sizes, and 1 channel if every image is grey, else 3. Broken images have no say here."""

    def look(member: Member) -> tuple[tuple[int, int], int] | None:
        try:
            return peek(member.read())
        except BrokenImageError:
            return None

    with ThreadPoolExecutor(4) as pool:
        seen = [found for found in pool.map(look, members) if found is not None]
    return {size for size, _ in seen}, max((depth for _, depth in seen), default=3)
