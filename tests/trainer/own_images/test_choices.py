from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from imagesets.inspection.headers import SetHeaders
from trainer.config import loading
from trainer.own_images import choices
from trainer.own_images.findings import Findings, Source


def found(size: tuple[int, int] = (640, 480), *, gray: bool = False, classes: dict[str, int] | None = None) -> Findings:
    """Findings of 1,000 images of a size."""
    classes = classes or {}
    mode = "L" if gray else "RGB"
    headers = SetHeaders(
        "folder:photos",
        1000,
        sizes=Counter({size: 1000}),
        modes=Counter({mode: 1000}),
        formats=Counter({"JPEG": 1000}),
        class_names=tuple(classes),
        class_counts=tuple(classes.values()),
    )
    return Findings(Source("folder:photos"), headers, is_gray=gray)


@pytest.mark.parametrize(
    ("size", "device", "resolution"),
    [
        ((640, 480), "cpu", 32),
        ((640, 480), "cuda", 64),
        ((28, 28), "cpu", 28),
        ((48, 48), "cuda", 32),
        ((20, 16), "cuda", 32),
    ],
)
def test_resolution_follows_the_sizes_and_the_device(size: tuple[int, int], device: str, resolution: int) -> None:
    assert choices.choose_resolution(found(size), device).value == resolution


def test_preset_follows_the_device_or_the_named_set() -> None:
    asked = [("folder:photos", "cpu"), ("folder:photos", "cuda"), ("mnist@train", "cuda")]
    chosen = [choices.choose_preset(*each).value for each in asked]
    assert chosen == ["cifar10-small", "cifar10-best", "mnist-best"]


@pytest.mark.parametrize(
    ("classes", "conditional"),
    [({}, False), ({"a": 50, "b": 950}, True), ({"a": 49, "b": 951}, False), ({"a": 1, "b": 999}, False)],
)
def test_conditional_needs_enough_images_of_each_class(classes: dict[str, int], conditional: bool) -> None:
    assert choices.choose_conditional(found(classes=classes)).value is conditional


def test_conditional_reason_names_the_smallest_class() -> None:
    reason = choices.choose_conditional(found(classes={"cats": 990, "owls": 1})).reason
    assert reason == "class owls has 1 of the 50 images that each needs"


@pytest.mark.parametrize(
    ("different", "policies"),
    [(300, ["color", "translation", "cutout"]), (5_000, ["translation", "cutout"]), (50_000, None)],
)
def test_augmentation_is_for_few_images(different: int, policies: list[str] | None) -> None:
    choice = choices.choose_augmentation(different)
    assert (choice.value if choice else None) == policies


@pytest.mark.parametrize(
    ("device", "objective", "target"),
    [("cpu", "non-saturating", 0.6), ("cpu", "wasserstein", None), ("cuda", "non-saturating", None)],
)
def test_augmentation_adapts_in_short_runs(device: str, objective: str, target: float | None) -> None:
    choice = choices.choose_ada_target(device, objective)
    assert (choice.value if choice else None) == target


def test_length_of_a_fine_tuned_run_is_half() -> None:
    lengths = [choices.choose_length(500, "cpu", fine_tuned=choice).value for choice in (False, True)]
    assert lengths == [200, 100]


@pytest.mark.parametrize(("count", "size"), [(500, None), (32, None), (31, 28), (16, 16)])
def test_batch_size_is_at_most_the_number_of_images(count: int, size: int | None) -> None:
    choice = choices.choose_batch_size(count, 32)
    assert (choice.value if choice else None) == size


@pytest.mark.parametrize("preset", ["cifar10-small", "cifar10-best", "celeba-best", "digits-dcgan", "mnist-gan"])
@pytest.mark.parametrize("resolution", [8, 16, 28, 32, 64, 128])
def test_dependent_settings_make_a_valid_config(preset: str, resolution: int) -> None:
    sections = loading.load_preset(preset)
    settings: dict[str, Any] = {"data.resolution": resolution, "run.total_kimg": 50}
    settings |= choices.dependent_settings(sections, resolution, 50)
    config = loading.load_config(preset, settings)
    assert config.data.resolution == resolution
    if config.optim.decay_kimg is not None:
        assert config.optim.decay_kimg[1] == 50


def test_dependent_settings_of_the_preset_itself_are_none() -> None:
    assert choices.dependent_settings(loading.load_preset("cifar10-small"), 32, 200) == {}


def test_jpegs_are_scaled_only_where_that_saves_time() -> None:
    photos = found((4000, 3000))
    assert [photos.scales_jpegs(32), photos.scales_jpegs(512), found((64, 64)).scales_jpegs(32)] == [True, False, False]
