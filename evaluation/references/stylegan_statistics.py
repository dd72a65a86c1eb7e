"""Read the statistics file of StyleGAN2-ADA and StyleGAN3 (`FeatureStats.save`) without running what it contains.

A pickle calls the functions that it names. Here each of the four names that numpy's arrays need is replaced by a class
that accepts a shape, a plain type and bytes; any other name ends the reading. numpy's own unpickling is never called.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.files import LFS_HINT, is_lfs_pointer
from evaluation.errors import EvaluationError

MAX_BYTES = 2 * 2**30  # Inception's features of 200,000 images, if a file holds them too
MAX_MEMO = 1_000_000  # the unpickler allocates room for as many objects as a file states
PLAIN_TYPES = ("f4", "f8", "i4", "i8")


class _DType:
    """Replaces numpy.dtype: `numpy.dtype("f8", False, True)`, then its state with the byte order."""

    def __init__(self, name: str, *_: Any) -> None:
        if name not in PLAIN_TYPES:
            raise pickle.UnpicklingError(f"it has an array of {str(name)[:20]!r}")
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"<": "<", ">": ">"}.get(state[1], "=")


class _Array:
    """Replaces numpy.ndarray, empty until its state (version, shape, type, is_fortran, bytes) is set."""

    def __init__(self, *_: Any) -> None:
        self.values = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        self.values = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(dtype, _DType) or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("it has an array that is not of plain numbers")
    values = np.frombuffer(content, np.dtype(dtype.order + dtype.name))
    if values.size != math.prod(shape):
        raise pickle.UnpicklingError(f"it has {values.size} numbers for an array {list(shape)}")
    return values.reshape(shape, order="F" if order == "F" else "C")


def _from_buffer(content: Any, dtype: Any, shape: Any, order: str) -> _Array:
    """Replaces numpy's _frombuffer, which pickles of protocol 5 name."""
    array = _Array()
    array.values = _array(content, dtype, shape, order)
    return array


ALLOWED: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _DType}
for core in ("numpy.core", "numpy._core"):  # before numpy 2, and since
    ALLOWED[f"{core}.multiarray", "_reconstruct"] = _Array
    ALLOWED[f"{core}.numeric", "_frombuffer"] = _from_buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not run")
        return ALLOWED[module, name]


def read_stylegan_statistics(path: Path) -> dict[str, np.ndarray]:
    """Read a statistics pickle of `metrics/metric_utils.py` of StyleGAN3.

    The file holds raw_mean = Σx, raw_cov = Σxxᵀ and num_items = N. Its own covariance is divided by N, while that of
    pytorch-fid and of this package is divided by N - 1.

    Args:
        path: The `.pkl`, at most 2 GiB.

    Returns:
        `features` float [N, d] if the file captured all of them; otherwise `mu` float64 [d], `sigma` float64 [d, d],
        divided by N - 1, and `n`.

    Raises:
        EvaluationError: For any other pickle.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise EvaluationError(f"{path} is larger than the {MAX_BYTES // 2**30} GiB that statistics may have")
        content = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror}") from error
    if is_lfs_pointer(content):
        raise EvaluationError(f"{path} is {LFS_HINT}")
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if "PUT" in opcode.name and int(argument or 0) > MAX_MEMO:
                raise pickle.UnpicklingError("it needs too much memory")
        stored = _Unpickler(io.BytesIO(content)).load()
        if not isinstance(stored, dict):
            raise pickle.UnpicklingError("it holds no dictionary")
        captured = stored.get("all_features")
        if stored.get("capture_all") and captured:
            return {"features": np.concatenate([block.values for block in captured])}
        n = stored["num_items"]
        total, products = (stored[key].values.astype(np.float64) for key in ("raw_mean", "raw_cov"))
        if type(n) is not int or n < 2 or total.ndim != 1 or products.shape != (*total.shape, *total.shape):
            raise pickle.UnpicklingError(f"num_items {n!r}, raw_mean {total.shape}, raw_cov {products.shape}")
        mu = total / n
        sigma = (products - n * np.outer(mu, mu)) / (n - 1)
        if not (np.diag(sigma) >= -1e-6 * np.abs(np.diag(products) / n)).all():
            raise pickle.UnpicklingError("its variances are negative or not numbers")
    except Exception as error:  # a damaged pickle raises nearly any type
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise EvaluationError(
            f"{path} is not read: statistics of StyleGAN2-ADA or StyleGAN3 (num_items, raw_mean, raw_cov) are, and no "
            f"other pickle, since reading one runs what it contains ({reason[:150]})"
        ) from error
    return {"mu": mu, "sigma": sigma, "n": np.array(n)}
