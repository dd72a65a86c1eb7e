import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.encoding import GridLayout, enlarge

small = st.integers(1, 5)


def test_a_sheet_reads_in_rows() -> None:
    images = np.arange(1, 6, dtype=np.uint8).reshape(5, 1, 1, 1)
    assert GridLayout(5, 1, 1, 3).assemble(images)[:, :, 0].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert GridLayout(5, 1, 1, 5).assemble(images)[:, :, 0].tolist() == [[1, 2, 3, 4, 5]]
    assert GridLayout(5, 1, 1, 3, padding=1).assemble(images)[:, :, 0].tolist() == [
        [1, 0, 2, 0, 3],
        [0] * 5,
        [4, 0, 5, 0, 0],
    ]


@given(small, small, small, small, st.integers(0, 3), st.sampled_from([1, 3]))
def test_each_image_is_in_its_place_and_all_else_is_black(
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


def test_enlarging_makes_squares() -> None:
    image = np.array([[[[1], [2]]]], np.uint8)
    assert enlarge(image, 2)[0, :, :, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
