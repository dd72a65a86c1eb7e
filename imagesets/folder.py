"""`folder:PATH`: a folder or a zip of images, flat or a folder a class, of any size, mode and format."""

from __future__ import annotations

import hashlib
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from imagesets.image_set import BrokenImageError, ImageSetError, Items, Recipe
from imagesets.members import Member, Renamed, members_of, signature_of, unwrap, wrapped_members_of
from imagesets.pixels import Filter, decode_image, mode_of, peek

SPLIT_FOLDERS = ("train", "test", "val", "valid", "validation")
TEST_TENTHS = 1  # of ten: the hold-out of a folder that has no split of its own
RESIZE: Filter = "pil-bilinear"


def folder_recipe(text: str, resolution: int | None, channels: int | None) -> Recipe:
    """The recipe of what follows `folder:`: PATH or PATH@SPLIT."""
    path, split = _path_and_split(text)
    members = all_members(path)
    if not members:
        raise ImageSetError(f"no images in {path}; expected files such as .png or .jpg, or zips of them")
    folders = _split_folders(members, split)
    if folders:
        members = _level(members, folders)
    chosen = _of_split(members, split, folders, path)
    labels, class_names = _classes(chosen, members, folders)
    # The labels depend on the classes of the other splits too, so these are part of what the content is.
    identity = signature_of(chosen, class_names)

    def open_items() -> Items:
        return member_items(chosen, resolution, channels, str(path), labels, class_names)

    return Recipe(f"folder:{path}", split or "all", "centre-square", RESIZE, resolution, channels, identity, open_items)


def member_items(
    members: list[Member],
    resolution: int | None,
    channels: int | None,
    where: str,
    labels: np.ndarray | None = None,
    class_names: tuple[str, ...] = (),
) -> Items:
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
    modes = [""] * len(members)

    def decode(i: int) -> np.ndarray:
        data = members[i].read()
        modes[i] = mode_of(data)
        return decode_image(data, size, depth, RESIZE)

    return Items(
        count=len(members),
        resolution=size,
        channels=depth,
        decode=decode,
        describe=lambda i: members[i].path,
        labels=labels,
        class_names=class_names,
        modes=modes,
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


def all_members(path: Path) -> list[Member]:
    """The images of a zip, of a folder, or of the zips in a folder, each of these under its split or its name."""
    members = members_of(path)
    if members or path.is_file():
        return members
    zips = sorted(file for file in path.glob("*.zip") if not file.name.startswith("."))
    for file in zips:
        split = next((s for s in SPLIT_FOLDERS if file.stem == s or file.stem.endswith(f"-{s}")), None)
        # A split's own folders are judged beside the other splits', by _level.
        inside = wrapped_members_of(file) if split else members_of(file)
        members += [Renamed(f"{split or file.stem}/{member.path}", member) for member in inside]
    return sorted(members, key=lambda member: member.path)


def _split_folders(members: list[Member], split: str | None) -> set[str]:
    """The top folders that are splits: where the wanted one is there, or where they are all there is."""
    tops = {member.path.split("/", 1)[0] if "/" in member.path else "" for member in members}
    found = {top for top in tops if top and (top in SPLIT_FOLDERS or top == split)}
    return found if split in found or found == tops else set()


def _by_split(members: list[Member], folders: Set[str]) -> dict[str, list[Member]]:
    """The members of each split folder, by their paths in it; all under "" where there are no split folders."""
    if not folders:
        return {"": members}
    groups: dict[str, list[Member]] = {folder: [] for folder in sorted(folders)}
    for member in members:
        top, _, rest = member.path.partition("/")
        if rest and top in groups:
            groups[top].append(Renamed(rest, member))
    return groups


def _level(members: list[Member], folders: Set[str]) -> list[Member]:
    """The members of the split folders, without the folders that wrap all of one split (`train/images/`).

    A split's only folder is a class, and stays, when it is one of another split's several.
    """
    groups = _by_split(members, folders)
    known = {name for group in groups.values() for name in _tops(unwrap(group))}
    return [
        Renamed(f"{folder}/{member.path}", member)
        for folder, group in groups.items()
        for member in unwrap(group, keep=known)
    ]


def _of_split(members: list[Member], split: str | None, folders: Set[str], path: Path) -> list[Member]:
    if split is None:
        return members
    if split in folders:
        return [member for member in members if member.path.startswith(f"{split}/")]
    if split not in ("train", "test"):
        raise ImageSetError(f"{path} has no folder {split!r}; use @train or @test, or name a folder in it")
    if folders & set(SPLIT_FOLDERS):  # a hold-out over split folders would test on images that were trained on
        raise ImageSetError(
            f"{path} has no {split!r} beside {', '.join(sorted(folders))}; add it, or name one of these"
        )
    chosen = [member for member in members if held_out(member.path) == (split == "test")]
    if not chosen:
        raise ImageSetError(f"{path} has {len(members)} images, too few for a hold-out: its {split} split is empty")
    return chosen


def held_out(path: str) -> bool:
    """Whether a relative path is in the test tenth: by the path alone, so adding files moves no other."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 10 < TEST_TENTHS


def _tops(members: list[Member]) -> set[str]:
    """The top folders of members that all lie in one; none if any lies in none."""
    split = [member.path.partition("/") for member in members]
    return {top for top, _, _ in split} if all(rest for _, _, rest in split) else set()


def _classes(chosen: list[Member], every: list[Member], folders: Set[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """A label a chosen image, when each lies in a folder and all splits together have two or more folders.

    The names are those of every split, so that a label means the same in each.
    """
    class_names = tuple(sorted(set().union(*(_tops(group) for group in _by_split(every, folders).values()))))
    index = {name: label for label, name in enumerate(class_names)}
    depth = 1 if folders else 0  # below the split folder
    labels = [index.get(member.path.split("/")[depth], -1) for member in chosen]
    if len(class_names) < 2 or -1 in labels:
        return None, ()
    return np.array(labels, dtype=np.int64), class_names


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
