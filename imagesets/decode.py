"""From the bytes of an image file, or an array, to uint8 pixels of the wanted size. Pillow throughout."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from artifacts.files import LFS_HINT, is_lfs_pointer
from artifacts.terminal import printable
from imagesets.types import BrokenImageError

T = TypeVar("T")

Filter = Literal["pil-bilinear", "pil-bicubic"]

# Both are antialiased when they reduce. Bilinear is what the source documents' torchvision.Resize does.
FILTERS = {"pil-bilinear": Image.Resampling.BILINEAR, "pil-bicubic": Image.Resampling.BICUBIC}

# Below Pillow's own warning (89 million pixels), so that ours is the bound that speaks.
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 * 1024 * 1024

_GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")

_PNG = b"\x89PNG\r\n\x1a\n"
# Chunks that do not change the pixels we use; Pillow refuses a file where one unpacks to more than 1 MiB
_PNG_NOTES = {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}
_ISO_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"heif": "HEIF", b"mif1": "HEIF", b"msf1": "HEIF", b"hevc": "HEIC"}
# What else is found under an image's name: the first bytes, and what they are
_FOREIGN = (
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL file; convert it to PNG or JPEG"),
    (b"\xff\x0a", "a JPEG XL file; convert it to PNG or JPEG"),
    (b"<svg", "an SVG drawing; convert it to PNG"),
    (b"<!doctype html", "a web page, not an image"),
    (b"<html", "a web page, not an image"),
)


def read_header(data: bytes) -> tuple[tuple[int, int], int]:
    """Return (width, height) after EXIF orientation, and the native channels (1 or 3).

    From the header alone, but for a PNG, whose EXIF may follow the pixels: Pillow decodes it to look.

    Raises:
        BrokenImageError: With the reason.
    """

    def look(image: Image.Image) -> tuple[tuple[int, int], int]:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.size[::-1] if turned else image.size), 3 if is_color(image.mode) else 1

    return _with_image(data, look)


def channels_of(data: bytes) -> int:
    """Return the native channels (1 or 3) of an image file, from its header. Raises BrokenImageError."""
    return 3 if is_color(mode_of(data)) else 1


def is_color(mode: str) -> bool:
    """Return whether an image of this mode (as `mode_of` returns it) may be in color."""
    return mode.removesuffix("+transparency") not in _GRAY_MODES


def mode_of(data: bytes) -> str:
    """Return Pillow's mode of an image file, from its header; `RGB+transparency` where one color is transparent.

    Raises:
        BrokenImageError: With the reason.
    """
    return _with_image(data, _mode)


def _mode(image: Image.Image) -> str:
    return f"{image.mode}+transparency" if "transparency" in image.info else image.mode


def frames_of(data: bytes) -> int:
    """Return how many images a file has of which only the first is decoded, such as a GIF's or a TIFF's.

    A photo's embedded previews and depth maps (MPO) do not count.
    """

    def count(image: Image.Image) -> int:
        return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))

    if data.startswith(b"\xff\xd8") or (data.startswith(_PNG) and b"acTL" not in data):
        return 1
    try:
        return _with_image(data, count)
    except BrokenImageError:  # in a later frame: the first one may be whole
        return 1


def decode_image(data: bytes, resolution: int, channels: int, resize: Filter) -> np.ndarray:
    """Decode one file, apply its orientation, crop the center square and resize.

    Returns uint8 [resolution, resolution, channels]. Transparency is laid over white, 16-bit gray is scaled to 8 bit,
    CMYK becomes RGB.

    Raises:
        BrokenImageError: With the reason.
    """
    return _with_image(
        data,
        lambda image: resize_center_crop(_to_eight_bit(ImageOps.exif_transpose(image)), resolution, channels, resize),
    )


def resize_center_crop(image: Image.Image, resolution: int, channels: int, resize: Filter) -> np.ndarray:
    """Return the center square of an image, resized: uint8 [resolution, resolution, channels]."""
    image = image.convert("L" if channels == 1 else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (side, side):
        image = image.crop((left, top, left + side, top + side))
    if side != resolution:
        image = image.resize((resolution, resolution), FILTERS[resize])
    return np.asarray(image, dtype=np.uint8).reshape(resolution, resolution, channels)


def _with_image(data: bytes, use: Callable[[Image.Image], T]) -> T:
    """Return what `use` makes of the opened file; a PNG that fails is tried again without its texts and profile."""
    try:
        return _try_with_image(data, use)
    except BrokenImageError:
        if (lighter := _without_notes(data)) is None:
            raise
        return _try_with_image(lighter, use)


def _try_with_image(data: bytes, use: Callable[[Image.Image], T]) -> T:
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise BrokenImageError(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS:,} allowed")
        return use(image)
    except BrokenImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"more pixels than the {MAX_PIXELS:,} allowed") from error
    except Exception as error:  # Pillow's decoders raise nearly every type on hostile bytes
        raise BrokenImageError(LFS_HINT if is_lfs_pointer(data) else _reason(error, data)) from error


def _without_notes(data: bytes) -> bytes | None:
    """Return a PNG without its texts and color profile, or None for another file or one without them."""
    if not data.startswith(_PNG):
        return None
    kept, at, dropped = [_PNG], len(_PNG), False
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in _PNG_NOTES:
            dropped = True
        else:
            kept.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join([*kept, data[at:]]) if dropped else None


def _reason(error: Exception, data: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):  # whose own text is the address of our buffer
        if not data:
            return "an empty file"
        if data[4:8] == b"ftyp" and data[8:12] in _ISO_BRANDS:
            return f"a {_ISO_BRANDS[data[8:12]]} file; convert it to JPEG or PNG"
        head = data[:64].lstrip().lower()
        return next((what for mark, what in _FOREIGN if head.startswith(mark.lower())), "not an image Pillow can read")
    return printable(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": "))


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Return any image that Pillow reads in mode L or RGB."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise BrokenImageError("32-bit integer pixels have no known range")
        return Image.fromarray(np.round(values / 257.0).astype(np.uint8))
    if image.mode == "F":
        raise BrokenImageError("floating-point pixels have no known range")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        gray = image.mode in ("L", "LA", "La")
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("L" if gray else "RGB")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")
