"""Images in tar files: plain ones, and webdataset's, where `KEY.jpg` and `KEY.cls` are one sample.

A tar is indexed by its headers and read at offsets; nothing is extracted. Format of the samples:
https://github.com/webdataset/webdataset (the key is the path up to the first dot of the file name).
"""

from __future__ import annotations

import json
import re
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from artifacts.files import LFS_HINT, is_lfs_pointer_file
from artifacts.terminal import printable
from imagesets.decode import MAX_FILE_BYTES
from imagesets.folder_contents import ArchiveFile, Contents, ImageFile, is_utf8, merged_classes
from imagesets.folder_scan import EXTENSIONS, exclusion_reason, is_label_file
from imagesets.formats.labels import LabelError, LabelReader, apply_label_files
from imagesets.types import BrokenImageError, ImageSetError

BLOCK = 512
MAX_HEADER = 2**20  # bytes of one extended header, which holds a name
MAX_LABEL = 2**20  # bytes of a .cls or .json file
_KEY = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)")
_META = re.compile(r"__[^/]*__(?:$|/)")  # webdataset's notes on a shard
_PICKLED = {".pyd", ".pickle", ".pkl", ".pth", ".pt"}
_LABEL_EXTENSIONS = ("cls", "cls.txt", "json")  # the first that a sample has holds its label
_COMPRESSED = ((b"\x1f\x8b", "gunzip"), (b"BZh", "bunzip2"), (b"\xfd7zXZ", "unxz"), (b"\x28\xb5\x2f\xfd", "unzstd"))


class TarReader:
    """Read members of a tar by their offsets, with one handle per thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()

    def read(self, offset: int, size: int, limit: int = MAX_FILE_BYTES) -> bytes:
        """Return a member's content; raise BrokenImageError."""
        if size > limit:
            raise BrokenImageError(f"the member has more than {limit:,} bytes")
        try:
            if not hasattr(self._local, "file"):
                self._local.file = self.path.open("rb")
            self._local.file.seek(offset)
            data: bytes = self._local.file.read(size)
        except OSError as error:
            raise BrokenImageError(error.strerror or str(error)) from error
        if len(data) < size:
            raise BrokenImageError("the tar ends within the member")
        return data


def list_tar(files: list[ArchiveFile]) -> Contents:
    """List the images of tar files that are shards of one set, with the labels of their samples.

    Raises:
        ImageSetError: If a file is not a whole, uncompressed tar, or a label is not that of a class.
    """
    contents = Contents([])
    shards = [_list_one(file) for file in files]
    for inside in shards:
        contents.members += inside.members
        contents.left_out += inside.left_out
        contents.notes += [note for note in inside.notes if note not in contents.notes]
    contents.classes = merged_classes({inside.classes for inside in shards})
    contents.members.sort(key=lambda member: member.path)
    return contents


def _list_one(file: ArchiveFile) -> Contents:
    contents, reader, where = Contents([]), TarReader(file.file), printable(file.path or file.file)
    found: dict[str, tuple[ImageFile, int]] = {}
    foreign = 0
    samples: dict[str, dict[str, tuple[str, partial[bytes]]]] = {}
    for entry in _entries(file.file, where):
        name = entry.name
        if entry.isdir():
            continue
        if _META.match(name):
            contents.left_out["system file"] += 1
            continue
        if name.startswith("/") or ".." in name.split("/"):
            contents.left_out["path that leads out of the tar"] += 1
            continue
        path = PurePosixPath(name).as_posix()
        read = partial(reader.read, entry.offset_data, entry.size)
        kind = _exclusion(entry, path)
        if kind is None:
            foreign += not is_utf8(path)
            image = ImageFile(path, f"{file.version} {entry.offset_data} {entry.size}", read)
            if path in found:
                _require_equal(found[path][0], image, found[path][1] == entry.size, where)
                contents.left_out["member that is repeated"] += 1
                continue
            found[path] = (image, entry.size)
            continue
        contents.left_out[kind] += 1
        if kind.startswith(".") and (key := _KEY.fullmatch(path)):
            samples.setdefault(key[1], {})[key[2].lower()] = (kind, partial(read, limit=MAX_LABEL))
        if is_label_file(path):
            contents.label_files.append(ImageFile(path, file.version, read))
    contents.members = [image for image, _ in found.values()]
    if foreign:
        contents.notes.append(f"names that are not UTF-8: {foreign:,}")
    _label(contents, samples, where)
    if contents.classes != "labels":
        apply_label_files(contents, where)
    if pickled := sum(count for kind, count in contents.left_out.items() if kind.lower() in _PICKLED):
        contents.notes.append(f"pickled data is never read ({pickled:,} members)")
    return contents


