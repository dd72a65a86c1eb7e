"""What answers are written in, read with suspicion: .npy and .npz without pickles, runs of seeds, Retry-After."""

import io
import math
import time
import zipfile
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_npy(content: bytes) -> NDArray[np.uint8]:
    """Images uint8 [N, H, W, C] of a .npy file. ValueError: it is not one, or not as long as it says."""
    array = read_array(content)
    if array.dtype != np.uint8 or array.ndim != 4:
        raise ValueError(f"{array.dtype} {list(array.shape)}, not uint8 [N, H, W, C]")
    return array


def read_array(content: bytes) -> NDArray[Any]:
    """The array of numbers or text in a .npy file of version 1.0, in C order; never more memory than `content`.

    ValueError: it is not one, or not as long as its header says.
    """
    file = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not a .npy file of version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError:
        raise
    except Exception as error:  # numpy's reader lets the tokenizer's and the parser's own errors through
        raise ValueError(f"its header is broken ({type(error).__name__})") from None
    if dtype.kind not in "uifU" or fortran or min(shape, default=0) < 0:
        raise ValueError(f"{dtype} {list(shape)}, not numbers or text in C order")
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"{dtype} {list(shape)} in {len(content) - file.tell()} bytes")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape).copy()


def read_npz(content: bytes, max_bytes: int) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz as `numpy.savez` writes it, uncompressed. ValueError: it is not one, or its members
    have more than `max_bytes`."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = file.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("it is compressed")
            if sum(member.file_size for member in members) > max_bytes:
                raise ValueError(f"unpacked it has more than {max_bytes} bytes")
            # a member is read no further than the size it tells
            return {member.filename.removesuffix(".npy"): read_array(file.read(member)) for member in members}
    except ValueError:
        raise
    except Exception as error:  # a broken zip makes zipfile raise half a dozen kinds
        raise ValueError(f"not a .npz file ({type(error).__name__}: {error})") from None


def expand(seeds: str, at_most: int = 2**20) -> list[int]:
    """ "0-3,7" as [0, 1, 2, 3, 7]. ValueError: not a list of seeds, or of more than `at_most`."""
    result: list[int] = []
    for part in seeds.split(",") if seeds else []:
        first, _, last = part.partition("-")
        run = range(int(first), int(last or first) + 1)
        # compared by its ends: the length of a longer range overflows
        if run.stop - run.start > at_most - len(result):
            raise ValueError(f"more than {at_most} seeds")
        result.extend(run)
    return result


def retry_after_s(header: str | None) -> float:
    """Seconds that a Retry-After asks for, a number or a date (RFC 9110 §10.2.3); 0 for none that can be read."""
    if not header:
        return 0.0
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
