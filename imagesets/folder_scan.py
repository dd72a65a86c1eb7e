"""List a folder or a zip: the image files, and a count of everything else, so that nothing is lost silently."""

from __future__ import annotations

import os
import stat
import zipfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from artifacts.terminal import printable
from imagesets.folder_contents import (
    HEAD_BYTES,
    Archive,
    ArchiveFile,
    Contents,
    ImageFile,
    file_name,
    is_utf8,
    read_file,
    strip_common_folders,
    zip_name,
)
from imagesets.types import ImageSetError

_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".jpx", ".jpf"}
EXTENSIONS = _JPEG | {".png", ".apng", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".dib"}
EXTENSIONS |= {".ppm", ".pgm", ".pbm", ".pnm"}

ARCHIVE_EXTENSIONS = {".zip", ".tar", ".parquet", ".npz", ".npy"}
# Files of labels, next to the images or in the folder of a split
LABEL_FILES = ("dataset.json", "metadata.csv", "metadata.jsonl")

# Synology writes a thumbnail of every image here
_THUMBNAIL_FOLDERS = {"@eadir"}
# Deleted files, snapshots and side files of macOS, Windows, Synology and QNAP
_SYSTEM_FOLDERS = {"__macosx", "$recycle.bin", "system volume information", "#recycle", "@recycle", "#snapshot"}
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
_LONGEST_EXTENSION = 12
# Folders that link to each other have endlessly many paths
_MOST_VISITS = 16
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_ENCRYPTED = 0x1
_MADE_ON_UNIX = 3


def members_of(path: Path) -> list[ImageFile]:
    """Return the images under a folder or in a zip, sorted by path, wrapping folders removed."""
    return strip_common_folders(list_files(path).members)


def list_files(path: Path) -> Contents:
    """List a folder or a zip, its images sorted by their paths in it.

    Raises:
        ImageSetError: If the folder or zip cannot be read, or the zip has two different members of one name.
    """
    contents = _list_zip(path) if path.is_file() else _list_folder(path)
    contents.members.sort(key=lambda member: member.path)
    if foreign := sum(not is_utf8(member.path) for member in contents.members):
        contents.notes.append(f"names that are not UTF-8: {foreign:,}")
    return contents


def exclusion_reason(path: str) -> str | None:
    """Return what a file is by its path, such as `thumbnail` or `.HEIC`, or None for an image."""
    parts = PurePosixPath(path).parts
    folded = [part.casefold() for part in parts]
    if not folded:
        return "file without extension"
    if any(part in _THUMBNAIL_FOLDERS for part in folded):
        return "thumbnail"
    if any(part in _SYSTEM_FOLDERS for part in folded) or folded[-1] in _SYSTEM_FILES:
        return "system file"
    if any(part.startswith(".") for part in parts):
        return "hidden file"
    extension = PurePosixPath(path).suffix
    if extension.lower() in EXTENSIONS:
        return None
    return printable(extension)[:_LONGEST_EXTENSION] if extension else "file without extension"


def _list_folder(root: Path) -> Contents:
    """List a folder and what is below it, links to folders included.

    A link back up is not followed, and links enter a folder at most `_MOST_VISITS` times.
    """
    contents = Contents([])
    found: list[ImageFile] = []
    not_entered: dict[str, set[str]] = {}
    visits: Counter[str] = Counter()
    real_root = os.path.realpath(root)
    # A folder, its path in the source, the real paths down to it, and whether a link led to it
    waiting: list[tuple[str, str, tuple[str, ...], bool]] = [(str(root), "", (real_root,), False)]
    links: list[tuple[str, str, tuple[str, ...], bool]] = []
    while waiting or links:
        folder, relative, chain, linked = waiting.pop() if waiting else links.pop()
        visits[chain[-1]] += linked
        if visits[chain[-1]] > _MOST_VISITS:
            not_entered.setdefault("link to a folder that was entered often", set()).add(chain[-1])
            continue
        try:
            with os.scandir(folder) as scanned:
                entries = list(scanned)
        except OSError as error:
            if not relative:
                raise ImageSetError(f"cannot read {printable(root)}: {error.strerror}") from error
            not_entered.setdefault("unreadable folder", set()).add(chain[-1])
            continue
        for entry in entries:
            path = f"{relative}{file_name(entry.name)}"
            here = f"{chain[-1].rstrip('/')}/{entry.name}"
            if _is_folder(entry):
                link = entry.is_symlink()
                real = os.path.realpath(entry.path) if link else here
                if real in chain or (link and _is_inside(real_root, real)):
                    not_entered.setdefault("link to a parent folder", set()).add(here)
                else:
                    (links if linked or link else waiting).append(
                        (entry.path, f"{path}/", (*chain, real), linked or link)
                    )
            elif (kind := exclusion_reason(path)) is not None:
                contents.left_out[kind] += 1
                _keep_aside(contents, path, kind, entry)
            elif (version := _file_version(entry)) is None:
                contents.left_out["pipe, socket or device"] += 1
            else:
                read = partial(read_file, Path(entry.path))
                head = partial(read, HEAD_BYTES)
                real = file_name(here) if linked else ""
                found.append(ImageFile(path, version, read, real, linked, read_head=head))
    if any(member.linked for member in found):
        base = file_name(real_root)
        found = [member if member.linked else replace(member, real=f"{base}/{member.path}") for member in found]
    contents.members.extend(found)
    contents.folders.update({kind: len(where) for kind, where in not_entered.items()})
    return contents


