"""What is said about images of every kind, and what a user's own settings change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imagesets import ImageSetError
from tests.support.image_files import write_noise
from trainer.errors import TrainerError
from trainer.own_images.inspection import inspect
from trainer.own_images.report import Inspection, notes

Look = Callable[..., Inspection]
Values = Callable[..., dict[str, Any]]


def test_config_of_a_folder_is_what_the_choices_say(look: Look) -> None:
    write_noise(Path("photos"), 60, (40, 30))
    config = look("photos/").config
    assert config.name == "photos"
    assert config.data.source == "folder:photos"
    assert (config.data.resolution, config.data.channels, config.data.flip) == (32, 3, True)
    assert (config.data.augment, config.data.ada_target) == (("color", "translation", "cutout"), 0.6)
    assert (config.run.total_kimg, config.optim.decay_kimg, config.model.conditional) == (200, (100, 200), False)


def test_every_choice_has_a_reason(look: Look) -> None:
    write_noise(Path("photos"), 60)
    assert all(choice.reason for choice in look("photos").choices)


@pytest.mark.parametrize("setting", ["data.augment=[]", "data.augment=[cutout]", "data.augment_p=1"])
def test_given_augmentation_is_not_made_adaptive(look: Look, setting: str) -> None:
    write_noise(Path("photos"), 60)
    assert look("photos", setting).config.data.ada_target is None


def test_given_settings_replace_choices_and_are_marked(look: Look) -> None:
    write_noise(Path("photos"), 60, (80, 80))
    found = look("photos", "data.flip=false", "run.total_kimg=20")
    assert (found.config.data.flip, found.config.run.total_kimg, found.config.optim.decay_kimg) == (False, 20, (10, 20))
    assert {choice.field for choice in found.choices if choice.is_given} == {"data.flip", "run.total_kimg"}


def test_given_resolution_widens_the_networks() -> None:
    write_noise(Path("photos"), 40, (80, 80))
    config = inspect("photos", ["data.resolution=64"], estimate=False).config
    assert (config.model.g_widths, config.model.d_widths) == ((128, 64, 32, 16), (48, 96, 192, 192))


def test_given_preset_keeps_its_settings(values: Values) -> None:
    write_noise(Path("photos"), 80, mode="L")
    chosen = values("photos", preset="digits-dcgan")
    assert chosen.keys() == {"data.source", "preset", "data.resolution", "data.channels", "model.conditional"}


def test_named_set_uses_its_preset(values: Values) -> None:
    assert values("digits")["preset"] == "digits-dcgan"


def test_source_given_twice_is_an_error(look: Look) -> None:
    write_noise(Path("photos"), 20)
    with pytest.raises(TrainerError, match="given twice"):
        look("photos", "data.source=digits")


def test_given_value_that_is_wrong_is_an_error(look: Look) -> None:
    write_noise(Path("photos"), 20)
    with pytest.raises(TrainerError, match=r"data\.resolution: .*whole number of pixels"):
        look("photos", "data.resolution=wide")


def test_folder_without_images_is_an_error(look: Look) -> None:
    Path("photos").mkdir()
    with pytest.raises(ImageSetError, match=r"no images in .*expected files such as"):
        look("photos")


def test_one_image_is_an_error(look: Look) -> None:
    write_noise(Path("photos"), 1)
    with pytest.raises(TrainerError, match=r"photos has 1 image: a GAN needs 16 different ones or more.*add images"):
        look("photos")


def test_twenty_images_get_advice(look: Look) -> None:
    write_noise(Path("photos"), 20)
    found = look("photos")
    assert notes(found) == [
        "20 different images are so few that the GAN will copy them; add images, or start from a run on similar ones "
        "with --init-from RUN"
    ]


def _copy(folder: Path, times: int) -> None:
    for path in sorted(folder.iterdir()):
        for number in range(times):
            shutil.copy(path, path.with_name(f"{path.stem}-{number}{path.suffix}"))


def test_duplicates_of_most_images_are_reported(look: Look) -> None:
    write_noise(Path("photos"), 20)
    _copy(Path("photos"), 9)
    found = look("photos", "data.resolution=32")
    assert (len(found.images), found.different) == (len(found.images), 20)
    assert any(
        "images are copies of others, and are trained on each time; remove them" in text for text in notes(found)
    )
    assert "0000-0.png and 0000-" in str(found)


def test_duplicates_of_too_few_images_are_an_error(look: Look) -> None:
    write_noise(Path("photos"), 2)
    _copy(Path("photos"), 99)
    with pytest.raises(TrainerError, match=r"photos has 2 different of \d+ images: a GAN needs 16"):
        look("photos")


def test_panoramas_are_reported(look: Look) -> None:
    write_noise(Path("photos"), 20, (120, 40))
    assert any("2.5 times as long as wide, or longer: their center square" in text for text in notes(look("photos")))


def test_transparency_in_some_images_is_reported(look: Look) -> None:
    write_noise(Path("photos/a"), 20, mode="RGBA")
    write_noise(Path("photos/b"), 20, seed=1)
    assert "20 of 40 images have transparency, which is drawn over white; --set data.channels=4 keeps it" in notes(
        look("photos")
    )


def test_sixteen_bit_images_are_reported(look: Look) -> None:
    write_noise(Path("photos"), 20, mode="I;16")
    found = look("photos")
    assert found.config.data.channels == 1
    assert "all images have 16 bits per pixel, which become 8 bits" in notes(found)


def test_animations_are_reported(look: Look) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 2, 32, 32, 3), dtype=np.uint8)
    Path("photos").mkdir()
    for number, (first, second) in enumerate(frames):
        Image.fromarray(first).save(f"photos/{number}.webp", save_all=True, append_images=[Image.fromarray(second)])
    assert any("20 files have several frames, of which the first" in text for text in notes(look("photos")))


def test_class_of_one_image_makes_the_model_unconditional(look: Look) -> None:
    write_noise(Path("photos/cats"), 60)
    write_noise(Path("photos/owls"), 1, seed=1)
    found = look("photos")
    assert found.config.model.conditional is False
    assert "class owls has 1 of the 50 images that each needs" in str(found)


def test_classes_of_enough_images_make_the_model_conditional(look: Look) -> None:
    for seed, name in enumerate(("cats", "owls")):
        write_noise(Path("photos") / name, 70, (8, 8), seed=seed)
    assert look("photos").config.model.conditional is True


def test_estimate_leaves_the_random_numbers_alone(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.own_images.estimate.MOST_STEPS", 4)
    write_noise(Path("photos"), 40)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    found = look("photos", estimate=True)
    assert torch.equal(torch.rand(3), expected)
    assert found.estimate is not None
    assert found.estimate.images_per_second > 0
    assert "estimate          about" in str(found)
