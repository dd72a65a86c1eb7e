"""`.npy` files of rows that are larger than memory: written row by row, and given back once read."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from pathlib import Path
from types import TracebackType

import numpy as np

_HEADER_BYTES = 128  # numpy aligns the data at 64; the longest shape we write needs some 90


class RowWriter:
    """Appends uint8 rows of `row_shape` to a new file; `finish` writes the header with their number and fsyncs.

    Plain writes and no memory map: on a full disk a write is an OSError, a store into a sparse map a SIGBUS.
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
        """One more row, uint8 `row_shape`. Raises OSError when the disk is full."""
        assert row.dtype == np.uint8 and row.shape == self.row_shape, (row.dtype, row.shape)  # noqa: PT018
        self._file.write(np.ascontiguousarray(row).data)
        self.rows += 1

    def finish(self) -> None:
        """The header for the rows there are, then everything to the disk."""
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


def release(rows: np.ndarray) -> None:
    """Give back the memory of what was read of a mapped array (or a view of one); nothing for any other.

    Pages of a file that were read count as this process's own until something else needs them: a container's limit
    or a reader of its peak sees all files it ever looked at.
    """
    whole: object = rows
    while isinstance(whole, np.ndarray) and not isinstance(whole, np.memmap):
        whole = whole.base
    mapping = getattr(whole, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        mapping.madvise(mmap.MADV_DONTNEED)
