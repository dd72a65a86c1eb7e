"""Arrays in files: npy and npz files of others read safely, and npy files larger than memory.

Without pickles, without allocating what only a header claims, and with one kind of error: numpy and zipfile raise a
dozen kinds on a damaged file.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from artifacts.files import LFS_HINT, is_lfs_pointer_file

MAX_BYTES = 2 * 2**30  # of an array in a npz, which is read into memory: Inception's features of 200,000 images
MAX_COUNT = 2**53
NUMBERS = "fiu"
_HEADER_BYTES = 128  # numpy aligns the data at 64; the longest shape we write needs some 90
_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(path: Path, kinds: str = NUMBERS) -> np.ndarray:
    """Return the array of an npy file, memory-mapped.

    Args:
        path: The file.
        kinds: Kinds of dtype to accept; by default real numbers.

    Raises:
        OSError: If it cannot be read.
        ValueError: For anything else that is wrong with it.
    """
    with _one_kind_of_error(path):
        with path.open("rb") as file:
            _check_header(file, path.stat().st_size, kinds)
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array


def read_npz(path: Path, names: Collection[str], text: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file that have one of these names.

    Args:
        path: The file.
        names: Names of the arrays to read, of real numbers.
        text: Names of arrays that may contain text.

    Raises:
        OSError: If it cannot be read.
        ValueError: For anything else that is wrong with it, such as an array beyond 2 GiB.
    """
    found: dict[str, np.ndarray] = {}
    with _one_kind_of_error(path), zipfile.ZipFile(path) as archive:
        inside = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for name in (name for name in names if name in inside):
            info = inside[name]
            if info.file_size > MAX_BYTES:
                raise ValueError(f"{name} has more than {MAX_BYTES // 2**30} GiB")
            with archive.open(info) as packed:
                _check_header(packed, info.file_size, NUMBERS + "US" if name in text else NUMBERS)
            with archive.open(info) as packed:
                found[name] = np.lib.format.read_array(packed, allow_pickle=False)
    return found


@contextlib.contextmanager
def _one_kind_of_error(path: Path) -> Iterator[None]:
    """Turn what numpy and zipfile raise on a damaged file into ValueError; OSErrors pass."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # the header's tokenizer and parser let their own through
        raise ValueError(LFS_HINT if is_lfs_pointer_file(path) else _first_words(error)) from error


def count_of(array: np.ndarray) -> int:
    """Return the whole number in an array of one element, 0 … 2⁵³; raise ValueError for anything else."""
    if array.size != 1 or array.dtype.kind not in NUMBERS:
        raise ValueError(f"{array.dtype} {list(array.shape)} where a number is expected")
    value = array.reshape(-1)[0]
    if not 0 <= value <= MAX_COUNT or value != int(value):
        raise ValueError(f"a number of images that is {value}")
    return int(value)


def _check_header(file: IO[bytes], size: int, kinds: str) -> None:
    """Raise ValueError unless a file of `size` bytes has as many numbers of these kinds as its header claims."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"npy of version {version}")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.kind not in kinds:
        raise ValueError(f"{dtype} {list(shape)}, not real numbers" if "U" not in kinds else f"{dtype} is no text")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"{dtype} {list(shape)} in {size - file.tell()} bytes")


def _first_words(error: Exception) -> str:
    return str(error)[:100] if isinstance(error, ValueError) else f"{type(error).__name__}: {str(error)[:80]}"


class RowWriter:
    """Write a new npy file of uint8 rows one by one; `finish` writes the header with their number.

    It uses plain writes: on a full disk a write raises OSError, but a store into a sparse memory map raises SIGBUS.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...]) -> None:
        self.row_shape = row_shape
        self.rows = 0
        self._file = path.open("wb")
        self._file.write(bytes(_HEADER_BYTES))

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # unfinished: what stopped it is being raised already
            self._file.close()

    def append(self, row: np.ndarray) -> None:
        """Append one row, uint8 `row_shape`; raise OSError if the disk is full."""
        assert row.dtype == np.uint8 and row.shape == self.row_shape, (row.dtype, row.shape)  # noqa: PT018
        self._file.write(np.ascontiguousarray(row).data)
        self.rows += 1

    def finish(self) -> None:
        """Write the header and flush everything to the disk."""
        self._file.seek(0)
        self._file.write(_header((self.rows, *self.row_shape)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _header(shape: tuple[int, ...]) -> bytes:
    """Version 1.0 of https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, padded."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    room = _HEADER_BYTES - 10  # after the magic, the version and this length
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", room) + text.ljust(room - 1) + b"\n"


def drop_page_cache(rows: np.ndarray) -> None:
    """Free the memory of the pages read from a mapped array or a view of one; do nothing for other arrays.

    Otherwise these pages count towards the process's memory until another process needs them.
    """
    whole: object = rows
    while isinstance(whole, np.ndarray) and not isinstance(whole, np.memmap):
        whole = whole.base
    mapping = getattr(whole, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        mapping.madvise(mmap.MADV_DONTNEED)
