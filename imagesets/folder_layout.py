"""Which folders of a source are splits, which are classes, and which images are neither."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from artifacts.terminal import printable
from imagesets.folder_contents import Classes, ImageFile, class_name, drop_duplicates, strip_common_folders
from imagesets.types import ImageSetError

# What people call the folder of a split, in any case
SPLIT_NAMES = {name: name for name in ("train", "test", "val")}
SPLIT_NAMES |= {"training": "train", "testing": "test", "valid": "val", "validation": "val"}
TEST_TENTHS = 1  # of ten: the hold-out of a folder without splits
STRAY_SHARE = 0.01  # of the images may be next to class folders without ending the classes; at least one


@dataclass
class SplitLayout:
    """The images of a split, with labels int64 [N] and class names where folders are classes.

    `counts` has the number of images of each split, `left_out` of images that are in no split or class.
    """

    chosen: list[ImageFile]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def split_family(name: str) -> str | None:
    """Return train, test or val for a folder that is called so in one of the usual ways, else None."""
    return SPLIT_NAMES.get(name.casefold())


def is_held_out(path: str) -> bool:
    """Return whether a relative path is in the test tenth. Only the path decides, so adding files moves no other."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 10 < TEST_TENTHS


def select_split(
    members: list[ImageFile],
    split: str | None,
    path: Path,
    classes: Classes = "folders",
) -> SplitLayout:
    """Choose the images of a split and label them by their folders, or by the labels that they have.

    Args:
        members: All images of the source, sorted by path, wrapping folders removed.
        split: The split, or None for everything.
        path: The source, for messages.
        classes: What the classes are: folders, the members' labels, or nothing.

    Raises:
        ImageSetError: If there is no such split, or the folders can be read in two ways.
    """
    layout = SplitLayout([])
    of_folders = classes == "folders"
    if of_folders:
        members = _aside(layout, *without_strays(members))
    folders = _split_folders(members, split, path)
    if folders:
        groups = _by_split(members, folders)
        if outside := len(members) - sum(map(len, groups.values())):
            layout.left_out["image outside the splits"] += outside
        members = _level(layout, groups, of_folders)
        layout.counts = {folder: len(group) for folder, group in groups.items()}
        wanted = _of_folder(members, split, folders, path)
        layout.chosen = drop_duplicates(wanted)
        layout.left_out["image that a link repeats"] += len(wanted) - len(layout.chosen)
    else:
        every = drop_duplicates(members)
        layout.left_out["image that a link repeats"] += len(members) - len(every)
        members, layout.chosen = every, every
        if split is not None:
            layout.chosen = _hold_out(layout, every, split, path)
    if classes == "labels":
        _label_as_given(layout, members)
    elif of_folders:
        _label_by_folder(layout, members, folders)
    return layout


def _label_by_folder(layout: SplitLayout, members: list[ImageFile], folders: Set[str]) -> None:
    layout.labels, layout.class_names = _classes(layout.chosen, members, folders)
    if layout.labels is None:
        classes: set[str] = set()
        for group in _by_split(members, folders).values():
            classes |= _tops([member for member in group if "/" in member.path])
        loose = sum(member.path.count("/") <= bool(folders) for member in layout.chosen)
        if len(classes) > 1 and loose:
            layout.notes.append(f"no classes: {loose:,} images are outside the class folders")
    layout.notes += _naming_remarks(layout.class_names)


def _label_as_given(layout: SplitLayout, members: list[ImageFile]) -> None:
    """Label the chosen images by the labels of the source; the classes are those of every split."""
    order: dict[str, int] = {}
    for member in members:
        if member.label is not None:
            place, name = member.label
            order[name] = min(place, order.get(name, place))
    class_names = tuple(sorted(order, key=lambda name: (order[name], name)))
    if unlabeled := sum(member.label is None for member in layout.chosen):
        layout.notes.append(f"no classes: {unlabeled:,} of {len(layout.chosen):,} images have no label")
    elif len(class_names) < 2:
        layout.notes.append(f"no classes: all images have the label {printable(class_names[0])}")
    else:
        index = {name: label for label, name in enumerate(class_names)}
        layout.labels = np.array([index[member.label[1]] for member in layout.chosen if member.label], dtype=np.int64)
        layout.class_names = class_names


def _naming_remarks(class_names: tuple[str, ...]) -> list[str]:
    """Return remarks on classes that may be meant as splits (`train2017`), or as one class (`Cat` and `cat`)."""
    notes = []
    words = {name: re.findall("[A-Z]?[a-z]+|[A-Z]+", name) for name in class_names}
    if splits := {name for name in class_names if any(map(split_family, words[name]))}:
        notes.append(f"folders that are called like splits are classes: {_few(sorted(map(printable, splits)))}")
    spellings: dict[str, set[str]] = {}
    for name in class_names:
        spellings.setdefault(name.casefold().strip(), set()).add(name)
    if alike := [_listed(names) for names in spellings.values() if len(names) > 1]:
        notes.append(f"classes that differ by case or spaces: {_few(alike)}")
    return notes


def without_strays(members: list[ImageFile], keep: Set[str] = frozenset()) -> tuple[list[ImageFile], list[ImageFile]]:
    """Return unwrapped members, and the few images next to folders that are otherwise classes or splits.

    One cover picture would end all classes. Where there are more, or no classes without them, they are members too.
    """
    limit = max(1, int(len(members) * STRAY_SHARE))
    unwrapped = inside = strip_common_folders(members, keep)
    strays: list[ImageFile] = []
    while loose := [member for member in inside if "/" not in member.path]:
        strays += loose
        inside = strip_common_folders([member for member in inside if "/" in member.path], keep)
        if len(strays) > limit:
            return unwrapped, []
    tops = _tops(inside)
    return (inside, strays) if len(tops) > 1 or (tops and tops <= keep) else (unwrapped, [])


