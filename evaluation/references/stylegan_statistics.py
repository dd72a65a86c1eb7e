"""The statistics file of StyleGAN2-ADA and StyleGAN3 (`FeatureStats.save`), read without running what is in it.

A pickle calls what it names. Here each of the four names that numpy's arrays need stands for a class of ours that takes
a shape, a plain type and bytes; any other name ends the reading. numpy's own unpickling is never reached.
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

MAX_BYTES = 2 * 2**30  # Inception's features of 200,000 images, where a file holds them too
MAX_MEMO = 1_000_000  # the reader makes room for as many objects as a file says that it has
PLAIN = ("f4", "f8", "i4", "i8")


class _Type:
    """Stands for numpy.dtype: `numpy.dtype("f8", False, True)`, then its state with the byte order."""

    def __init__(self, text: str, *_: Any) -> None:
        if text not in PLAIN:
            raise pickle.UnpicklingError(f"it has an array of {str(text)[:20]!r}")
        self.text, self.order = text, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = {"<": "<", ">": ">"}.get(state[1], "=")


class _Array:
    """Stands for numpy.ndarray, empty until its state (version, shape, type, is_fortran, bytes) is there."""

    def __init__(self, *_: Any) -> None:
        self.values = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, content = state
        self.values = _values(content, kind, shape, "F" if fortran else "C")


def _values(content: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(kind, _Type) or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("it has an array that is not of plain numbers")
    values = np.frombuffer(content, np.dtype(kind.order + kind.text))
    if values.size != math.prod(shape):
        raise pickle.UnpicklingError(f"it has {values.size} numbers for an array {list(shape)}")
    return values.reshape(shape, order="F" if order == "F" else "C")


def _from_buffer(content: Any, kind: Any, shape: Any, order: str) -> _Array:
    """Stands for numpy's _frombuffer, which pickles of protocol 5 name."""
    made = _Array()
    made.values = _values(content, kind, shape, order)
    return made


KNOWN: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Type}
for core in ("numpy.core", "numpy._core"):  # before numpy 2, and from it
    KNOWN[f"{core}.multiarray", "_reconstruct"] = _Array
    KNOWN[f"{core}.numeric", "_frombuffer"] = _from_buffer


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not run")
        return KNOWN[module, name]


def read_stylegan_statistics(path: Path) -> dict[str, np.ndarray]:
    """`features` float [N, d] where all were captured; else `mu` float64 [d], `sigma` float64 [d, d], divided by N - 1,
    and `n`.

    Source: `metrics/metric_utils.py` of StyleGAN3: raw_mean = Σx, raw_cov = Σxxᵀ, num_items = N. Its own covariance is
    divided by N; pytorch-fid's and ours is not. Raises EvaluationError for any other pickle, or one beyond 2 GiB.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise EvaluationError(f"{path} is larger than the {MAX_BYTES // 2**30} GiB that statistics are read up to")
        content = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror}") from error
    if is_lfs_pointer(content):
        raise EvaluationError(f"{path} is {LFS_HINT}")
    try:
        for code, argument, _ in pickletools.genops(content):
            if "PUT" in code.name and int(argument or 0) > MAX_MEMO:
                raise pickle.UnpicklingError("it asks for too much memory")
        told = _Reader(io.BytesIO(content)).load()
        if not isinstance(told, dict):
            raise pickle.UnpicklingError("it holds no dictionary")
        captured = told.get("all_features")
        if told.get("capture_all") and captured:
            return {"features": np.concatenate([block.values for block in captured])}
        n = told["num_items"]
        total, products = (told[key].values.astype(np.float64) for key in ("raw_mean", "raw_cov"))
        if type(n) is not int or n < 2 or total.ndim != 1 or products.shape != (*total.shape, *total.shape):
            raise pickle.UnpicklingError(f"num_items {n!r}, raw_mean {total.shape}, raw_cov {products.shape}")
        mu = total / n
        sigma = (products - n * np.outer(mu, mu)) / (n - 1)
        if not (np.diag(sigma) >= -1e-6 * np.abs(np.diag(products) / n)).all():
            raise pickle.UnpicklingError("its variances are negative or not numbers")
    except Exception as error:  # a pickle that is wrong raises nearly anything
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise EvaluationError(
            f"{path} is not read: statistics of StyleGAN2-ADA or StyleGAN3 (num_items, raw_mean, raw_cov) are, and no "
            f"other pickle, since reading one runs what is in it ({reason[:150]})"
        ) from error
    return {"mu": mu, "sigma": sigma, "n": np.array(n)}
