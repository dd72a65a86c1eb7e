"""Which resolutions a config accepts, and which a convolutional generator can make."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.images.resolution import resolution_of
from trainer.config import loading
from trainer.config.image_shape import FIRST_SIDES, first_map, nearest, num_upsamples
from trainer.errors import TrainerError

SIDES = st.integers(4, 256)


def size_of(*overrides: str) -> Any:
    return loading.resolve("mnist-gan", [*overrides]).data.resolution


@pytest.mark.parametrize(
    ("first", "sides"), [(4, [8, 16, 32, 64, 128, 256]), (6, [12, 24, 48, 96, 192]), (7, [14, 28, 56, 112, 224])]
)
def test_first_map_of_the_usual_squares_is_4_6_or_7(first: int, sides: list[int]) -> None:
    assert [first_map(side) for side in sides] == [(first, first)] * len(sides)


@given(SIDES, SIDES)
def test_num_upsamples_accepts_what_doubling_reaches_and_nothing_else(height: int, width: int) -> None:
    reached = any(
        height % 2**count == width % 2**count == 0 and min(height, width) >> count in FIRST_SIDES
        for count in range(1, 8)
    )
    try:
        count = num_upsamples(resolution_of(height, width))
    except ValueError as error:
        assert not reached
        for name in re.search("near it are (.*) and (.*)", str(error)).groups():  # type: ignore[union-attr]
            num_upsamples(name)
    else:
        assert reached
        h, w = first_map(resolution_of(height, width))
        assert (h << count, w << count) == (height, width)


@pytest.mark.parametrize(
    ("resolution", "near"), [(30, [28, 32]), (100, [96, 112]), (255, [224, 256]), ("50x70", ["48x64", "48x72"])]
)
def test_nearest_of_a_resolution_are_the_two_closest(resolution: int | str, near: list[int | str]) -> None:
    assert nearest(resolution) == near


@pytest.mark.parametrize("text", ["64x96", "[64, 96]", "64X96", "'64 x 96'"])
def test_resolution_of_a_rectangle_is_one_text(text: str) -> None:
    config = loading.resolve("mnist-gan", [f"data.resolution={text}"])
    assert (config.data.resolution, config.data.height, config.data.width) == ("64x96", 64, 96)
    assert json.loads(loading.to_json(config))["data"]["resolution"] == "64x96"
    assert loading.parse(json.loads(loading.to_json(config))) == config


@pytest.mark.parametrize("text", ["64", "64x64", "[64, 64]", "64.0"])
def test_resolution_of_a_square_is_its_side(text: str) -> None:
    assert size_of(f"data.resolution={text}") == 64


@pytest.mark.parametrize("text", ["3", "257", "64x300", "wide", "64x", "[64]", "true", "1.5", "null"])
def test_resolution_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(TrainerError, match=r"^data\.resolution: [^\n]*$"):
        size_of(f"data.resolution={text}")


@pytest.mark.parametrize("resolution", ["64x96", "96x64", "48x64", "72x128", "192x256", "8x256"])
def test_rectangles_of_both_orientations_are_accepted(resolution: str) -> None:
    steps = num_upsamples(resolution)
    settings = [f"data.resolution={resolution}", f"model.g_widths={[8] * steps}", "model.d_widths=[8,8]"]
    assert loading.resolve("mnist-dcgan", settings).data.resolution == resolution


def test_rgba_is_requested_by_channels_4() -> None:
    assert loading.resolve("mnist-gan", ["data.channels=4"]).data.channels == 4
