"""Rectangular and transparent images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagesets import ImageSetError, native_channels
from imagesets.decode import resize_center_crop

RED, CLEAR = (200, 30, 30, 255), (0, 255, 0, 0)


def write(folder: Path, *images: np.ndarray) -> str:
    """Write arrays as PNG files and return the image set's name."""
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index}.png")
    return f"folder:{folder}"


def rgba(height: int = 8, width: int = 12) -> np.ndarray:
    """Return an image whose left half is red and whose right half is green and fully transparent."""
    image = np.empty((height, width, 4), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = RED, CLEAR
    return image


def test_folder_of_rectangles_keeps_their_own_resolution(tmp_path: Path, load) -> None:
    pixels = np.arange(96, dtype=np.uint8).reshape(8, 12)
    found = load(write(tmp_path / "wide", pixels))
    assert np.array_equal(found.images[0, :, :, 0], pixels)
    assert (found.info["resolution"], found.info["crop"]) == ("8x12", "center-aspect")


@pytest.mark.parametrize("resolution", ["16x32", (16, 32), [16, 32]])
def test_load_rectangle_crops_the_center_to_its_aspect_ratio(tmp_path: Path, load, resolution: object) -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[16:48] = 255
    found = load(write(tmp_path / "band", pixels), resolution=resolution)
    assert found.images.shape == (1, 16, 32, 1)
    assert (found.images == 255).all()
    assert found.info["crop_keeps"] == 0.5


@given(*[st.integers(1, 80)] * 4)
def test_resize_center_crop_of_any_shape_has_the_resolution(h: int, w: int, height: int, width: int) -> None:
    image = Image.fromarray(np.full((h, w, 4), 7, np.uint8))
    for channels in (1, 3, 4):
        assert resize_center_crop(image, f"{height}x{width}", channels, "pil-bilinear").shape == (
            height,
            width,
            channels,
        )


def test_rgba_keeps_straight_color_and_alpha(tmp_path: Path, load) -> None:
    found = load(write(tmp_path / "clear", rgba()), channels=4)
    assert (found.images[0, :, :6] == RED).all()
    assert (found.images[0, :, 6:] == 0).all()  # the hidden green is no color


def test_rgba_resize_does_not_mix_in_hidden_colors(tmp_path: Path, load) -> None:
    image = load(write(tmp_path / "clear", rgba(30, 42)), channels=4, resolution=(15, 21)).images[0]
    shown = image[image[..., 3] > 0]
    assert np.abs(shown[:, :3].astype(int) - RED[:3]).max() <= 3
    assert (shown[:, 3] < 255).any()  # the edge, which falls within a pixel


def test_rgba_of_mixed_files_states_what_was_read_as_opaque(tmp_path: Path, load) -> None:
    folder = write(tmp_path / "mixed", rgba(), np.full((8, 12, 3), 9, np.uint8), np.full((8, 12), 9, np.uint8))
    found = load(folder, channels=4)
    assert (found.images[1:] == (9, 9, 9, 255)).all()
    assert found.info["contents"].endswith("2 without transparency, read as opaque")


def test_transparent_files_are_rgb_over_white_unless_requested(tmp_path: Path, load) -> None:
    folder = write(tmp_path / "clear", rgba())
    found = load(folder)
    assert native_channels(folder, cache_root=tmp_path / "cache") == found.images.shape[3] == 3
    assert (found.images[0, :, 6:] == 255).all()
    assert found.info["contents"].endswith("1 with transparency, drawn over white (channels=4 keeps it)")


@pytest.mark.parametrize("first", [False, True])
def test_npz_of_rgba_equals_the_files(tmp_path: Path, load, first: bool) -> None:
    images = np.stack([rgba(), rgba()[:, ::-1]])
    np.savez(tmp_path / "a.npz", images=images.transpose(0, 3, 1, 2) if first else images)
    expected = load(write(tmp_path / "files", *images), channels=4)
    assert load(f"folder:{tmp_path / 'a.npz'}", channels=4).fingerprint == expected.fingerprint


def test_function_of_rgba_images_is_drawn_over_white(tmp_path: Path, load, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_clear.py").write_text(
        "import numpy as np\ndef images(split):\n    return np.full((3, 8, 6, 4), (9, 9, 9, 0), np.uint8)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert (load("own_clear:images").images == 255).all()
    assert load("own_clear:images", channels=4, resolution="16x12").images.shape == (3, 16, 12, 4)


def test_panoramas_as_squares_suggest_a_rectangle(tmp_path: Path, load) -> None:
    folder = write(tmp_path / "wide", np.zeros((40, 160), np.uint8))
    line = load(folder, resolution=32).info["contents"]
    assert line.endswith(
        "the center crop leaves out 75% of the pixels, of images of typically 40x160; "
        "a resolution of 32x128 (height x width) keeps more"
    )
    assert "crop" not in load(folder, resolution="32x128").info["contents"]


def test_load_rectangle_beyond_the_limit_is_rejected(load) -> None:
    with pytest.raises(ImageSetError, match="resolution 64x5000 is not between 1 and 4096"):
        load("digits", resolution=(64, 5000))
