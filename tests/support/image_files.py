"""Small image files, folders and zips of them."""

from __future__ import annotations

import gzip
import io
import re
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

UTF8_FLAG = 0x800


def encoded(value: object = 0, mode: str = "L", size: tuple[int, int] = (8, 8), form: str = "PNG") -> bytes:
    """Return an image file of one value."""
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, form)  # type: ignore[arg-type]
    return buffer.getvalue()


def tree(root: Path, paths: Iterable[str]) -> Path:
    """Write a gray image of value 0, 1, 2, … at each path below `root`, and return `root`."""
    for value, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encoded(value % 256))
    return root


def packed(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a zip whose members have exactly these names, backslashes and repetitions included."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            archive.writestr(entry, data)
    return path


def with_flags(path: Path, clear: int = 0, add: int = 0) -> Path:
    """Change the flags of every member of a zip, in its directory and in the members' headers."""
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for match in re.finditer(re.escape(mark), bytes(data)):
            here = match.start() + at
            flags = int.from_bytes(data[here : here + 2], "little") & ~clear | add
            data[here : here + 2] = flags.to_bytes(2, "little")
    path.write_bytes(data)
    return path


def write_pictures(root: Path, n_train: int = 60, n_test: int = 40, size: int = 8) -> Path:
    """A folder of grey noise with train/ and test/."""
    rng = np.random.default_rng(1)
    for split, n in (("train", n_train), ("test", n_test)):
        (root / split).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (size, size), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{i:03}.png")
    return root


def idx(array: np.ndarray) -> bytes:
    """Return MNIST's file of an array."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, packed: bool = True, n: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Write noise as MNIST's four files, the same images in both splits; return the images and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, n, dtype=np.uint8)
    for prefix in ("train", "t10k"):
        for stem, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            data = idx(array)
            path = folder / (f"{stem}.gz" if packed else stem)
            path.write_bytes(gzip.compress(data) if packed else data)
    return images, labels


def write_noise(
    folder: Path,
    count: int,
    size: tuple[int, int] = (32, 32),
    *,
    mode: str = "RGB",
    form: str = "png",
    seed: int = 0,
) -> Path:
    """Write different noise images of a mode and a format, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        if mode == "I;16":
            image = Image.fromarray(rng.integers(0, 2**16, (size[1], size[0]), dtype=np.uint16))
        else:
            image = Image.fromarray(pixels).convert(mode)
        image.save(folder / f"{number:04}.{form}")
    return folder
