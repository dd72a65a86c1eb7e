"""uint8 images to the bytes of an answer. Everything here is called off the event loop, `npy` apart."""

import base64
import io
import json
import math
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]


def npy(images: Images) -> bytes:
    """The array as a .npy file, version 1.0: uint8 [N, H, W, C], C order."""
    shape = ", ".join(map(str, images.shape))
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + images.tobytes()


def picture(image: Images) -> Image.Image:
    """[H, W, 1] or [H, W, 3] as a Pillow image of mode L or RGB."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def enlarged(images: Images, scale: int) -> Images:
    """[N, H, W, C] → [N, H·scale, W·scale, C], each pixel a square."""
    return images if scale == 1 else images.repeat(scale, axis=1).repeat(scale, axis=2)


def still(image: Images, form: str) -> bytes:
    """One image [H, W, C] as a lossless `png` or `webp`."""
    out = io.BytesIO()
    if form == "webp":
        picture(image).save(out, "WEBP", lossless=True, quality=50, method=2)
    else:
        picture(image).save(out, "PNG", compress_level=4)
    return out.getvalue()


def grid(images: Images, columns: int | None = None) -> Images:
    """Images [N, H, W, C] side by side: [rows·H, columns·W, C], as square as can be, unused places black."""
    n, height, width, channels = images.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = math.ceil(n / columns)
    canvas = np.zeros((rows * columns, height, width, channels), np.uint8)
    canvas[:n] = images
    return (
        canvas.reshape(rows, columns, height, width, channels)
        .swapaxes(1, 2)
        .reshape(rows * height, columns * width, channels)
    )


def png(images: Images) -> bytes:
    """One image as it is, several as a grid."""
    return still(images[0] if len(images) == 1 else grid(images), "png")


def strip(images: Images) -> bytes:
    """Frames in reading order as one PNG, at most 16 to a row."""
    return still(grid(images, min(len(images), 16)), "png")


def animation(images: Images, form: str, fps: float, loop: bool) -> bytes:
    """Frames as `gif` (grey or 256 colours) or lossless `webp`; played once, or forever with `loop`."""
    first, *rest = (picture(image) for image in images)
    out = io.BytesIO()
    options: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": round(1000 / fps)}
    if form == "gif":
        # a GIF says how often to repeat; without the word it is played once
        first.save(out, "GIF", **options, **({"loop": 0} if loop else {}), disposal=1)
    else:
        first.save(out, "WEBP", **options, loop=0 if loop else 1, lossless=True, quality=50, method=0)
    return out.getvalue()


def archive(images: Images, names: Sequence[str]) -> bytes:
    """A zip of one PNG an image. Equal images make equal bytes: the times in it are fixed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for image, name in zip(images, names, strict=True):
            file.writestr(zipfile.ZipInfo(f"{name}.png"), still(image, "png"))
    return out.getvalue()


def document(images: Images, facts: dict[str, Any], entries: Sequence[dict[str, Any]]) -> bytes:
    """JSON: `facts`, then `data` with each entry and its image as base64 of a PNG."""
    data = [
        {**entry, "b64_json": base64.b64encode(still(image, "png")).decode()}
        for entry, image in zip(entries, images, strict=True)
    ]
    return json.dumps({**facts, "data": data}, separators=(",", ":")).encode()


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
