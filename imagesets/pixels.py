"""From the bytes of an image file, or an array, to uint8 pixels of the wanted size. Pillow throughout."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from artifacts.git_lfs import HINT, is_lfs_pointer
from imagesets.image_set import BrokenImageError

Filter = Literal["pil-bilinear", "pil-bicubic"]

# Both are antialiased when they reduce. Bilinear is what the source documents' torchvision.Resize does.
FILTERS = {"pil-bilinear": Image.Resampling.BILINEAR, "pil-bicubic": Image.Resampling.BICUBIC}

# Below Pillow's own warning (89 million pixels), so that ours is the bound that speaks.
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 * 1024 * 1024

_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")


def peek(data: bytes) -> tuple[tuple[int, int], int]:
    """(width, height) after EXIF orientation, and native channels (1 or 3).

    From the header alone, but for a PNG, whose EXIF may follow the pixels: Pillow decodes it to look.
    Raises BrokenImageError with the reason.
    """
    image = _open(data)
    size = image.size
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception as error:
        raise BrokenImageError(_reason(error)) from error
    if orientation in (5, 6, 7, 8):
        size = (size[1], size[0])
    return size, 1 if image.mode in _GREY_MODES else 3


def mode_of(data: bytes) -> str:
    """Pillow's mode of an image file, from its header; `RGB+transparency` where one colour is transparent.

    Raises BrokenImageError with the reason.
    """
    image = _open(data)
    return f"{image.mode}+transparency" if "transparency" in image.info else image.mode


def decode_image(data: bytes, resolution: int, channels: int, resize: Filter) -> np.ndarray:
    """Decode one file, honour its orientation, crop the centre square and resize.

    Returns uint8 [resolution, resolution, channels]. Transparency is laid over white, 16-bit grey is
    scaled to 8 bit, CMYK becomes RGB. Raises BrokenImageError with the reason.
    """
    image = _open(data)
    try:
        image = ImageOps.exif_transpose(image)
        return fit(_to_eight_bit(image), resolution, channels, resize)
    except BrokenImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every type on hostile bytes
        raise BrokenImageError(_reason(error)) from error


def fit(image: Image.Image, resolution: int, channels: int, resize: Filter) -> np.ndarray:
    """The centre square of an L or RGB image, resized: uint8 [resolution, resolution, channels]."""
    image = image.convert("L" if channels == 1 else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (side, side):
        image = image.crop((left, top, left + side, top + side))
    if side != resolution:
        image = image.resize((resolution, resolution), FILTERS[resize])
    return np.asarray(image, dtype=np.uint8).reshape(resolution, resolution, channels)


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except Exception as error:
        raise BrokenImageError(HINT if is_lfs_pointer(data) else _reason(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise BrokenImageError(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS:,} allowed")
    return image


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # whose own text is the address of our buffer
        return "not an image Pillow can read"
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """An L or RGB image of any image Pillow reads."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise BrokenImageError("32-bit integer pixels have no known range")
        return Image.fromarray(np.round(values / 257.0).astype(np.uint8))
    if image.mode == "F":
        raise BrokenImageError("floating-point pixels have no known range")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        grey = image.mode in ("L", "LA", "La")
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("L" if grey else "RGB")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")