def _keep_aside(contents: Contents, path: str, kind: str, entry: os.DirEntry[str]) -> None:
    """Remember a file that is not an image but may hold images or labels."""
    is_archive = kind.lower() in ARCHIVE_EXTENSIONS
    if not (is_archive or is_label_file(path)) or (version := _file_version(entry)) in (None, "missing"):
        return
    if is_archive:
        contents.archives.append(ArchiveFile(path, Path(entry.path), version))
    else:
        contents.label_files.append(ImageFile(path, version, partial(read_file, Path(entry.path))))


def is_label_file(path: str) -> bool:
    """Return whether a path in a source is that of a file of labels, at most one folder deep."""
    return path.count("/") <= 1 and path.rpartition("/")[2] in LABEL_FILES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be searched
        return False


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _file_version(entry: os.DirEntry[str]) -> str | None:
    """Return a file's size and times, `missing` where it cannot be looked at, or None for what is not a file.

    The inode's change time is part of it: a program can set the modification time back but not this one.
    """
    try:
        found = entry.stat()
    except OSError:  # a dangling link; decoding will name it
        return "missing"
    if not stat.S_ISREG(found.st_mode):  # to read a pipe would wait for its writer
        return None
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _list_zip(path: Path) -> Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises many types on damaged directories
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageSetError(f"{printable(path)} is not a readable zip file ({printable(reason)})") from error
    contents = Contents([])
    shared = Archive(path)
    found: dict[str, ImageFile] = {}
    unknown = 0
    for entry in entries:
        name, known = zip_name(entry)
        if name.endswith("/"):
            continue
        if name.startswith("/") or ":" in name.split("/")[0] or ".." in name.split("/"):
            contents.left_out["path that leads out of the zip"] += 1
            continue
        member_path = PurePosixPath(name).as_posix()
        version = f"{entry.CRC:08x} {entry.file_size}"
        if (kind := exclusion_reason(member_path)) is not None:
            contents.left_out[kind] += 1
            if is_label_file(member_path):
                read = partial(shared.read, entry.filename, _problem(entry))
                contents.label_files.append(ImageFile(member_path, version, read))
            continue
        unknown += not known
        if member_path in found:
            if found[member_path].version != version:
                raise ImageSetError(
                    f"{printable(path)} has two different members called {printable(member_path)}; "
                    "unpack it, and name the folder"
                )
            contents.left_out["member that is repeated"] += 1
        read = partial(shared.read, entry.filename, _problem(entry))
        found[member_path] = ImageFile(member_path, version, read, read_head=partial(read, HEAD_BYTES))
    if unknown:
        contents.notes.append(f"names in an unknown encoding: {unknown:,}")
    contents.members.extend(found.values())
    return contents


def _problem(entry: zipfile.ZipInfo) -> str | None:
    """Return why a member cannot be read, as far as the zip's directory shows it."""
    if entry.flag_bits & _ENCRYPTED:
        return "encrypted; unpack the zip with its password, and name the folder"
    if entry.compress_type not in _COMPRESSIONS | {getattr(zipfile, "ZIP_ZSTANDARD", zipfile.ZIP_STORED)}:
        return (
            f"compressed by method {entry.compress_type}, which Python cannot read; unpack the zip, and name the folder"
        )
    if entry.create_system == _MADE_ON_UNIX and stat.S_ISLNK(entry.external_attr >> 16):
        return "a link, not an image; make the zip again with the files themselves"
    return None
