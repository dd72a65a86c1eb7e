"""The images that a job left, as sheets in PNG: enlarged by whole factors, so that every pixel stays a square."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from artifacts.arrays import read_npy
from evaluation.atomic import written_whole
from evaluation.errors import EvaluationError

COLUMNS, GAP = 8, 4
SMALLEST, LARGEST = 56, 128  # pixels of a tile: smaller images are enlarged, larger ones reduced
SHEETS = ("samples", "reals", "neighbours")


def read_pictures(folder: Path, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """`samples`, `reals` uint8 [n, H, W, C] and `neighbours` uint8 [rows, 1 + k, H, W, C], those that are there.

    Images that are gone (a JSON that was moved) are left out. EvaluationError: what is there is something else.
    """
    found = {}
    for name in SHEETS:
        path = folder / names.get(name, f"images/{name}.npy")
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise EvaluationError(f"{path} lies outside of the report's folder; its images are not read")
        try:
            images = np.array(read_npy(path))
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{path} is damaged ({str(error)[:100]}); score again") from error
        wanted = 5 if name == "neighbours" else 4
        if images.dtype != np.uint8 or images.ndim != wanted or images.shape[-1] not in (1, 3) or not images.size:
            raise EvaluationError(f"{path} holds {images.dtype} {list(images.shape)}, not images")
        found[name] = images
    return found


def write_sheets(folder: Path, pictures: Mapping[str, np.ndarray]) -> dict[str, Path]:
    """`samples.png`, `reals.png` and `neighbours.png`, 8 images a row; of neighbours two samples a row."""
    written = {}
    for name, images in pictures.items():
        path = folder / f"{name}.png"
        with written_whole(path) as handle:
            handle.write(png(pairs(images) if name == "neighbours" else sheet(images)))
        written[name] = path
    return written


def sheet(images: np.ndarray, columns: int = COLUMNS) -> Image.Image:
    """uint8 [n, H, W, C] as one picture on transparent ground, row by row."""
    return _laid([tile(image) for image in images], [(i % columns, i // columns) for i in range(len(images))])


def row(images: np.ndarray) -> Image.Image:
    """A sample and its nearest training images, uint8 [1 + k, H, W, C]: the sample, a gap, the others."""
    return _laid([tile(image) for image in images], [(i + (i > 0) * 0.25, 0) for i in range(len(images))])


def pairs(rows: np.ndarray) -> Image.Image:
    """All rows of neighbours, two beside each other."""
    drawn = [row(images) for images in rows]
    width, height = drawn[0].size
    canvas = Image.new("RGBA", (2 * width + 6 * GAP, -(-len(drawn) // 2) * (height + GAP) - GAP))
    for i, picture in enumerate(drawn):
        canvas.paste(picture, ((i % 2) * (width + 6 * GAP), (i // 2) * (height + GAP)))
    return canvas


def tile(image: np.ndarray) -> Image.Image:
    """uint8 [H, W, C] at a size that can be looked at: times a whole number, or reduced to at most 128 px."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        return picture
    factor = -(-SMALLEST // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_url(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def _laid(tiles: list[Image.Image], places: list[tuple[float, float]]) -> Image.Image:
    width, height = tiles[0].size
    corners = [(round(x * (width + GAP)), round(y * (height + GAP))) for x, y in places]
    size = max(x for x, _ in corners) + width, max(y for _, y in corners) + height
    canvas = Image.new("RGBA", size)
    for picture, corner in zip(tiles, corners, strict=True):
        canvas.paste(picture, corner)
    return canvas
