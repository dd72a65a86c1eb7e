"""Images in `.npz` and `.npy` files: uint8 arrays, found by their names, read row by row and never unpickled."""

from __future__ import annotations

import math
import re
import struct
import threading
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from artifacts.files import LFS_HINT, is_lfs_pointer_file
from artifacts.images.alpha import RGBA
from artifacts.terminal import printable
from imagesets.decode import MAX_PIXELS
from imagesets.folder_contents import ArchiveFile, Contents, ImageFile, Label
from imagesets.folder_layout import split_family
from imagesets.formats.labels import LabelError, LabelReader
from imagesets.types import BrokenImageError, ImageSetError

# Names of arrays without a split's name in them. `arr_0` and `arr_1` are numpy's for savez(images, labels).
IMAGE_NAMES = ("images", "image", "x", "imgs", "data", "samples", "arr 0")
LABEL_NAMES = ("labels", "label", "y", "targets", "target", "arr 1")
CLASS_NAMES = ("class names", "label names", "classes")
MAX_LABEL_BYTES = 2**28
MAX_TGA_SIDE = 2**16 - 1
# An array of more images than this has at least one byte per image in the file: each is an entry in memory
MAX_EMPTY_ROWS = 2**20
_CHUNK = 2**20
_TO_UINT8 = (
    "in [0, 1]: (images * 255).round().clip(0, 255).astype('uint8'); "
    "in [-1, 1]: (images * 127.5 + 127.5).round().clip(0, 255).astype('uint8')"
)


@dataclass(frozen=True)
class _Array:
    """An array in a file: `name` is its key in a npz, or the stem of a npy file."""

    file: ArchiveFile
    name: str
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int  # where the values begin
    where: str = field(repr=False)
    problem: str = ""  # why the values cannot be read

    def open(self, stack: ExitStack) -> IO[bytes]:
        """Open the array's bytes, its header included."""
        if self.member is None:
            return stack.enter_context(self.file.file.open("rb"))
        archive = stack.enter_context(zipfile.ZipFile(self.file.file))
        return stack.enter_context(archive.open(self.member))

    def load(self) -> np.ndarray:
        """Return the whole array; raise ImageSetError."""
        size = math.prod(self.shape) * self.dtype.itemsize
        if size > MAX_LABEL_BYTES:
            raise ImageSetError(f"{self.where} has {size:,} bytes; labels have at most {MAX_LABEL_BYTES:,}")
        try:
            with ExitStack() as stack:
                file = self.open(stack)
                file.read(self.start)
                data = file.read(size + 1)  # to the end, where zipfile compares the checksum
            return np.frombuffer(data, self.dtype, math.prod(self.shape)).reshape(self.shape)
        except Exception as error:  # zipfile raises many types on damaged members
            raise _broken(self.file.file, self.where, error) from error


class _Rows:
    """Read rows of an array of images as image files, forward through one handle per thread."""

    def __init__(self, array: _Array, channels_first: bool) -> None:
        self.array, self.channels_first = array, channels_first
        self.bytes = math.prod(array.shape[1:])
        self._local = threading.local()
        self._lock = threading.Lock()
        self._is_checked = False

    def read(self, row: int) -> bytes:
        """Return row i as a PGM, PPM or TGA file; raise BrokenImageError, or ImageSetError if the array is damaged."""
        self._check()
        local = self._local
        try:
            if not hasattr(local, "file"):
                local.stack = ExitStack()
                local.file = self.array.open(local.stack)
            local.file.seek(self.array.start + row * self.bytes)
            data = local.file.read(self.bytes)
        except Exception as error:
            raise BrokenImageError(f"{type(error).__name__}: {error}") from error
        if len(data) < self.bytes:
            raise BrokenImageError("the file ends within the image")
        pixels = np.frombuffer(data, np.uint8).reshape(self.array.shape[1:])
        if self.channels_first:
            pixels = pixels.transpose(1, 2, 0)
        height, width = pixels.shape[:2]
        if pixels.shape[2:] == (RGBA,):
            return _as_tga(pixels)
        kind = b"P6" if pixels.shape[2:] == (3,) else b"P5"
        return b"%s %d %d 255\n" % (kind, width, height) + pixels.tobytes()

    def _check(self) -> None:
        """Compare a member of a npz with its checksum, once: a changed pixel is found in no other way."""
        with self._lock:
            if self._is_checked or self.array.member is None:
                return
            try:
                with ExitStack() as stack:
                    file = self.array.open(stack)
                    while file.read(_CHUNK):
                        pass
            except Exception as error:
                raise _broken(self.array.file.file, self.array.where, error) from error
            self._is_checked = True


