"""npy and npz files read with suspicion: no pickles, no more memory than the file backs, and one kind of failure.

numpy and zipfile raise a dozen kinds of exception on a damaged file, and make room for as much as a header says.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np

from artifacts.git_lfs import HINT, is_lfs_pointer_file

MAX_BYTES = 2 * 2**30  # of an array in a npz, which is read into memory: Inception's features of 200,000 images
MAX_COUNT = 2**53
NUMBERS = "fiu"
_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(path: Path, kinds: str = NUMBERS) -> np.ndarray:
    """The array of a npy file, memory-mapped. Raises OSError, or ValueError for anything else that is wrong.

    `kinds` are the dtypes' kinds to take; by default real numbers.
    """
    try:
        with path.open("rb") as file:
            _check_header(file, path.stat().st_size, kinds)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # the header's tokenizer and parser let their own through
        raise ValueError(HINT if is_lfs_pointer_file(path) else _told(error)) from error


def read_npz(path: Path, names: Collection[str], text: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Those of the arrays `names` that a npz file has: real numbers, and text in those also named in `text`.

    Raises OSError, or ValueError for anything else that is wrong, such as an array beyond 2 GiB.
    """
    try:
        found = {}
        with zipfile.ZipFile(path) as archive:
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
    except OSError:
        raise
    except Exception as error:
        raise ValueError(HINT if is_lfs_pointer_file(path) else _told(error)) from error


def count_of(array: np.ndarray) -> int:
    """The whole number in an array of one, 0 … 2⁵³. Raises ValueError for anything else."""
    if array.size != 1 or array.dtype.kind not in NUMBERS:
        raise ValueError(f"{array.dtype} {list(array.shape)} where a number is expected")
    value = array.reshape(-1)[0]
    if not 0 <= value <= MAX_COUNT or value != int(value):
        raise ValueError(f"a number of images that is {value}")
    return int(value)


def _check_header(file: IO[bytes], size: int, kinds: str) -> None:
    """Raise ValueError unless the file, of `size` bytes in all, has numbers of these kinds, as many as it says."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"npy of version {version}")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.kind not in kinds:
        raise ValueError(f"{dtype} {list(shape)}, not real numbers" if "U" not in kinds else f"{dtype} is no text")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"{dtype} {list(shape)} in {size - file.tell()} bytes")


def _told(error: Exception) -> str:
    return str(error)[:100] if isinstance(error, ValueError) else f"{type(error).__name__}: {str(error)[:80]}"
