import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service import encode
from service.errors import ApiError
from service.negotiation import GENERATE_FORMS, INTERPOLATE_FORMS, choose
from service.wire import expand


@given(st.lists(st.integers(0, 30), min_size=1))
def test_ranges_come_back_in_their_order(seeds: list[int]) -> None:
    assert expand(encode.ranges(seeds)) == seeds


def test_runs_are_joined() -> None:
    assert encode.ranges(range(64)) == "0-63"
    assert encode.ranges([5]) == "5"
    assert encode.ranges([0, 1, 2, 3, 7, 9, 10, 3]) == "0-3,7,9-10,3"


@pytest.mark.parametrize("shape", [(1, 2, 3, 1), (12, 28, 28, 1), (256, 64, 64, 3), (1000, 1, 1, 1)])
def test_npy_is_numpys_own_format(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    content = encode.npy(images)
    assert content.index(b"\n") % 64 == 63
    np.testing.assert_array_equal(np.load(io.BytesIO(content), allow_pickle=False), images)


def test_npy_of_a_view_is_its_own_rows() -> None:
    images = np.arange(64, dtype=np.uint8).reshape(16, 2, 2, 1)
    np.testing.assert_array_equal(np.load(io.BytesIO(encode.npy(images[3:7]))), images[3:7])


@pytest.mark.parametrize("shape", [(1, 1, 1), (28, 28, 1), (1, 7, 3), (64, 48, 3), (300, 200, 3), (300, 200, 1)])
def test_a_png_holds_the_very_pixels(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    read = Image.open(io.BytesIO(encode.still(image, "png")))
    read.verify()  # its checksums
    read = Image.open(io.BytesIO(encode.still(image, "png")))
    assert read.mode == ("L" if shape[2] == 1 else "RGB")
    np.testing.assert_array_equal(np.asarray(read).reshape(shape), image)


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
def test_accept_chooses(accept: str, form: str) -> None:
    assert choose(accept, GENERATE_FORMS) == form


def test_an_animation_is_the_image_of_an_interpolation() -> None:
    assert choose("image/*", INTERPOLATE_FORMS) == "image/gif"


@pytest.mark.parametrize("accept", ["text/html", "image/gif", "application/json;q=0", ";;,,", "*/*;q=x"])
def test_nothing_acceptable_is_406(accept: str) -> None:
    with pytest.raises(ApiError) as error:
        choose(accept, GENERATE_FORMS)
    assert error.value.status == 406