def _as_tga(pixels: np.ndarray) -> bytes:
    """Return uint8 [H, W, 4] as an uncompressed TGA file, whose pixels are blue, green, red and alpha."""
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_TGA_SIDE:
        raise BrokenImageError(f"{width}x{height} pixels with transparency; at most {MAX_TGA_SIDE:,} per side are read")
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, width, height, 32, 0x28)  # rows from the top
    return header + pixels[:, :, [2, 1, 0, 3]].tobytes()


def list_npz(files: list[ArchiveFile]) -> Contents:
    """List the images in the arrays of npz files that belong together, with their labels.

    Raises:
        ImageSetError: If a file cannot be read, or has no array of images or one that may be read in two ways.
    """
    contents = Contents([], classes="none", unit="rows")
    for file in files:
        where = printable(file.path or file.file)
        try:
            with zipfile.ZipFile(file.file) as archive:
                infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
                arrays = []
                for info in infos:
                    with archive.open(info) as member:
                        name = info.filename.removesuffix(".npy")
                        array = _header(file, name, info.filename, member, info.file_size, f"{name} in {where}")
                    if array.shape and array.shape[0] > max(info.compress_size, MAX_EMPTY_ROWS):
                        found = f"has {array.shape[0]:,} rows in {info.compress_size:,} bytes"
                        array = replace(array, problem=f"{found}, which images do not; it is not read")
                    arrays.append(array)
        except ImageSetError:
            raise
        except Exception as error:  # zipfile raises many types on damaged directories
            raise _broken(file.file, where, error) from error
        _list_arrays(contents, arrays, where, file.path.rpartition("/")[2])
    return contents


def list_npy(files: list[ArchiveFile]) -> Contents:
    """List the images in npy files of one folder, with the labels in others: `images.npy` and `labels.npy`.

    Raises:
        ImageSetError: As `list_npz`.
    """
    arrays = []
    for file in files:
        where = printable(file.path or file.file)
        try:
            with file.file.open("rb") as opened:
                size = file.file.stat().st_size
                # A file that was named directly has images, whatever its name is.
                arrays.append(_header(file, file.file.stem if file.path else "images", None, opened, size, where))
        except OSError as error:
            raise ImageSetError(f"cannot read {where}: {error.strerror}") from error
    contents = Contents([], classes="none", unit="rows")
    where = printable(files[0].path or files[0].file) if len(files) == 1 else f"{len(files)} npy files"
    _list_arrays(contents, arrays, where, "")
    return contents


def _header(file: ArchiveFile, name: str, member: str | None, opened: IO[bytes], size: int, where: str) -> _Array:
    """Read the header of an npy file of `size` bytes; raise ImageSetError unless its values are all there.

    A file may have further arrays of any kind, so `problem` of one matters only where it has the images.
    """
    try:
        version = np.lib.format.read_magic(opened)
        read: Any = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"npy of version {version}")
        shape, is_fortran, dtype = read(opened)
        start = opened.tell()
    except Exception as error:  # the header's tokenizer and parser let their own through
        raise _broken(file.file, where, error) from error
    problem = ""
    if dtype.hasobject:
        problem = "has Python objects, which are never unpickled; save arrays of numbers"
    elif min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - start:
        raise _broken(file.file, where, ValueError(f"{dtype} {list(shape)} in {size - start:,} bytes"))
    elif is_fortran and len(shape) > 1:
        problem = "is in Fortran order; save np.ascontiguousarray of it"
    return _Array(file, name, member, tuple(shape), dtype, start, where, problem)


def _words(name: str) -> tuple[str, str]:
    """Return the split and the rest of an array's name: `x_train`, `train_images` and `XTrain` name a split."""
    words = re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)
    splits = [word for word in words if split_family(word)]
    rest = [word.lower() for word in words if not split_family(word)]
    return (splits[0].lower() if splits else ""), " ".join(rest)


