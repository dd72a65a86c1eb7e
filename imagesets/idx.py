"""Find, unpack and check MNIST's idx files (https://yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from artifacts.files import LFS_HINT, is_lfs_pointer
from imagesets.types import ImageSetError

_MAX_BYTES = 2**30


def find_idx(stem: str, folders: list[Path]) -> Path | None:
    """Return the first `stem` or `stem.gz` in the folders, also in the older spelling `train-images.idx3-ubyte`."""
    names = (stem, stem.replace("-idx", ".idx"))
    for folder in folders:
        for name in names:
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return path
    return None


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read an idx file, gzipped or not, as a uint8 array of `ndim` axes.

    Raises:
        ImageSetError: If it cannot be read, is not an idx file or has the wrong length.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.open(path) as handle:
                data = handle.read(_MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ImageSetError(f"{path} cannot be read ({error}); it may be truncated: fetch it again") from error
    header = 4 + 4 * ndim
    if len(data) < header or data[:4] != bytes([0, 0, 8, ndim]):
        if is_lfs_pointer(data):
            raise ImageSetError(f"{path} is {LFS_HINT}")
        raise ImageSetError(f"{path} is not an idx file of {ndim}-dimensional bytes; fetch it again")
    shape = struct.unpack(f">{ndim}I", data[4:header])
    if len(data) - header != math.prod(shape):
        raise ImageSetError(
            f"{path} claims {'x'.join(map(str, shape))} bytes but has {len(data) - header:,}; fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
