"""Encode uint8 images [N, H, W, C] as PNG, JPEG, WebP, GIF, npy, npz, zip or JSON.

C is 1 (gray), 3 (RGB) or 4 (RGBA). JPEG and GIF have no partial transparency: RGBA is drawn over white there.

All but `encode_npy` of a small array take long enough to be called on a thread, not on the event loop.
"""

import base64
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifacts.images.alpha import over_white

Images = NDArray[np.uint8]

MAX_SIDE = {"image/webp": 16383, "image/jpeg": 65500, "image/gif": 65535, "image/png": 2**31 - 1}  # libraries' limits
JPEG_QUALITY = 90
INLINE_BYTES = 2**18  # size of an array whose copy takes less time than waking a thread
SMALL_PIXELS = 128 * 128  # a single image of most generators; better compression pays for grids and enlarged images
DIGITS = np.array([f"{value:3}," for value in range(256)], "S4").view(np.uint32)
JSON_BYTES_PER_VALUE = 6  # at most, in `encode_json_arrays`, including the value's share of brackets
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
NO_FILTER, UP = 0, 2
PNG_COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # by channels


@dataclass(frozen=True)
class GridLayout:
    """A grid of n images [height, width] in reading order, with `padding` pixels between them."""

    n: int
    height: int
    width: int
    columns: int
    padding: int = 0

    @property
    def rows(self) -> int:
        """Number of rows."""
        return math.ceil(self.n / self.columns)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the grid in pixels."""
        return (
            self.rows * (self.height + self.padding) - self.padding,
            self.columns * (self.width + self.padding) - self.padding,
        )

    def assemble(self, images: Images) -> Images:
        """Place images [n, height, width, C] on one canvas [H, W, C]; padding and unused cells are 0."""
        n, height, width, channels = images.shape
        cell_height, cell_width = height + self.padding, width + self.padding
        cells = np.zeros((self.rows * self.columns, cell_height, cell_width, channels), np.uint8)
        cells[:n, :height, :width] = images
        canvas = cells.reshape(self.rows, self.columns, cell_height, cell_width, channels).swapaxes(1, 2)
        full_height, full_width = self.size
        return canvas.reshape(self.rows * cell_height, self.columns * cell_width, channels)[:full_height, :full_width]


def enlarge(images: Images, scale: int) -> Images:
    """Repeat each pixel: [N, H, W, C] → [N, H·scale, W·scale, C]."""
    if scale == 1:
        return images
    n, height, width, channels = images.shape
    result = np.empty((n, height * scale, width * scale, channels), np.uint8)
    for large, image in zip(result, images, strict=True):  # one by one, so that other threads get the GIL in between
        large[:] = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return result


def encode_npy(images: Images) -> bytes:
    """Encode an array as a .npy file, version 1.0: uint8 [N, H, W, C], C order."""
    shape = ", ".join(map(str, images.shape))
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    prefix = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    return b"".join((prefix, np.ascontiguousarray(images).data))


def encode_npz(images: Images, **arrays: Any) -> bytes:
    """Encode a .npz of `images` and further arrays; None is left out. Numbers and text only, so never a pickle."""
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, images=images, **{k: np.asarray(v) for k, v in arrays.items() if v is not None})
    return out.getvalue()


def encode_json_arrays(images: Images) -> bytes:
    """Encode uint8 [N, H, W, C] as nested JSON arrays of numbers, each padded to three characters.

    numpy assembles the text: `json` would take a hundred times as long and hold the GIL all that time.
    """
    n, height, width, channels = images.shape
    text = DIGITS.take(images).view(np.uint8).reshape(n, height, width, channels, 4)
    return b"[" + b",".join(_bracket(_bracket(_bracket(image))).tobytes()[:-1] for image in text) + b"]"


def _bracket(items: Images) -> Images:
    """Join texts [..., K, B], each ending in a comma, into one JSON list and a comma each: [..., K·B + 2]."""
    *outer, count, width = items.shape
    text = np.empty((*outer, count * width + 2), np.uint8)
    text[..., 0] = ord("[")
    text[..., 1:-1] = items.reshape(*outer, count * width)  # the last comma is overwritten below
    text[..., -2:] = np.frombuffer(b"],", np.uint8)
    return text


def to_pil(image: Images) -> Image.Image:
    """Convert [H, W, 1], [H, W, 3] or [H, W, 4] to a Pillow image of mode L, RGB or RGBA."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def encode_image(image: Images, image_format: str, quality: int | None = None) -> bytes:
    """Encode one image [H, W, C].

    Args:
        image: uint8 [H, W, 1], [H, W, 3] or [H, W, 4].
        image_format: `png` (lossless), `jpeg`, or `webp` (lossless unless a quality is given).
        quality: 1 to 100, of `jpeg` and `webp`.
    """
    out = io.BytesIO()
    if image_format == "jpeg":
        # Without chroma subsampling: small images are mostly edges.
        to_pil(over_white(image)).save(out, "JPEG", quality=quality or JPEG_QUALITY, subsampling=0)
    elif image_format == "webp":
        to_pil(image).save(out, "WEBP", **_webp_options(quality), method=2)
    elif image.shape[0] * image.shape[1] <= SMALL_PIXELS:
        return _encode_small_png(image)
    else:
        to_pil(image).save(out, "PNG", compress_level=4)
    return out.getvalue()