def _aside(layout: SplitLayout, members: list[ImageFile], strays: list[ImageFile]) -> list[ImageFile]:
    if strays:
        layout.left_out["image next to the class folders"] += len(strays)
    return members


def _split_folders(members: list[ImageFile], split: str | None, path: Path) -> frozenset[str]:
    """Return the top folders that are splits: where the wanted one is there, or where they are all there is."""
    tops = {member.path.split("/", 1)[0] if "/" in member.path else "" for member in members}
    named = {top for top in tops if split_family(top)}
    if split and split in tops and not split_family(split):
        return frozenset(named | {split})
    families = Counter(split_family(top) for top in named)
    others = sorted(tops - named - {""})
    where = printable(path)
    if split is None or split_family(split) is None:
        if len(families) < 2 and named != tops:
            return frozenset()
        if split is None and named != tops:
            loose = [printable(top) for top in others] or ["images in no folder"]
            raise ImageSetError(
                f"{where} has the splits {_listed(named)} next to {_few(loose)}; "
                f"name a split ({where}@train), or move the rest away"
            )
    elif len(families) == 1 and others:
        name = min(named)
        raise ImageSetError(
            f"{where} has a folder {printable(name)} next to {_few([printable(top) for top in others])}: a split or a "
            f"class? Name the folder ({where}/{printable(name)}), or rename it"
        )
    wanted = {split_family(split)} if split else set(families)
    for one in sorted(filter(None, wanted)):
        if families[one] > 1:
            same = _listed({top for top in named if split_family(top) == one})
            raise ImageSetError(f"{where} has {same}, which are one split by their names; merge or rename them")
    return frozenset(named)


def _by_split(members: list[ImageFile], folders: Set[str]) -> dict[str, list[ImageFile]]:
    """Return the members of each split folder, by their paths in it; all under "" where there are no split folders."""
    if not folders:
        return {"": members}
    groups: dict[str, list[ImageFile]] = {folder: [] for folder in sorted(folders)}
    for member in members:
        top, _, rest = member.path.partition("/")
        if rest and top in groups:
            groups[top].append(member.at(rest))
    return groups


def _level(layout: SplitLayout, groups: dict[str, list[ImageFile]], of_folders: bool) -> list[ImageFile]:
    """Return the members of the splits, without the folders that wrap all of one split (`train/images/`).

    A split's only folder is a class, and stays, when it is one of another split's several.
    """
    if not of_folders:
        return [
            member.at(f"{folder}/{member.path}")
            for folder, group in groups.items()
            for member in strip_common_folders(group)
        ]
    known = {name for group in groups.values() for name in _tops(without_strays(group)[0])}
    return [
        member.at(f"{folder}/{member.path}")
        for folder, group in groups.items()
        for member in _aside(layout, *without_strays(group, keep=known))
    ]


def _of_folder(members: list[ImageFile], split: str | None, folders: Set[str], path: Path) -> list[ImageFile]:
    if split is None:
        return members
    chosen = {
        folder
        for folder in folders
        if folder == split or (split_family(split) and split_family(folder) == split_family(split))
    }
    if chosen:
        return [member for member in members if member.path.split("/", 1)[0] in chosen]
    _require_known(split, path)
    # A hold-out over split folders would test on images that were trained on.
    raise ImageSetError(f"{printable(path)} has no {split!r} next to {_listed(folders)}; add it, or name one of these")


def _hold_out(layout: SplitLayout, members: list[ImageFile], split: str, path: Path) -> list[ImageFile]:
    _require_known(split, path)
    in_test = [is_held_out(member.path) for member in members]
    layout.counts = {"train": in_test.count(False), "test": in_test.count(True)}
    chosen = [member for member, test in zip(members, in_test, strict=True) if test == (split_family(split) == "test")]
    if not chosen:
        raise ImageSetError(
            f"{printable(path)} has {len(members)} images, too few for a hold-out: its {split} split is empty"
        )
    return chosen


def _require_known(split: str, path: Path) -> None:
    if split_family(split) not in ("train", "test"):
        raise ImageSetError(f"{printable(path)} has no folder {split!r}; use @train or @test, or name a folder in it")


def _tops(members: list[ImageFile]) -> set[str]:
    """Return the classes that the top folders of members mean; none if any member is in no folder."""
    split = [member.path.partition("/") for member in members]
    return {class_name(top) for top, _, _ in split} if all(rest for _, _, rest in split) else set()


def _classes(
    chosen: list[ImageFile], every: list[ImageFile], folders: Set[str]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return a label per chosen image, when each is in a folder and all splits together have two or more folders.

    The names are those of every split, so that a label means the same in each.
    """
    class_names = tuple(sorted(set().union(*(_tops(group) for group in _by_split(every, folders).values()))))
    index = {name: label for label, name in enumerate(class_names)}
    depth = 1 if folders else 0  # below the split folder
    labels = [index.get(class_name(member.path.split("/")[depth]), -1) for member in chosen]
    if len(class_names) < 2 or -1 in labels:
        return None, ()
    return np.array(labels, dtype=np.int64), class_names


def _listed(names: Set[str]) -> str:
    return ", ".join(printable(name) for name in sorted(names))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