def _exclusion(entry: tarfile.TarInfo, path: str) -> str | None:
    """Return what a member is that is not an image, or None."""
    if entry.issym() or entry.islnk():
        return "link in a tar"
    if not entry.isreg():
        return "pipe, socket or device"
    return "sparse file" if entry.issparse() else exclusion_reason(path)


def _require_equal(first: ImageFile, second: ImageFile, same_size: bool, where: str) -> None:
    try:
        if same_size and first.read() == second.read():
            return
    except BrokenImageError:
        pass
    raise ImageSetError(f"{where} has two different members called {printable(first.path)}; make it again")


class _BoundedFile:
    """A file whose reads are bounded: tarfile reads a whole extended header, of whatever size it claims."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER:
            raise tarfile.ReadError("a header is too long")
        return self._file.read(size)


def _entries(path: Path, where: str) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar; raise ImageSetError unless it is whole.

    tarfile ends without an error at a damaged header and at the end of a file that was cut between two members.
    """

    def broken(reason: object) -> ImageSetError:
        hint = LFS_HINT if is_lfs_pointer_file(path) else f"{printable(reason)}; fetch or make it again"
        return ImageSetError(f"{where} is not a whole tar file: {hint}")

    try:
        with path.open("rb") as file:
            head = file.read(8)
            if program := next((program for mark, program in _COMPRESSED if head.startswith(mark)), None):
                raise ImageSetError(f"{where} is a compressed tar; unpack it once: {program} {where}")
            file.seek(0)
            bounded: Any = _BoundedFile(file)
            archive: Any
            with tarfile.open(fileobj=bounded, mode="r:", errorlevel=2, encoding="utf-8") as archive:
                while entry := archive.next():
                    yield entry
                    archive.members = []  # tarfile would keep every one
                end = archive.offset
            file.seek(end)
            if file.read(BLOCK) != bytes(BLOCK):
                raise broken(f"it has no end mark at byte {end:,}")
            while rest := file.read(2**20):
                if rest.strip(b"\0"):
                    raise broken("data follows its end mark")
    except ImageSetError:
        raise
    except OSError as error:
        raise ImageSetError(f"cannot read {where}: {error.strerror or printable(error)}") from error
    except Exception as error:  # tarfile raises many types on damaged headers
        raise broken(error or type(error).__name__) from error


def _label(contents: Contents, samples: dict[str, dict[str, tuple[str, partial[bytes]]]], where: str) -> None:
    """Give the images the labels of their samples; leave out a labeled sample's further images."""
    reader, used, other = LabelReader(), Counter[str](), ""
    by_key: dict[str, list[int]] = {}
    for i, member in enumerate(contents.members):
        if (found := _KEY.fullmatch(member.path)) and found[1] in samples:
            by_key.setdefault(found[1], []).append(i)
    dropped: set[int] = set()
    for key, images in by_key.items():
        # `KEY.seg.png` next to `KEY.jpg` is not the sample's image.
        plain = [i for i in images if f".{contents.members[i].path.removeprefix(f'{key}.').lower()}" in EXTENSIONS]
        if plain:
            dropped.update(set(images) - set(plain))
        for extension in _LABEL_EXTENSIONS:
            if extension in samples[key]:
                kind, read = samples[key][extension]
                shown = f"{printable(key)}.{extension} in {where}"
                try:
                    label = _read_label(read, extension == "json", shown, reader)
                except LabelError as error:
                    if extension != "json":  # a .cls file has nothing but the class
                        raise ImageSetError(
                            f"the label in {shown} is {error}; labels are class numbers from 0 or names"
                        ) from error
                    label, other = None, other or f"no class in {shown}: its label is {error}"
                if label is None:
                    continue
                used[kind] += 1
                for i in images:
                    contents.members[i] = replace(contents.members[i], label=label)
                break
    if used:
        contents.classes = "labels"
    if other:
        contents.notes.append(other)
    contents.left_out -= used
    if dropped:
        contents.left_out["further image of a sample"] += len(dropped)
        contents.members = [member for i, member in enumerate(contents.members) if i not in dropped]


def _read_label(read: partial[bytes], is_json: bool, shown: str, reader: LabelReader) -> Any:
    """Return the label in a `.cls` or `.json` file; None for JSON without a label. Raise LabelError if it is none."""
    try:
        text = read().decode("utf-8")
        if not is_json:
            return reader(text)
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("label") is None:
            return None
        return reader(document["label"])
    except LabelError:
        raise
    except (BrokenImageError, ValueError, RecursionError) as error:
        reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)[:100]
        raise ImageSetError(f"{shown} cannot be read as a label ({reason})") from error
