"""Grids of a report's images as PNG, enlarged by whole factors, so that every pixel stays a square."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from artifacts.arrays import read_npy
from artifacts.images.alpha import over_white
from evaluation.errors import EvaluationError
from evaluation.output_files import atomic_output

COLUMNS, GAP = 8, 4
# Pixels of a tile: smaller images are enlarged, larger ones reduced.
MIN_TILE, MAX_TILE = 56, 128
NAMES = ("samples", "reals", "neighbours")


def read_images(folder: Path, paths: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the images of a report in `folder`, whose relative paths it records by name.

    They are `samples` and `reals`, uint8 [n, H, W, C], and `neighbours`, uint8 [rows, 1 + k, H, W, C]. Missing files
    are left out: the JSON may have been moved. A file that is damaged, contains something else or is outside of the
    folder raises EvaluationError.
    """
    found = {}
    for name in NAMES:
        path = folder / paths.get(name, f"images/{name}.npy")
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise EvaluationError(f"{path} is outside of the report's folder; its images are not read")
        try:
            images = np.array(read_npy(path))
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{path} is damaged ({str(error)[:100]}); score again") from error
        rank = 5 if name == "neighbours" else 4
        if images.dtype != np.uint8 or images.ndim != rank or images.shape[-1] not in (1, 3, 4) or not images.size:
            raise EvaluationError(f"{path} contains {images.dtype} {list(images.shape)}, not images")
        found[name] = images
    return found


def write_grids(folder: Path, images: Mapping[str, np.ndarray]) -> dict[str, Path]:
    """Write `samples.png`, `reals.png` and `neighbours.png`, and return their paths by name."""
    written = {}
    for name, array in images.items():
        path = folder / f"{name}.png"
        with atomic_output(path) as handle:
            handle.write(_png(draw_neighbor_pairs(array) if name == "neighbours" else draw_grid(array)))
        written[name] = path
    return written


def draw_grid(images: np.ndarray) -> Image.Image:
    """Return uint8 [n, H, W, C] as one image on a transparent ground, row by row."""
    tiles = [tile(image) for image in images]
    width, height = tiles[0].size
    return _paste(tiles, [(i % COLUMNS * (width + GAP), i // COLUMNS * (height + GAP)) for i in range(len(tiles))])


def draw_neighbors(images: np.ndarray) -> Image.Image:
    """Return a sample and its nearest training images, uint8 [1 + k, H, W, C], as a row with a gap after the sample."""
    tiles = [tile(image) for image in images]
    return _paste(tiles, [(round((i + (i > 0) * 0.25) * (tiles[0].width + GAP)), 0) for i in range(len(tiles))])


def draw_neighbor_pairs(rows: np.ndarray) -> Image.Image:
    """Return all rows of neighbors in two columns."""
    drawn = [draw_neighbors(images) for images in rows]
    width, height = drawn[0].size
    return _paste(drawn, [(i % 2 * (width + 6 * GAP), i // 2 * (height + GAP)) for i in range(len(drawn))])


def tile(image: np.ndarray) -> Image.Image:
    """Return uint8 [H, W, C] enlarged by a whole factor, or reduced to at most 128 px; RGBA as scored, over white."""
    image = over_white(image)
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if max(picture.size) > MAX_TILE:
        picture.thumbnail((MAX_TILE, MAX_TILE), Image.Resampling.LANCZOS)
        return picture
    factor = -(-MIN_TILE // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def data_url(image: Image.Image) -> str:
    """Return an image as a data URL."""
    return "data:image/png;base64," + base64.b64encode(_png(image)).decode()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _paste(tiles: list[Image.Image], corners: list[tuple[int, int]]) -> Image.Image:
    """Paste tiles of one size at their upper left corners (x, y), on a transparent ground."""
    width, height = tiles[0].size
    canvas = Image.new("RGBA", (max(x for x, _ in corners) + width, max(y for _, y in corners) + height))
    for image, corner in zip(tiles, corners, strict=True):
        canvas.paste(image, corner)
    return canvas
