"""Image files of a folder or a zip: their names, how each is read, and a signature of all of them."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import threading
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from artifacts.terminal import printable
from imagesets.decode import MAX_FILE_BYTES
from imagesets.types import BrokenImageError

# The place of a class in the order of classes, and its name. Classes with one name are one class.
Label = tuple[int, str]
# What the classes of a source are: its folders, the labels of its images, or nothing
Classes = Literal["folders", "labels", "none"]

HEAD_BYTES = 64 * 1024  # enough for the header of most image files; a photo's metadata may be larger

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field with the UTF-8 form of a name


@dataclass(frozen=True)
class ImageFile:
    """One image file of a folder or a zip.

    Attributes:
        path: Its path in the source, with `/`; split and wrapping folders are removed later.
        version: Text that changes with the content.
        read: Returns the content; raises BrokenImageError.
        real: The file behind the links to folders that led to it, or "" where no link did in the whole source.
        linked: Whether a link to a folder led to this file.
        label: The class that the source itself gives, or None where folders are the classes.
        read_head: Returns the first `HEAD_BYTES` of the content, where that is cheaper than all of it.
    """

    path: str
    version: str
    read: Callable[[], bytes] = field(repr=False)
    real: str = ""
    linked: bool = False
    label: Label | None = None
    read_head: Callable[[], bytes] | None = field(default=None, repr=False)

    def at(self, path: str) -> ImageFile:
        """Return the file under another path."""
        return replace(self, path=path)


@dataclass(frozen=True)
class ArchiveFile:
    """A file that may hold many images.

    Attributes:
        path: Its path in the folder that it was found in, with `/`.
        file: The file.
        version: Text that changes with the content.
    """

    path: str
    file: Path
    version: str


def read_file(file: Path, most: int = MAX_FILE_BYTES + 1) -> bytes:
    """Return a file's content, or its first `most` bytes; raise BrokenImageError."""
    try:
        with file.open("rb") as handle:
            data = handle.read(most)
    except OSError as error:
        raise BrokenImageError(error.strerror or str(error)) from error
    if len(data) > MAX_FILE_BYTES:
        raise BrokenImageError(f"the file is larger than {MAX_FILE_BYTES:,} bytes")
    return data


class Archive:
    """A zip opened once per thread: ZipFile's own lock would make parallel reads wait for each other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()

    def read(self, name: str, problem: str | None = None, most: int = MAX_FILE_BYTES + 1) -> bytes:
        """Return a member's content, or its first `most` bytes.

        Raises:
            BrokenImageError: If it cannot be read, or with a `problem` that the zip's directory shows.
        """
        if problem:
            raise BrokenImageError(problem)
        try:
            if not hasattr(self._local, "zip"):
                self._local.zip = zipfile.ZipFile(self.path)
            with self._local.zip.open(name) as handle:
                data: bytes = handle.read(most)
        except Exception as error:  # zipfile raises many types on damaged members
            raise BrokenImageError(f"{type(error).__name__}: {error}") from error
        if len(data) > MAX_FILE_BYTES:
            raise BrokenImageError(f"the member unpacks to more than {MAX_FILE_BYTES:,} bytes")
        return data


@dataclass
class Contents:
    """What a folder or zip holds: image files sorted by path, and everything else, counted by what it is.

    `left_out` counts files, `folders` counts folders that were not entered, `notes` are remarks on the names.
    `archives` are the files that may hold images, and `label_files` those that may hold labels: both are counted in
    `left_out` until they are read. `classes` is where classes come from, and `unit` what is counted.
    """

    members: list[ImageFile]
    left_out: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    archives: list[ArchiveFile] = field(default_factory=list)
    label_files: list[ImageFile] = field(default_factory=list)
    classes: Classes = "folders"
    unit: str = "files"

    @property
    def files(self) -> int:
        """The number of files, images and others."""
        return len(self.members) + sum(self.left_out.values())


def merged_classes(found: Set[Classes]) -> Classes:
    """Return what the classes of several archives that belong together are."""
    return "labels" if "labels" in found else "folders" if "folders" in found or not found else "none"


def strip_common_folders(members: list[ImageFile], keep: Set[str] = frozenset()) -> list[ImageFile]:
    """Return members without the folders that hold all of them (`images/`), down to a class of `keep`."""
    while members and all("/" in member.path for member in members):
        top = {class_name(member.path.split("/", 1)[0]) for member in members}
        if len(top) > 1 or top <= keep:
            break
        members = [member.at(member.path.split("/", 1)[1]) for member in members]
    return members


def drop_duplicates(members: list[ImageFile]) -> list[ImageFile]:
    """Return members without those that are another member's file once more, reached through a link to a folder."""
    seen = {member.real for member in members if not member.linked}
    kept: list[ImageFile] = []
    for member in members:
        if member.linked and member.real in seen:
            continue
        seen.add(member.real)
        kept.append(member)
    return kept


def files_signature(members: list[ImageFile], class_names: tuple[str, ...] = ()) -> str:
    """Return the sha256 over class names, paths, versions and given labels.

    A file's version is its size and the times of its last change; a zip member's its CRC and size.
    """
    digest = hashlib.sha256()
    for name in class_names:
        digest.update(f"{name}\0".encode("utf-8", "surrogatepass"))
    for member in members:
        given = "" if member.label is None else f"{member.label[1]}\0"
        digest.update(f"{member.path}\0{member.version}\0{given}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def class_name(folder: str) -> str:
    """Return the class that a folder's name means, in the composed Unicode form (NFC).

    macOS writes `é` as two code points on some file systems and Linux as one: both are one class.
    """
    return folder if folder.isascii() and folder.isprintable() else printable(unicodedata.normalize("NFC", folder))


def file_name(name: str) -> str:
    """Return a name of the file system read as UTF-8, whatever the locale's encoding is.

    Under another locale Python reads `é` as two characters, so that classes and the hold-out would depend on it.
    """
    if name.isascii() or sys.getfilesystemencoding() == "utf-8":
        return name
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def is_utf8(name: str) -> bool:
    """Return whether a file name was UTF-8 on its file system."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


def zip_name(entry: zipfile.ZipInfo) -> tuple[str, bool]:
    """Return a zip member's name with `/` between folders, and whether its encoding is known.

    A name without the UTF-8 flag is CP437 by the format, but macOS and many libraries write UTF-8 without the flag.
    Old Windows tools separate folders by a backslash.
    """
    name = entry.filename
    if entry.flag_bits & _UTF8_FLAG or name.isascii():
        return name.replace("\\", "/"), True
    known = True
    if (found := _unicode_path(entry.extra)) is not None:
        name = found
    else:
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeEncodeError:  # zipfile has read the Unicode path field itself
            pass
        except UnicodeDecodeError:
            known = False
    return name.replace("\\", "/"), known


def _unicode_path(extra: bytes) -> str | None:
    """Return the name in Info-ZIP's Unicode path field (version 1, a CRC, then UTF-8), or None without one."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == _UNICODE_PATH and size > 5:
            return extra[9 : 4 + size].decode("utf-8", "replace")
        extra = extra[4 + size :]
    return None