def _list_arrays(contents: Contents, arrays: list[_Array], where: str, prefix: str) -> None:
    """Add the images of the arrays of a file, or of npy files, to the contents."""
    named: dict[tuple[str, str], _Array] = {}
    for array in arrays:
        words = _words(array.name)
        if words in named and words[1] in (*IMAGE_NAMES, *LABEL_NAMES, *CLASS_NAMES):
            names = f"{printable(named[words].name)} and {printable(array.name)}"
            raise ImageSetError(f"{where} has two arrays whose names mean the same, {names}; keep one of them")
        named[words] = array
    splits = sorted({split for split, _ in named})
    images = {split: found for split in splits if (found := _first(named, split, IMAGE_NAMES))}
    if not images:
        pictures = [array for array in arrays if array.dtype == np.uint8 and array.name and len(array.shape) in (3, 4)]
        if len(pictures) != 1:
            raise ImageSetError(_nothing_found(arrays, where))
        images = {_words(pictures[0].name)[0]: pictures[0]}
    class_names: Sequence[str] = ()
    if (found := _first(named, "", CLASS_NAMES)) and found.dtype.kind == "U":
        class_names = [str(name) for name in found.load().reshape(-1)]
    for split, array in images.items():
        rows = _Rows(array, _is_channels_first(array))
        labels = _labels(contents, _first(named, split, LABEL_NAMES), array, class_names)
        shown = f"{prefix}:{array.name}" if prefix else array.name
        for i, label in enumerate(labels):
            path = f"{split}/{shown}[{i:08}]" if split else f"{shown}[{i:08}]"
            contents.members.append(ImageFile(path, f"{array.file.version} {i}", partial(rows.read, i), label=label))
        if any(label is not None for label in labels):
            contents.classes = "labels"


def _first(named: dict[tuple[str, str], _Array], split: str, names: Sequence[str]) -> _Array | None:
    return next((named[split, name] for name in names if (split, name) in named), None)


def _nothing_found(arrays: list[_Array], where: str) -> str:
    found = ", ".join(f"{printable(array.name)} {array.dtype} {list(array.shape)}" for array in arrays[:6])
    if {"mu", "sigma"} <= {array.name for array in arrays}:
        return f"{where} has statistics of images, which are a --reference, not images"
    return f"{where} has no array that is called `images`, `x_train` or `arr_0`" + (
        f" (there are {found})" if found else ""
    )


def _is_channels_first(array: _Array) -> bool:
    """Return whether images are [N, C, H, W], not [N, H, W] or [N, H, W, C]; raise ImageSetError for other arrays."""
    shape, where = array.shape, array.where
    if array.problem:
        raise ImageSetError(f"{where} {array.problem}")

    def error(what: str) -> ImageSetError:
        return ImageSetError(f"{where} is {array.dtype} {list(shape)}{what}")

    if len(shape) not in (3, 4) or 0 in shape:
        raise error(", not uint8 [N, H, W], [N, H, W, C] or [N, C, H, W]")
    if array.dtype != np.uint8:
        convert = {"f": _TO_UINT8, "b": "images.astype('uint8') * 255"}.get(
            array.dtype.kind, "if they are 0 to 255, images.astype('uint8')"
        )
        raise error(f", not uint8; save it converted, {convert}")
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        raise error(": is it one image [H, W, C]? Save images[None], or gray images [N, H, W] as [N, H, W, 1]")
    last, first = shape[-1] in (1, 3), len(shape) == 4 and shape[1] in (1, 3)
    if len(shape) == 4:
        if not (last or first):
            last, first = shape[-1] == RGBA, shape[1] == RGBA
        if not (last or first):
            raise error(", and neither its second nor its last axis has 1, 3 or 4 channels")
        if last and first:
            raise error(": either its second or its last axis may be the channels; save another number of pixels")
    if math.prod(shape[1:]) // (1 if len(shape) == 3 else shape[1] if first else shape[3]) > MAX_PIXELS:
        raise error(f", more than the {MAX_PIXELS:,} pixels allowed")
    return first


def _labels(contents: Contents, array: _Array | None, images: _Array, names: Sequence[str]) -> Sequence[Label | None]:
    """Return a label per image, all None without labels; what is no class number becomes a note."""
    nothing: list[Label | None] = [None] * images.shape[0]
    if array is None:
        return nothing
    shown = array.where
    if array.shape[:1] != images.shape[:1]:
        raise ImageSetError(f"{images.where} has {images.shape[0]:,} images but {shown} is {list(array.shape)}")
    if math.prod(array.shape) != images.shape[0] or array.dtype.kind not in "iufU":
        contents.notes.append(f"no classes: {shown} is {array.dtype} {list(array.shape)}, not a class number per image")
        return nothing
    reader = LabelReader(names)
    try:
        return [reader(value) for value in array.load().reshape(-1).tolist()]
    except LabelError as error:
        contents.notes.append(f"no classes: a value of {shown} is {error}")
        return nothing


def _broken(path: Path, where: str, error: Exception) -> ImageSetError:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    hint = LFS_HINT if is_lfs_pointer_file(path) else f"{printable(reason)[:120]}; fetch or make it again"
    return ImageSetError(f"{where} cannot be read ({hint})")
