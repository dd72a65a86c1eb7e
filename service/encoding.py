"""uint8 images to the bytes of an answer. Everything here is called off the event loop, `npy` apart."""

import base64
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]

JPEG_QUALITY = 90
INLINE_BYTES = 2**18  # of an array; copying it takes less time than waking a thread
SMALL_PIXELS = 128 * 128  # one image of most generators; sheets and enlarged pictures are worth the effort
DIGITS = np.array([f"{value:3}," for value in range(256)], "S4").view(np.uint32)
NUMBER_BYTES = 6  # of one value in `numbers`, its brackets counted, at most
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
NO_FILTER, UP = 0, 2


def npy(images: Images) -> bytes:
    """The array as a .npy file, version 1.0: uint8 [N, H, W, C], C order."""
    shape = ", ".join(map(str, images.shape))
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    return b"".join((start, np.ascontiguousarray(images).data))


def numbers(images: Images) -> bytes:
    """Return uint8 [N, H, W, C] as JSON: arrays in arrays of numbers, each padded to three characters.

    numpy puts the text together: `json` would take a hundred times as long, and hold the interpreter's lock meanwhile.
    """
    n, height, width, channels = images.shape
    text = DIGITS.take(images).view(np.uint8).reshape(n, height, width, channels, 4)
    return b"[" + b",".join(_listed(_listed(_listed(image))).tobytes()[:-1] for image in text) + b"]"


def _listed(items: Images) -> Images:
    """Texts [..., K, B], each ending in a comma, as one text per K of them [..., K·B + 2]: a list and a comma."""
    *outer, count, width = items.shape
    text = np.empty((*outer, count * width + 2), np.uint8)
    text[..., 0] = ord("[")
    text[..., 1:-1] = items.reshape(*outer, count * width)  # its last comma is written over
    text[..., -2:] = np.frombuffer(b"],", np.uint8)
    return text


def picture(image: Images) -> Image.Image:
    """[H, W, 1] or [H, W, 3] as a Pillow image of mode L or RGB."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def still(image: Images, form: str, quality: int | None = None) -> bytes:
    """One image [H, W, C] as a lossless `png`, as `jpeg`, or as `webp`, lossless unless a quality is given."""
    out = io.BytesIO()
    if form == "jpeg":
        # colours at full resolution: small pictures are mostly edges
        picture(image).save(out, "JPEG", quality=quality or JPEG_QUALITY, subsampling=0)
    elif form == "webp":
        picture(image).save(out, "WEBP", **_webp(quality), method=2)
    elif image.shape[0] * image.shape[1] <= SMALL_PIXELS:
        return small_png(image)
    else:
        picture(image).save(out, "PNG", compress_level=4)
    return out.getvalue()


def small_png(image: Images) -> bytes:
    """One image [H, W, 1] or [H, W, 3] as a PNG, with one filter for all rows: none for greys, Up for colours.

    Faster than Pillow, which tries five filters on each row, and about as small for small pictures.
    """
    height, width, channels = image.shape
    values = image.reshape(height, width * channels)
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = UP if channels == 3 else NO_FILTER
    rows[:, 1:] = values
    if channels == 3:
        np.subtract(values[1:], values[:-1], out=rows[1:, 1:])
    facts = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 2)
    return b"".join((PNG_SIGNATURE, *_chunk(b"IHDR", facts), *_chunk(b"IDAT", data), *_chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    """A PNG's chunk: length, kind, data and a checksum over the last two."""
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _webp(quality: int | None) -> dict[str, Any]:
    """Without a quality lossless, where Pillow's `quality` means effort."""
    return {"lossless": True, "quality": 50} if quality is None else {"quality": quality}


def animation(images: Images, form: str, fps: float, loop: bool, quality: int | None = None) -> bytes:
    """Frames as `gif` (grey or 256 colours) or `webp` (as `still`); played once, or forever with `loop`.

    A GIF counts hundredths of a second, a WebP thousandths: each frame ends at the one next to its time, so that the
    whole lasts as long as `fps` says. Equal frames in a row are written as one that is shown as long as they.
    """
    first, *rest = (picture(image) for image in images)
    out = io.BytesIO()
    tick_ms = 10 if form == "gif" else 1
    ends = [round((i + 1) * 1000 / fps / tick_ms) * tick_ms for i in range(len(images))]
    shown = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    options: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": shown}
    if form == "gif":
        # a GIF says how often to repeat; without the word it is played once
        first.save(out, "GIF", **options, **({"loop": 0} if loop else {}), disposal=1)
    else:
        first.save(out, "WEBP", **options, **_webp(quality), loop=0 if loop else 1, method=0)
    return out.getvalue()


def archive(images: Images, names: Sequence[str], form: str = "png", quality: int | None = None) -> bytes:
    """A zip of one picture an image. Equal images make equal bytes: the times in it are fixed."""
    out = io.BytesIO()
    suffix = "jpg" if form == "jpeg" else form
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for image, name in zip(images, names, strict=True):
            file.writestr(zipfile.ZipInfo(f"{name}.{suffix}"), still(image, form, quality))
    return out.getvalue()


def npz(images: Images, **beside: Any) -> bytes:
    """A .npz of `images` and what is told `beside` them (None is left out); numbers and text, so never a pickle."""
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, images=images, **{k: np.asarray(v) for k, v in beside.items() if v is not None})
    return out.getvalue()


def document(
    images: Images,
    facts: dict[str, Any],
    entries: Sequence[dict[str, Any]],
    form: str = "png",
    quality: int | None = None,
    rest: str | None = None,
) -> bytes:
    """JSON: `facts`, then `data` with each entry and its picture as base64; with `rest` all but the first so named."""
    # put together from bytes: `json` would hold the interpreter's lock, and so the event loop, for the whole answer
    data = [
        b'%b"b64_json":"%b"}' % (_opened(entry), base64.b64encode(still(image, form, quality)))
        for entry, image in zip(entries, images, strict=True)
    ]
    lists = {"data": data} if rest is None else {"data": data[:1], rest: data[1:]}
    parts = [_opened(facts)]
    for name, items in lists.items():
        parts += [json.dumps(name).encode(), b":["]
        for item in items:
            parts += [item, b","]
        parts[len(parts) - bool(items) :] = [b"]", b","]
    return b"".join((*parts[:-1], b"}"))


def _opened(values: dict[str, Any]) -> bytes:
    """Return a JSON object that lacks its end, ready for another key."""
    text = json.dumps(values, separators=(",", ":")).encode()[:-1]
    return text if text == b"{" else text + b","


def ranges(values: Sequence[int]) -> str:
    """[0, 1, 2, 3, 7, 9, 10] as "0-3,7,9-10", in the order given: only rising runs are joined."""
    parts: list[str] = []
    start = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[i - 1] + 1:
            first, last = values[start], values[i - 1]
            parts.append(str(first) if first == last else f"{first}-{last}")
            start = i
    return ",".join(parts)
