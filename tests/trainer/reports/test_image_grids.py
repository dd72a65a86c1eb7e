from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainer.reports import image_grids


def test_to_uint8_rounds() -> None:
    """Casting floats in [0, 1] to uint8 would leave only 0 and 1 (a mistake made in the wild)."""
    levels = torch.arange(256, dtype=torch.float32)
    images = (levels / 127.5 - 1.0).reshape(1, 1, 16, 16)
    pixels = image_grids.to_uint8(images)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (1, 16, 16, 1)
    assert pixels.flatten().tolist() == list(range(256))


def test_to_uint8_clips() -> None:
    assert image_grids.to_uint8(torch.tensor([-1.5, 1.5]).reshape(2, 1, 1, 1)).flatten().tolist() == [0, 255]


def test_grid_places_images_in_order() -> None:
    images = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    sheet = image_grids.grid(images, columns=3, gap=1)
    assert sheet.shape == (2 * 3 + 1, 3 * 3 + 1, 3)
    assert [int(sheet[1, 1, 0]), int(sheet[1, 4, 0]), int(sheet[1, 7, 0]), int(sheet[4, 1, 0])] == [1, 2, 3, 4]
    assert sheet[5, 8, 0] == 0


def test_write_png_enlarges_by_a_whole_factor(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (10, 10, 1), dtype=np.uint8)
    image_grids.write_png(picture, tmp_path / "a" / "x.png", min_side=25)
    image = np.asarray(Image.open(tmp_path / "a" / "x.png"))
    np.testing.assert_array_equal(image[::3, ::3], picture[:, :, 0])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.png"]
