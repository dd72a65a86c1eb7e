import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifacts.images.alpha import over_white
from service import encoding
from service.client.decoding import parse_seed_ranges
from service.encoding import GridLayout, enlarge
from service.errors import ApiError
from service.routes.negotiation import GENERATE_MEDIA_TYPES, INTERPOLATE_MEDIA_TYPES, choose_media_type


@given(st.lists(st.integers(0, 30), min_size=1))
def test_format_ranges_round_trip_keeps_order(seeds: list[int]) -> None:
    assert parse_seed_ranges(encoding.format_ranges(seeds)) == seeds


def test_format_ranges_joins_consecutive_seeds() -> None:
    assert encoding.format_ranges(range(64)) == "0-63"
    assert encoding.format_ranges([5]) == "5"
    assert encoding.format_ranges([0, 1, 2, 3, 7, 9, 10, 3]) == "0-3,7,9-10,3"


@pytest.mark.parametrize("shape", [(1, 2, 3, 1), (12, 28, 28, 1), (256, 64, 64, 3), (1000, 1, 1, 1)])
def test_encode_npy_is_numpys_format(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    content = encoding.encode_npy(images)
    assert content.index(b"\n") % 64 == 63
    np.testing.assert_array_equal(np.load(io.BytesIO(content), allow_pickle=False), images)


def test_encode_npy_of_a_view_has_its_rows() -> None:
    images = np.arange(64, dtype=np.uint8).reshape(16, 2, 2, 1)
    np.testing.assert_array_equal(np.load(io.BytesIO(encoding.encode_npy(images[3:7]))), images[3:7])


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (28, 28, 1), (1, 7, 3), (64, 48, 3), *((300, 200, c) for c in (1, 3, 4)), (7, 9, 4)]
)
def test_encode_png_is_lossless(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    read = Image.open(io.BytesIO(encoding.encode_image(image, "png")))
    read.verify()  # its checksums
    read = Image.open(io.BytesIO(encoding.encode_image(image, "png")))
    assert read.mode == {1: "L", 3: "RGB", 4: "RGBA"}[shape[2]]
    np.testing.assert_array_equal(np.asarray(read).reshape(shape), image)


def test_encode_webp_of_rgba_is_lossless_under_transparency() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 4), np.uint8)
    image[:4, :, 3] = 0
    read = Image.open(io.BytesIO(encoding.encode_image(image, "webp")))
    np.testing.assert_array_equal(np.asarray(read), image)
    lossy = Image.open(io.BytesIO(encoding.encode_image(image, "webp", quality=80)))
    assert (lossy.mode, lossy.size) == ("RGBA", (20, 12))


def test_encode_jpeg_of_rgba_is_the_image_over_white() -> None:
    image = np.zeros((8, 16, 4), np.uint8)
    image[:, 8:] = (255, 0, 0, 255)
    read = np.asarray(Image.open(io.BytesIO(encoding.encode_image(image, "jpeg", quality=100)))).astype(int)
    assert np.abs(read[:, :8] - 255).max() <= 2
    assert np.abs(read[:, 8:] - (255, 0, 0)).max() <= 2


def test_encode_animation_webp_of_rgba_keeps_alpha() -> None:
    frames = np.random.default_rng(0).integers(1, 256, (3, 8, 12, 4), np.uint8)
    read = Image.open(io.BytesIO(encoding.encode_animation(frames, "webp", 10, loop=True)))
    for i, frame in enumerate(frames):
        read.seek(i)
        np.testing.assert_array_equal(np.asarray(read), frame)


def test_encode_animation_gif_of_rgba_is_the_frames_over_white() -> None:
    frames = np.zeros((3, 8, 12, 4), np.uint8)
    for i, frame in enumerate(frames):
        frame[:, 4 * i : 4 * i + 4] = (200, 0, 0, 255)
    read = Image.open(io.BytesIO(encoding.encode_animation(frames, "gif", 10, loop=True)))
    for i, frame in enumerate(frames):
        read.seek(i)
        np.testing.assert_array_equal(np.asarray(read.convert("RGB")), over_white(frame))


