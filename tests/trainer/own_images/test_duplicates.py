from __future__ import annotations

import numpy as np
import pytest

from evaluation.extractors.extractor import Extracted
from trainer.own_images import duplicates
from trainer.own_images.duplicates import find_duplicates


@pytest.fixture
def pictures() -> np.ndarray:
    """60 smooth pictures of 32 px: noise of 8 px, enlarged."""
    coarse = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def test_duplicates_of_different_pictures_are_none(pictures: np.ndarray) -> None:
    found = find_duplicates(pictures)
    assert (found.exact, found.near, found.blank, found.examples) == (0, 0, 0, ())


def test_exact_duplicates_are_counted_without_the_first(pictures: np.ndarray) -> None:
    found = find_duplicates(np.concatenate([pictures, pictures[5:8]]))
    assert (found.exact, found.exact_example, found.near) == (3, (5, 60), 0)


def test_near_duplicates_of_a_brighter_copy_are_both(pictures: np.ndarray) -> None:
    brighter = np.clip(pictures[9:10] * 1.1, 0, 255).astype(np.uint8)
    found = find_duplicates(np.concatenate([pictures, brighter]))
    assert (found.exact, found.near) == (0, 2)
    assert sorted(found.near_example or ()) == [9, 60]


@pytest.mark.parametrize("side", [8, 28, 32])
def test_near_duplicates_are_found_at_any_side(side: int) -> None:
    images = np.random.default_rng(0).integers(0, 230, (20, side, side, 1), dtype=np.uint8)
    assert find_duplicates(np.concatenate([images, images[:1] + 9])).near == 2


def test_pooling_averages_every_pixel_once() -> None:
    weights = duplicates._pooling(28)
    assert np.allclose(weights.sum(axis=1), 1.0)
    assert np.allclose(weights.sum(axis=0), duplicates.GRAY_SIDE / 28)


def test_blank_images_are_counted(pictures: np.ndarray) -> None:
    pictures[3], pictures[4] = 0, 255
    assert find_duplicates(pictures).blank == 2


def test_equal_images_only_have_no_near_duplicates() -> None:
    found = find_duplicates(np.zeros((9, 8, 8, 1), np.uint8))
    assert (found.exact, found.near, found.compared) == (8, 0, 1)


class FarApart:
    """An extractor in whose features all images are equally far apart."""

    name = "far-apart"

    def __call__(self, images: np.ndarray) -> Extracted:
        rows = [np.random.default_rng(int(image.sum())).normal(size=64) for image in images]
        return Extracted(np.array(rows, np.float32), None)


def test_near_duplicate_that_an_extractor_denies_is_none(pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    brighter = np.clip(pictures[9:10] * 1.1, 0, 255).astype(np.uint8)
    images = np.concatenate([pictures, brighter])
    monkeypatch.setattr(duplicates, "_extractor", lambda channels: FarApart())
    found = find_duplicates(images)
    assert found.near == 0
    assert found.features.startswith("far-apart")


def test_extractor_is_not_loaded_without_pairs_to_confirm(
    pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_extractor", lambda channels: pytest.fail("the extractor is loaded"))
    assert find_duplicates(pictures).features == "16 px gray"


def test_comparison_of_a_large_set_is_of_a_sample(pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_COMPARED", 20)
    assert find_duplicates(pictures).compared == 20
