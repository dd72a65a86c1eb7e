"""Transparent images drawn over white."""

from __future__ import annotations

import numpy as np
from PIL import Image

from artifacts.images.alpha import over_white


def test_over_white_of_every_color_and_alpha_is_the_rounded_blend() -> None:
    color, alpha = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    images = np.stack([color, color, color, alpha], axis=-1).astype(np.uint8)
    expected = np.floor((color * alpha + 255.0 * (255 - alpha)) / 255 + 0.5)
    assert np.array_equal(over_white(images), np.repeat(expected[..., None], 3, axis=-1))


def test_over_white_differs_from_pillow_by_at_most_one_level() -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    white = Image.new("RGBA", (64, 64), "white")
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(images)).convert("RGB"))
    assert np.abs(over_white(images).astype(int) - expected).max() <= 1


def test_over_white_keeps_images_without_alpha() -> None:
    images = np.zeros((2, 4, 6, 3), np.uint8)
    assert over_white(images) is images
