"""Files that hold many images: what kind a file is, which split its name means, and the images of several of them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from artifacts.terminal import printable
from imagesets.folder_contents import (
    ArchiveFile,
    Classes,
    Contents,
    file_name,
    merged_classes,
    strip_common_folders,
)
from imagesets.folder_layout import split_family
from imagesets.folder_scan import ARCHIVE_EXTENSIONS, list_files
from imagesets.formats.arrays import list_npy, list_npz
from imagesets.formats.labels import apply_label_files, name_by_folders
from imagesets.formats.parquet import list_parquet
from imagesets.formats.tar import list_tar
from imagesets.types import ImageSetError

# Each lists the images of files that belong together. Of several kinds in one folder the first is read.
_READERS: dict[str, Callable[[list[ArchiveFile]], Contents]] = {
    ".parquet": list_parquet,
    ".tar": list_tar,
    ".npz": list_npz,
    ".npy": list_npy,
}
_MARKS = ((0, b"PAR1", ".parquet"), (0, b"\x93NUMPY", ".npy"), (257, b"ustar", ".tar"), (0, b"PK\x03\x04", ".zip"))
# `-00000-of-00004`, `_0001`, or nothing but a number
_SHARD = re.compile(r"(?:^|[-_.])\d+(?:-of-\d+)?$")


def archive_kind(path: Path) -> str | None:
    """Return `.zip`, `.tar`, `.parquet`, `.npz` or `.npy` by a file's extension, else by its first bytes, or None."""
    extension = path.suffix.lower()
    if extension in ARCHIVE_EXTENSIONS:
        return extension
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return None
    return next((kind for at, mark, kind in _MARKS if head[at : at + len(mark)] == mark), None)


def all_contents(path: Path) -> Contents:
    """List an archive, a folder of images, or the archives in a folder, the images of each under its split.

    Raises:
        ImageSetError: If something cannot be read, or the archives in a folder are more than one set.
    """
    kind = archive_kind(path) if path.is_file() else None
    if kind not in (None, ".zip"):
        try:
            found = path.stat()
        except OSError as error:
            raise ImageSetError(f"cannot read {printable(path)}: {error.strerror}") from error
        version = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
        return _unwrapped(_READERS[kind]([ArchiveFile("", path, version)]))
    contents = list_files(path)
    if contents.members or kind:
        apply_label_files(contents, printable(path))
        if unread := [file.path for file in contents.archives if file.path.lower().endswith((".parquet", ".tar"))]:
            name = printable(unread[0])
            contents.notes.append(f"archives next to images are not read; to read one, name it ({name})")
        return _unwrapped(contents)
    if zips := [file for file in contents.archives if "/" not in file.path and file.path.lower().endswith(".zip")]:
        return _of_zips(contents, zips)
    for kind in _READERS:
        if files := _without_repeats([file for file in contents.archives if file.path.lower().endswith(kind)]):
            return _of_archives(contents, kind, files, printable(path))
    return contents


def _unwrapped(contents: Contents) -> Contents:
    name_by_folders(contents)
    contents.members = strip_common_folders(contents.members)
    return contents


def _of_zips(contents: Contents, zips: list[ArchiveFile]) -> Contents:
    """Return the images of the zips in a folder, each under its split or its name."""
    parts: list[Contents] = []
    splits: list[str | None] = []
    for file in sorted(zips, key=lambda file: file.path):
        inside = list_files(file.file)
        apply_label_files(inside, printable(file.path))
        stem = file_name(file.file.stem)
        last = stem.replace("_", "-").rpartition("-")[2]
        split = last if split_family(last) else None
        # A split's folders are judged together with the other splits', by layout.select_split.
        members = inside.members if split else strip_common_folders(inside.members)
        contents.members += [member.at(f"{split or stem}/{member.path}") for member in members]
        contents.left_out = contents.left_out + inside.left_out - Counter({file.file.suffix: 1})
        contents.notes += inside.notes
        parts.append(inside)
        splits.append(split)
    contents.classes = merged_classes({part.classes for part in parts})
    if contents.classes == "none" and not all(splits):  # the names of the zips are classes
        contents.classes = "folders"
    contents.members.sort(key=lambda member: member.path)
    name_by_folders(contents)
    return contents


def _of_archives(contents: Contents, kind: str, files: list[ArchiveFile], where: str) -> Contents:
    """Return the images of the archives of one kind in a folder, each under its split."""
    groups: dict[tuple[str, str], list[ArchiveFile]] = {}
    for file in files:
        folder, split, stem = _split_of(file.path)
        # A tar that is not a shard is like a folder of its name; other archives have no classes but labels.
        inner = "/".join(filter(None, (folder, stem))) if kind == ".tar" else folder
        groups.setdefault((split, inner), []).append(file)
    sets = {inner for _, inner in groups}
    if kind != ".tar" and len(sets) > 1:
        some = ", ".join(printable(name) or "." for name in sorted(sets)[:3])
        raise ImageSetError(f"{where} has {kind} files of several sets ({some}); name one folder")
    used = Counter(Path(file.path).suffix for file in files)
    read = Contents([], contents.left_out - used, contents.folders, contents.notes)
    classes: set[Classes] = set()
    for (split, inner), group in sorted(groups.items()):
        inside = _READERS[kind](sorted(group, key=lambda file: file.path))
        prefix = f"{inner}/" if kind == ".tar" and inner and len(sets) > 1 else ""
        for member in inside.members:
            # A key such as x_train has named the split already.
            under = "" if not split or split_family(member.path.split("/")[0]) else f"{split}/"
            read.members.append(member.at(f"{under}{prefix}{member.path}"))
        read.left_out += inside.left_out
        read.notes += [note for note in inside.notes if note not in read.notes]
        read.unit = inside.unit
        classes.add(inside.classes)
    read.classes = merged_classes(classes)
    read.members.sort(key=lambda member: member.path)
    return read


def _without_repeats(files: list[ArchiveFile]) -> list[ArchiveFile]:
    """Return the files without those that a link repeats."""
    kept: dict[str, ArchiveFile] = {}
    for file in sorted(files, key=lambda file: file.path):
        kept.setdefault(os.path.realpath(file.file), file)
    return list(kept.values())


def _split_of(path: str) -> tuple[str, str, str]:
    """Return the folder, the split and the rest of an archive's name, without the number of a shard.

    The split is a word of the name, or the nearest folder that is called like one: `train-00000-of-00002.parquet`,
    `data/train/0000.parquet`. It is empty where there is none.
    """
    *folders, name = path.split("/")
    words = re.split("[-_.]", _SHARD.sub("", name.rpartition(".")[0]))
    found = [word for word in words if split_family(word)]
    split = found[0] if len(found) == 1 else ""
    if split:
        words.remove(split)
    else:
        split = next((folder for folder in reversed(folders) if split_family(folder)), "")
    return "/".join(folder for folder in folders if not split_family(folder)), split, "-".join(filter(None, words))
