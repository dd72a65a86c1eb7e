"""One value for the resolution of square and rectangular images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.images.resolution import height_and_width, parse_resolution, resolution_of

SIDES = st.integers(1, 4096)


@given(SIDES, SIDES)
def test_resolution_gives_its_height_and_width_back(height: int, width: int) -> None:
    assert height_and_width(resolution_of(height, width)) == (height, width)


@given(SIDES, SIDES)
def test_parse_resolution_is_one_value_for_each_way_to_write_it(height: int, width: int) -> None:
    expected = resolution_of(height, width)
    for written in ((height, width), [height, width], f"{height}x{width}", f" {height} X {width}", expected):
        assert parse_resolution(written) == expected


def test_resolution_of_a_square_is_its_side() -> None:
    assert [parse_resolution(value) for value in (64, "64", "64x64", (64, 64), np.int64(64))] == [64] * 5


@pytest.mark.parametrize("value", [True, 1.5, None, "wide", "64x", "64x96x3", "-4", (64,), (64, 96.5), [64, True], {}])
def test_parse_resolution_rejects_what_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match="neither a whole number of pixels, such as 32, nor HEIGHTxWIDTH"):
        parse_resolution(value)
