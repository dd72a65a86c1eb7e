"""The image files of a folder or a zip, in sorted order, with a signature of what they are."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from artifacts.git_lfs import HINT, is_lfs_pointer_file
from imagesets.image_set import BrokenImageError, ImageSetError
from imagesets.pixels import MAX_FILE_BYTES

_JPEG = {".jpg", ".jpeg", ".jfif", ".jp2"}
EXTENSIONS = _JPEG | {".png", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".dib"}
EXTENSIONS |= {".ppm", ".pgm", ".pbm", ".pnm"}


class Member(Protocol):
    """One image file: a relative path with `/`, a stamp that changes with the content, and its bytes."""

    @property
    def path(self) -> str: ...
    @property
    def stamp(self) -> str: ...

    def read(self) -> bytes: ...


@dataclass(frozen=True)
class FileMember:
    path: str
    stamp: str
    file: Path

    def read(self) -> bytes:
        try:
            if self.file.stat().st_size > MAX_FILE_BYTES:
                raise BrokenImageError(f"the file is larger than {MAX_FILE_BYTES:,} bytes")
            return self.file.read_bytes()
        except OSError as error:
            raise BrokenImageError(error.strerror or str(error)) from error


class _Archive:
    """A zip opened once a thread: ZipFile's own lock would make parallel reads wait for each other."""

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
    path: str
    stamp: str
    name: str
    archive: _Archive

    def read(self) -> bytes:
        return self.archive.read(self.name)


@dataclass(frozen=True)
class Renamed:
    """A member under another path: split or wrapping folders taken away, or a zip's split put before."""

    path: str
    inner: Member

    @property
    def stamp(self) -> str:
        return self.inner.stamp

    def read(self) -> bytes:
        return self.inner.read()


def members_of(path: Path) -> list[Member]:
    """The images under a folder or in a zip, sorted by path, wrapping folders removed."""
    return unwrap(wrapped_members_of(path))


def wrapped_members_of(path: Path) -> list[Member]:
    """The images under a folder or in a zip, sorted by path, as they lie there."""
    members = _in_zip(path) if path.is_file() else _in_folder(path)
    return sorted(members, key=lambda member: member.path)


def unwrap(members: list[Member], keep: Set[str] = frozenset()) -> list[Member]:
    """Without the folders that every member lies in (`images/`, `img_align_celeba/`), down to one of `keep`."""
    while members and all("/" in member.path for member in members):
        top = {member.path.split("/", 1)[0] for member in members}
        if len(top) > 1 or top <= keep:
            break
        members = [Renamed(member.path.split("/", 1)[1], member) for member in members]
    return members


def signature_of(members: list[Member], class_names: tuple[str, ...] = ()) -> str:
    """sha256 over class names, paths and stamps (size and mtime of a file, CRC and size of a zip's member)."""
    digest = hashlib.sha256()
    for name in class_names:
        digest.update(f"{name}\0".encode("utf-8", "surrogatepass"))
    for member in members:
        digest.update(f"{member.path}\0{member.stamp}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _wanted(path: str) -> bool:
    parts = PurePosixPath(path).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and PurePosixPath(path).suffix.lower() in EXTENSIONS


def _in_folder(root: Path) -> list[Member]:
    members: list[Member] = []
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a symbolic link back up would loop for ever
            subfolders.clear()
            continue
        seen.add(real)
        for name in files:
            file = Path(folder, name)
            relative = file.relative_to(root).as_posix()
            if _wanted(relative):
                try:
                    stat = file.stat()
                except OSError:  # a dangling link; decoding will name it
                    members.append(FileMember(relative, "missing", file))
                    continue
                members.append(FileMember(relative, f"{stat.st_size} {stat.st_mtime_ns}", file))
    return members


def _in_zip(path: Path) -> list[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        what = HINT if is_lfs_pointer_file(path) else f"not a readable zip file ({error})"
        raise ImageSetError(f"{path} is {what}") from error
    shared = _Archive(path)
    found: dict[str, Member] = {}
    for entry in entries:
        name = entry.filename
        escapes = name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in name.split("/")
        if not entry.is_dir() and not escapes and _wanted(name):
            found[name] = ZipMember(name, f"{entry.CRC:08x} {entry.file_size}", name, shared)
    return list(found.values())
