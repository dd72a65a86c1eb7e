from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagesets import ImageSet
from imagesets.decode import jpeg_scale


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """A folder with one smooth JPEG of 640 × 480 pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    image = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    image.save(tmp_path / "photos/photo.jpg", quality=95)
    return str(tmp_path / "photos")


def test_scaled_jpeg_differs_by_at_most_a_level(load: Callable[..., ImageSet], photo: str) -> None:
    exact, scaled = (load(photo, resolution=16, scale_jpegs=choice) for choice in (False, True))
    assert exact.fingerprint != scaled.fingerprint
    assert np.abs(exact.images.astype(int) - scaled.images).max() <= 1


def test_scaled_jpegs_are_recorded_as_another_resize(load: Callable[..., ImageSet], photo: str) -> None:
    exact, scaled = (load(photo, resolution=16, scale_jpegs=choice) for choice in (False, True))
    assert (exact.info["resize"], scaled.info["resize"]) == ("pil-bilinear", "dct-scaled+pil-bilinear")


def test_scaled_jpeg_below_the_margin_is_decoded_in_full(load: Callable[..., ImageSet], photo: str) -> None:
    exact, scaled = (load(photo, resolution=64, scale_jpegs=choice) for choice in (False, True))
    assert exact.fingerprint == scaled.fingerprint


@pytest.mark.parametrize(("side", "scale"), [(1023, 4), (1024, 8), (511, 2), (255, 1)])
def test_jpeg_scale_keeps_four_times_the_resolution(side: int, scale: int) -> None:
    assert jpeg_scale(side, 32) == scale