def _encode_small_png(image: Images) -> bytes:
    """Encode a PNG with one filter for all rows: none for gray, Up for color.

    Pillow tries five filters on each row, which takes longer and makes small images hardly smaller.
    """
    height, width, channels = image.shape
    values = image.reshape(height, width * channels)
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = NO_FILTER if channels == 1 else UP
    rows[:, 1:] = values
    if channels > 1:
        np.subtract(values[1:], values[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, PNG_COLOR_TYPES[channels], 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 2)
    return b"".join((PNG_SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", data), *_chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    """Return the parts of a PNG chunk: length, kind, data, and a checksum of kind and data."""
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _webp_options(quality: int | None) -> dict[str, Any]:
    # In lossless WebP, Pillow's `quality` is the effort, and `exact` keeps the color of transparent pixels.
    return {"lossless": True, "quality": 50, "exact": True} if quality is None else {"quality": quality}


def encode_animation(images: Images, image_format: str, fps: float, loop: bool, quality: int | None = None) -> bytes:
    """Encode frames as an animated `gif` (gray or 256 colors) or `webp`, played once or forever.

    A GIF counts hundredths of a second, a WebP thousandths. Each frame ends at the tick nearest to its time, so that
    the whole lasts as long as `fps` requires. Equal consecutive frames are written as one longer frame.
    """
    first, *rest = (to_pil(over_white(image) if image_format == "gif" else image) for image in images)
    out = io.BytesIO()
    tick_ms = 10 if image_format == "gif" else 1
    ends = [round((i + 1) * 1000 / fps / tick_ms) * tick_ms for i in range(len(images))]
    durations = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    options: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": durations}
    if image_format == "gif":
        # Without a `loop` entry a GIF is played once.
        first.save(out, "GIF", **options, **({"loop": 0} if loop else {}), disposal=1)
    else:
        first.save(out, "WEBP", **options, **_webp_options(quality), loop=0 if loop else 1, method=0)
    return out.getvalue()


def encode_zip(images: Images, names: Sequence[str], image_format: str = "png", quality: int | None = None) -> bytes:
    """Encode a zip with one file per image. Equal images give equal bytes: the times in it are fixed."""
    out = io.BytesIO()
    suffix = "jpg" if image_format == "jpeg" else image_format
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for image, name in zip(images, names, strict=True):
            file.writestr(zipfile.ZipInfo(f"{name}.{suffix}"), encode_image(image, image_format, quality))
    return out.getvalue()


def encode_json(
    images: Images,
    fields: dict[str, Any],
    entries: Sequence[dict[str, Any]],
    image_format: str = "png",
    quality: int | None = None,
    rest_key: str | None = None,
) -> bytes:
    """Encode a JSON object: `fields`, then a list `data` of entries, each with its image as base64 in `b64_json`.

    Args:
        images: uint8 [N, H, W, C].
        fields: Keys and values that precede the list.
        entries: Keys and values of each image's entry.
        image_format: `png`, `jpeg` or `webp`.
        quality: As in `encode_image`.
        rest_key: Key of a second list, of all images but the first; None puts all into `data`.
    """
    # Assembled from bytes: `json` would hold the GIL, and so block the event loop, for the whole answer.
    data = [
        b'%b"b64_json":"%b"}' % (_open_object(entry), base64.b64encode(encode_image(image, image_format, quality)))
        for entry, image in zip(entries, images, strict=True)
    ]
    lists = {"data": data} if rest_key is None else {"data": data[:1], rest_key: data[1:]}
    members = [b'"%b":[%b]' % (key.encode(), b",".join(items)) for key, items in lists.items()]
    return b"%b%b}" % (_open_object(fields), b",".join(members))


def _open_object(values: dict[str, Any]) -> bytes:
    """Return a JSON object without its closing brace, ready for another key."""
    text = json.dumps(values, separators=(",", ":")).encode()[:-1]
    return text if text == b"{" else text + b","


def format_ranges(values: Sequence[int]) -> str:
    """Format [0, 1, 2, 3, 7, 9, 10] as "0-3,7,9-10", in the given order: only rising runs are joined."""
    parts: list[str] = []
    start = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[i - 1] + 1:
            first, last = values[start], values[i - 1]
            parts.append(str(first) if first == last else f"{first}-{last}")
            start = i
    return ",".join(parts)
