"""npy files of rows that are larger than memory: written row by row, and read a block at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from artifacts.arrays import read_npy
from artifacts.files import sync_file
from evaluation.atomic import cannot_write
from evaluation.errors import EvaluationError


class RowsFile:
    """`total` rows of one shape and dtype. Rows may be written again, which a resumed job does with equal ones."""

    def __init__(self, path: Path, total: int, row: tuple[int, ...], dtype: np.dtype) -> None:
        self._row_bytes = int(np.prod(row, dtype=np.int64)) * dtype.itemsize
        self._dtype, self._row = dtype, row
        self._path = path
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (total, *row)}
        with cannot_write(path):
            self._file = path.open("r+b" if path.exists() else "w+b")
            np.lib.format.write_array_header_1_0(self._file, header)
            self._offset = self._file.tell()
            # Its full length from the start: what was not written yet reads as zeros, and a full disk fails here.
            self._file.truncate(self._offset + total * self._row_bytes)

    def write(self, at: int, rows: np.ndarray) -> None:
        """Put rows from row `at` on. Raises ValueError for rows of another shape, EvaluationError for a full disk."""
        if rows.shape[1:] != self._row:
            raise ValueError(f"rows are {list(rows.shape[1:])}, not {list(self._row)}")
        with cannot_write(self._path):
            self._file.seek(self._offset + at * self._row_bytes)
            self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def sync(self) -> None:
        """Everything written so far is on the disk."""
        with cannot_write(self._path):
            self._file.flush()
            sync_file(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def mapped(path: Path) -> np.ndarray | None:
    """The array of a npy file, memory-mapped; None if there is none. Raises EvaluationError for a damaged one."""
    try:
        return read_npy(path) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} is damaged ({error}); remove its folder and score again") from error
