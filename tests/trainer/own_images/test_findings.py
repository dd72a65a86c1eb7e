from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from imagesets import ImageSetError
from tests.support.image_files import write_noise
from trainer.errors import TrainerError
from trainer.own_images.findings import choose_split, find

DATA = Path("data")


def test_split_of_a_folder_without_splits_holds_a_tenth_out() -> None:
    write_noise(Path("photos"), 400, (8, 8))
    found = choose_split("folder:photos", DATA)
    assert (found.train, found.reference) == ("folder:photos@train", "folder:photos@test")
    assert 20 <= found.held_out < 80


def test_split_of_few_images_holds_none_out() -> None:
    write_noise(Path("photos"), 60, (8, 8))
    found = choose_split("folder:photos", DATA)
    assert (found.train, found.reference, found.held_out) == ("folder:photos", None, 0)


def test_split_of_folders_train_and_val_scores_against_val() -> None:
    write_noise(Path("photos/train"), 30, (8, 8))
    write_noise(Path("photos/val"), 25, (8, 8), seed=1)
    found = choose_split("folder:photos", DATA)
    assert (found.train, found.reference, found.can_show_copies) == ("folder:photos@train", "folder:photos@val", False)


def test_split_that_is_given_is_kept() -> None:
    write_noise(Path("photos"), 60, (8, 8))
    found = choose_split("folder:photos@all", DATA)
    assert (found.train, found.is_given) == ("folder:photos@all", True)


def test_split_of_a_named_set_is_its_own() -> None:
    found = choose_split("digits", DATA)
    assert (found.train, found.reference, found.held_out, found.can_show_copies) == ("digits", "digits@test", 297, True)


def test_find_gray_images_in_color_files() -> None:
    folder = write_noise(Path("photos"), 5, mode="L")
    for path in folder.iterdir():
        Image.open(path).convert("RGB").save(path)
    found = find("photos", DATA)
    assert (found.is_gray, found.sampled) == (True, 5)


def test_find_colors_in_color_files() -> None:
    write_noise(Path("photos"), 5)
    assert find("photos/", DATA).is_gray is False


def test_find_a_preset_is_an_error_that_names_the_option() -> None:
    with pytest.raises(TrainerError, match=r"cifar10-small is a preset.*--preset cifar10-small"):
        find("cifar10-small", DATA)


def test_find_a_missing_folder_is_an_error() -> None:
    with pytest.raises(ImageSetError, match="there is no file, folder or dataset 'photoz'"):
        find("photoz", DATA)


def test_panoramas_are_counted() -> None:
    write_noise(Path("photos"), 3, (50, 20))
    write_noise(Path("photos/more"), 4, (49, 20))
    assert find("photos", DATA).panoramas == 3


def test_short_side_is_reached_by_nine_of_ten() -> None:
    write_noise(Path("photos"), 1, (8, 8))
    write_noise(Path("photos/more"), 19, (64, 48))
    assert find("photos", DATA).short_side == 48
