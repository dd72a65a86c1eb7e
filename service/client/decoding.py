"""Decodes what a service sends, without trusting it: npy and npz without pickles, seed ranges, Retry-After."""

import io
import math
import time
import zipfile
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_images(content: bytes) -> NDArray[np.uint8]:
    """Return the images of an npy file, uint8 [N, H, W, C].

    Raises:
        ValueError: If the content is something else, or not as long as its header claims.
    """
    array = read_array(content)
    if array.dtype != np.uint8 or array.ndim != 4:
        raise ValueError(f"{array.dtype} {list(array.shape)}, not uint8 [N, H, W, C]")
    return array


def read_array(content: bytes) -> NDArray[Any]:
    """Return the array of an npy file of version 1.0, numbers or text in C order; allocate no more than `content`.

    Raises:
        ValueError: If the content is something else, or not as long as its header claims.
    """
    file = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not an npy file of version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError:
        raise
    except Exception as error:  # numpy's reader passes on the errors of its tokenizer and parser
        raise ValueError(f"its header is broken ({type(error).__name__})") from None
    if dtype.kind not in "uifU" or fortran or min(shape, default=0) < 0:
        raise ValueError(f"{dtype} {list(shape)}, not numbers or text in C order")
    size = len(content) - file.tell()
    if math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{dtype} {list(shape)} in {size} bytes")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape).copy()


def read_arrays(content: bytes, max_bytes: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file as `numpy.savez` writes it, uncompressed.

    Args:
        content: The file.
        max_bytes: The most bytes that its arrays may have together.

    Raises:
        ValueError: If the content is something else, or has too many bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = file.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("it is compressed")
            if sum(member.file_size for member in members) > max_bytes:
                raise ValueError(f"it has more than {max_bytes} bytes")
            # a member is read no further than the size that it claims
            return {member.filename.removesuffix(".npy"): read_array(file.read(member)) for member in members}
    except ValueError:
        raise
    except Exception as error:  # zipfile raises half a dozen kinds on a damaged file
        raise ValueError(f"not an npz file ({type(error).__name__}: {error})") from None


def parse_seed_ranges(seeds: str, max_seeds: int = 2**20) -> list[int]:
    """Return "0-3,7" as [0, 1, 2, 3, 7].

    Raises:
        ValueError: If the text is not a list of seeds, or has more than `max_seeds`.
    """
    result: list[int] = []
    for part in seeds.split(",") if seeds else []:
        first, _, last = part.partition("-")
        run = range(int(first), int(last or first) + 1)
        # compared by its ends, because the length of a longer range overflows
        if run.stop - run.start > max_seeds - len(result):
            raise ValueError(f"more than {max_seeds} seeds")
        result.extend(run)
    return result


def retry_after_s(header: str | None) -> float:
    """Return the seconds of a Retry-After, a number or a date (RFC 9110, 10.2.3); 0 if it is missing or invalid."""
    if not header:
        return 0.0
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