def durations(content: bytes) -> list[int]:
    """Milliseconds of each frame that there is."""
    animation = Image.open(io.BytesIO(content))
    body = []
    for i in range(getattr(animation, "n_frames", 1)):
        animation.seek(i)
        animation.load()
        body.append(animation.info.get("duration", 0))
    return body


@pytest.mark.parametrize("fps", [1.0, 12.0, 24.0, 29.97, 50.0])
@pytest.mark.parametrize(("form", "tick_ms"), [("gif", 10), ("webp", 1)])
def test_encode_animation_lasts_as_long_as_its_frames(form: str, tick_ms: int, fps: float) -> None:
    images = np.random.default_rng(0).integers(0, 256, (61, 4, 4, 1), np.uint8)
    body = durations(encoding.encode_animation(images, form, fps, loop=True))
    assert len(body) == 61
    assert max(abs(t - 1000 / fps) for t in body) <= tick_ms
    assert abs(sum(body) - 61 * 1000 / fps) <= tick_ms / 2


@pytest.mark.parametrize("form", ["gif", "webp"])
def test_encode_animation_merges_equal_frames(form: str) -> None:
    images = np.zeros((10, 4, 4, 3), np.uint8)
    images[3:7] = 200
    assert durations(encoding.encode_animation(images, form, 10, loop=False)) == [300, 400, 300]
    assert durations(encoding.encode_animation(images[:3], form, 10, loop=True)) == ([300] if form == "gif" else [0])


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/*", "image/png"),
        ("image/png, application/json;q=0.5", "image/png"),
        ("image/png;q=0.1, application/json;q=0.5", "application/json"),
        ("text/html, */*;q=0.8", "application/json"),
        ("*/*, application/json;q=0", "image/png"),
        ("APPLICATION/X-NPY", "application/x-npy"),
    ],
)
def test_choose_media_type_follows_accept(accept: str, form: str) -> None:
    assert choose_media_type(accept, GENERATE_MEDIA_TYPES) == form


def test_choose_media_type_any_image_of_interpolate_is_gif() -> None:
    assert choose_media_type("image/*", INTERPOLATE_MEDIA_TYPES) == "image/gif"


@pytest.mark.parametrize("accept", ["text/html", "image/gif", "application/json;q=0", ";;,,", "*/*;q=x"])
def test_choose_media_type_nothing_acceptable_is_406(accept: str) -> None:
    with pytest.raises(ApiError) as error:
        choose_media_type(accept, GENERATE_MEDIA_TYPES)
    assert error.value.status == 406


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 4, 1), (2, 4, 7, 3)])
def test_encode_json_arrays_equals_the_images(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert json.loads(encoding.encode_json_arrays(images)) == images.tolist()
    assert json.loads(encoding.encode_json_arrays(images[:, ::-1])) == images[:, ::-1].tolist()


small = st.integers(1, 5)


def test_grid_layout_fills_rows_first() -> None:
    images = np.arange(1, 6, dtype=np.uint8).reshape(5, 1, 1, 1)
    assert GridLayout(5, 1, 1, 3).assemble(images)[:, :, 0].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert GridLayout(5, 1, 1, 5).assemble(images)[:, :, 0].tolist() == [[1, 2, 3, 4, 5]]
    assert GridLayout(5, 1, 1, 3, padding=1).assemble(images)[:, :, 0].tolist() == [
        [1, 0, 2, 0, 3],
        [0] * 5,
        [4, 0, 5, 0, 0],
    ]


@given(small, small, small, small, st.integers(0, 3), st.sampled_from([1, 3, 4]))
def test_grid_layout_places_images_on_black(
    n: int, height: int, width: int, columns: int, padding: int, channels: int
) -> None:
    sheet = GridLayout(n, height, width, min(n, columns), padding)
    images = np.random.default_rng(n).integers(1, 256, (n, height, width, channels), np.uint8)
    picture = sheet.assemble(images)
    assert picture.shape == (*sheet.size, channels)
    for i, image in enumerate(images):
        y, x = (i // sheet.columns) * (height + padding), (i % sheet.columns) * (width + padding)
        np.testing.assert_array_equal(picture[y : y + height, x : x + width], image)
    assert np.count_nonzero(picture) == images.size


def test_enlarge_makes_squares() -> None:
    image = np.array([[[[1], [2]]]], np.uint8)
    assert enlarge(image, 2)[0, :, :, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
