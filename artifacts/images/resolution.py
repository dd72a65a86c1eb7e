"""A resolution in one value: the side of square images in pixels, or the text HEIGHTxWIDTH of rectangular ones.

Height comes first, as in an array's shape [N, H, W, C]. Configs, image sets, references and reports hold this value.
"""

from __future__ import annotations

import numbers
import re
from typing import Any

Resolution = int | str

_TEXT = re.compile(r"\s*([0-9]{1,9})(?:\s*[xX×]\s*([0-9]{1,9}))?\s*")


def parse_resolution(value: Any) -> Resolution:
    """Return a resolution of a side, a pair (height, width), or a text such as "64" or "64x96".

    A rectangle with equal sides is a square, so equal resolutions are equal values.

    Raises:
        ValueError: If it is something else; the message is one line.
    """
    if isinstance(value, str):
        if found := _TEXT.fullmatch(value):
            return resolution_of(int(found[1]), int(found[2] or found[1]))
    elif isinstance(value, (list, tuple)):
        if len(value) == 2 and all(map(_is_whole, value)):
            return resolution_of(int(value[0]), int(value[1]))
    elif _is_whole(value):
        return int(value)
    raise ValueError(
        f"resolution {str(value)[:80]!r} is neither a whole number of pixels, such as 32, nor HEIGHTxWIDTH, such as "
        "64x96"
    )


def resolution_of(height: int, width: int) -> Resolution:
    """Return the resolution of images of this height and width in pixels."""
    return height if height == width else f"{height}x{width}"


def height_and_width(resolution: Resolution) -> tuple[int, int]:
    """Return the height and width of a resolution in pixels; ValueError if it is none."""
    resolution = parse_resolution(resolution)
    if isinstance(resolution, int):
        return resolution, resolution
    height, width = resolution.split("x")
    return int(height), int(width)


def size_text(resolution: Resolution) -> str:
    """Return HEIGHTxWIDTH of any resolution, of squares too."""
    return "x".join(map(str, height_and_width(resolution)))


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
