"""Image files of a folder or a zip: where each one is, how it is read, and a signature of all of them."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from imagesets.decode import MAX_FILE_BYTES
from imagesets.names import class_name
from imagesets.types import BrokenImageError


class Member(Protocol):
    """One image file: a relative path with `/`, a stamp that changes with the content, and its bytes.

    `real` is the file behind the links to folders that led to it, or "" where no link did in the whole source;
    `linked` whether a link to a folder led to this member.
    """

    @property
    def path(self) -> str: ...
    @property
    def stamp(self) -> str: ...
    @property
    def real(self) -> str: ...
    @property
    def linked(self) -> bool: ...

    def read(self) -> bytes: ...


@dataclass(frozen=True)
class FileMember:
    path: str
    stamp: str
    file: Path
    real: str = ""
    linked: bool = False

    def read(self) -> bytes:
        try:
            with self.file.open("rb") as handle:
                data = handle.read(MAX_FILE_BYTES + 1)
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

    def read(self, name: str) -> bytes:
        try:
            if not hasattr(self._local, "zip"):
                self._local.zip = zipfile.ZipFile(self.path)
            with self._local.zip.open(name) as handle:
                data: bytes = handle.read(MAX_FILE_BYTES + 1)
        except Exception as error:  # zipfile raises many types on damaged members
            raise BrokenImageError(f"{type(error).__name__}: {error}") from error
        if len(data) > MAX_FILE_BYTES:
            raise BrokenImageError(f"the member unpacks to more than {MAX_FILE_BYTES:,} bytes")
        return data


@dataclass(frozen=True)
class ZipMember:
    """A member of a zip. `problem` says why it cannot be read, where the zip's directory shows that already."""

    path: str
    stamp: str
    name: str
    archive: Archive
    problem: str | None = None
    real: str = ""
    linked: bool = False

    def read(self) -> bytes:
        if self.problem:
            raise BrokenImageError(self.problem)
        return self.archive.read(self.name)


@dataclass(frozen=True)
class Renamed:
    """A member under another path: split or wrapping folders removed, or a zip's split put in front."""

    path: str
    inner: Member

    @property
    def stamp(self) -> str:
        return self.inner.stamp

    @property
    def real(self) -> str:
        return self.inner.real

    @property
    def linked(self) -> bool:
        return self.inner.linked

    def read(self) -> bytes:
        return self.inner.read()


@dataclass
class Contents:
    """What a folder or zip holds: image files sorted by path, and everything else, counted by what it is.

    `left_out` counts files, `folders` counts folders that were not entered, `notes` are remarks on the names.
    """

    members: list[Member]
    left_out: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        """The number of files, images and others."""
        return len(self.members) + sum(self.left_out.values())


def unwrap(members: list[Member], keep: Set[str] = frozenset()) -> list[Member]:
    """Return members without the folders that hold all of them (`images/`), down to a class of `keep`."""
    while members and all("/" in member.path for member in members):
        top = {class_name(member.path.split("/", 1)[0]) for member in members}
        if len(top) > 1 or top <= keep:
            break
        members = [Renamed(member.path.split("/", 1)[1], member) for member in members]
    return members


def distinct(members: list[Member]) -> list[Member]:
    """Return members without those that are another member's file once more, reached through a link to a folder."""
    seen = {member.real for member in members if not member.linked}
    kept: list[Member] = []
    for member in members:
        if member.linked and member.real in seen:
            continue
        seen.add(member.real)
        kept.append(member)
    return kept


def signature_of(members: list[Member], class_names: tuple[str, ...] = ()) -> str:
    """Return the sha256 over class names, paths and stamps.

    A file's stamp is its size and the times of its last change; a zip member's its CRC and size.
    """
    digest = hashlib.sha256()
    for name in class_names:
        digest.update(f"{name}\0".encode("utf-8", "surrogatepass"))
    for member in members:
        digest.update(f"{member.path}\0{member.stamp}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
