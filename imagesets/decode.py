"""From the bytes of an image file, or an array, to uint8 pixels of the wanted size. Pillow throughout."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from artifacts.files import LFS_HINT, is_lfs_pointer
from artifacts.images.alpha import RGBA
from artifacts.images.resolution import Resolution, height_and_width
from artifacts.terminal import printable
from imagesets.types import BrokenImageError, Header

T = TypeVar("T")

Filter = Literal["pil-bilinear", "pil-bicubic", "dct-scaled+pil-bilinear"]

# All are antialiased when they reduce. Bilinear is what the source documents' torchvision.Resize does.
FILTERS = {
    "pil-bilinear": Image.Resampling.BILINEAR,
    "pil-bicubic": Image.Resampling.BICUBIC,
    "dct-scaled+pil-bilinear": Image.Resampling.BILINEAR,
}
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size while it stays this many times larger than the resolution: then no
# pixel of twelve synthetic photos of 12 megapixels differed by more than 1 of 255 from the full decoding.
SCALED_MARGIN = 4

# Below Pillow's own warning (89 million pixels), so that ours is the bound that speaks.
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 * 1024 * 1024

_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
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


def header_of(data: bytes) -> Header:
    """Return the header of an image file, of which `data` may be the beginning.

    Raises:
        BrokenImageError: With the reason.
    """

    def look(image: Image.Image) -> Header:
        is_turned = image.format != "PNG" and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        width, height = image.size[::-1] if is_turned else image.size
        return Header(width, height, _mode(image), str(image.format))

    return _with_image(data, look)


def channels_of(data: bytes) -> int:
    """Return the native channels (1 or 3) of an image file, from its header. Raises BrokenImageError."""
    return 3 if is_color(mode_of(data)) else 1


def is_transparent(mode: str) -> bool:
    """Return whether an image of this mode (as `mode_of` returns it) may be transparent."""
    return mode.endswith("+transparency") or mode in _ALPHA_MODES


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


def decode_image(
    data: bytes, resolution: Resolution, channels: int, resize: Filter
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode one file, apply its orientation, crop the center to the resolution's aspect ratio and resize.

    Returns uint8 [H, W, channels], and the height and width of the whole image. With 1 or 3 channels transparency is
    laid over white; with 4 it is kept, and an image without is opaque. 16-bit gray is scaled to 8 bit, CMYK becomes
    RGB.

    Raises:
        BrokenImageError: With the reason.
    """

    def decode(image: Image.Image) -> tuple[np.ndarray, tuple[int, int]]:
        whole = (image.height, image.width)
        if resize.startswith("dct-scaled"):
            scale = jpeg_scale(min(image.size), max(height_and_width(resolution)))
            image.draft(None, (image.width // scale, image.height // scale))  # type: ignore[arg-type]  # None: its mode
        swapped = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        ImageOps.exif_transpose(image, in_place=True)
        return resize_center_crop(image, resolution, channels, resize), whole[::-1] if swapped else whole

    return _with_image(data, decode)


def jpeg_scale(side: int, resolution: int) -> int:
    """Return by how much a JPEG whose shorter side is `side` pixels is scaled while it is decoded: 1, 2, 4 or 8."""
    return next((scale for scale in (8, 4, 2) if side >= scale * SCALED_MARGIN * resolution), 1)


def resize_center_crop(image: Image.Image, resolution: Resolution, channels: int, resize: Filter) -> np.ndarray:
    """Return the largest centered crop of an image that has the resolution's aspect ratio, resized.

    Returns uint8 [H, W, channels]. Pillow resizes colors weighted by alpha, so that the hidden color of transparent
    pixels shows nowhere; fully transparent pixels are black.
    """
    image = _to_rgba(image) if channels == RGBA else _to_eight_bit(image)
    if image.mode != (mode := {1: "L", 3: "RGB", RGBA: "RGBA"}[channels]):  # a copy takes as long as a resize
        image = image.convert(mode)
    height, width = height_and_width(resolution)
    across, down = _crop_size(image.width, image.height, width, height)
    left, top = (image.width - across) // 2, (image.height - down) // 2
    if image.size != (across, down):
        image = image.crop((left, top, left + across, top + down))
    if (across, down) != (width, height):
        image = image.resize((width, height), FILTERS[resize])
    pixels = np.asarray(image, dtype=np.uint8).reshape(height, width, channels)
    return np.where(pixels[..., 3:] > 0, pixels, np.uint8(0)) if channels == RGBA else pixels


def _crop_size(across: int, down: int, width: int, height: int) -> tuple[int, int]:
    """Return the width and height of the largest part of [down, across] pixels with the ratio of width to height."""
    if across * height > down * width:
        return max(1, round(down * width / height)), down
    return across, max(1, round(across * height / width))


def describe_crop(sizes: Sequence[tuple[int, int]], resolution: Resolution) -> dict[str, Any]:
    """Return what an image set's info states of the crop.

    Args:
        sizes: Height and width of each image.
        resolution: What the images are cropped and resized to.

    Returns:
        `crop_keeps`, the mean share of an image's pixels that the crop keeps, and `typical_size`, the median height
        and width.
    """
    height, width = height_and_width(resolution)
    shares = []
    for down, across in sizes:
        kept_across, kept_down = _crop_size(across, down, width, height)
        shares.append(kept_across * kept_down / (across * down))
    typical = [int(np.median([size[axis] for size in sizes])) for axis in (0, 1)]
    return {"crop_keeps": round(float(np.mean(shares)), 3), "typical_size": typical}


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


def _to_rgba(image: Image.Image) -> Image.Image:
    """Return any image that Pillow reads in mode RGBA, opaque where it has no transparency."""
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    return _to_eight_bit(image).convert("RGBA")


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Return any image that Pillow reads in mode L or RGB."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise BrokenImageError("32-bit integer pixels have no known range")
        return Image.fromarray(np.round(values / 257.0).astype(np.uint8))
    if image.mode == "F":
        raise BrokenImageError("floating-point pixels have no known range")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        gray = image.mode in ("L", "LA", "La")
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("L" if gray else "RGB")
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)
