from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from imagesets import ImageSet
from imagesets.cache import content_fingerprint
from trainer import data as module
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.errors import TrainerError

CPU = torch.device("cpu")


def make(n: int, batch_size: int, seed: int = 0) -> Batches:
    images = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return Batches(images, batch_size, seed=seed, device=CPU)


def test_batches_of_an_epoch_have_every_image_once() -> None:
    batches = make(10, 4)
    stream = np.concatenate([batches.indices(position) for position in range(0, 20, 4)])
    assert sorted(stream[:10]) == sorted(stream[10:20]) == list(range(10))
    assert stream[:10].tolist() != stream[10:20].tolist()


def test_batches_depend_on_the_position_only() -> None:
    a, b = make(10, 4), make(10, 4)
    for position in range(0, 40, 4):
        a.indices(position)
    np.testing.assert_array_equal(a.indices(8), b.indices(8))
    assert make(10, 4, seed=1).indices(0).tolist() != b.indices(0).tolist()


def test_batches_larger_than_the_set_are_full() -> None:
    assert len(make(3, 8).indices(1)) == 8


def test_batches_scale_pixels_to_minus_one_to_one() -> None:
    images = np.array([0, 255], np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    batch = Batches(images, 2, seed=0, device=CPU).at(0)[0]
    assert batch.shape == (2, 1, 4, 4)
    assert batch.dtype == torch.float32
    assert sorted({batch.min().item(), batch.max().item()}) == [-1.0, 1.0]


def test_batches_of_a_set_too_large_for_the_device_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    held, _ = make(10, 5).at(5)
    monkeypatch.setattr(module, "DEVICE_BYTES", 0)
    streamed, _ = make(10, 5).at(5)
    assert torch.equal(held, streamed)


def test_batches_flip_half_by_position_only() -> None:
    images = np.arange(8, dtype=np.uint8).reshape(1, 2, 2, 2).repeat(500, axis=0)
    batches = Batches(images, 100, seed=3, device=CPU, flip=True)
    plain = Batches(images, 100, seed=3, device=CPU)
    for position in (0, 37, 100):
        mirrored = batches.mirrored(position)
        shown, real = batches.at(position)[0], plain.at(position)[0]
        assert torch.equal(shown, torch.where(torch.from_numpy(mirrored)[:, None, None, None], real.flip(3), real))
    stream = np.concatenate([batches.mirrored(position) for position in range(0, 10_000, 100)])
    assert 0.48 < stream.mean() < 0.52
    np.testing.assert_array_equal(batches.mirrored(37), stream[37:137])  # a stream, wherever it is entered


def image_set(labels: list[int] | None, n: int) -> ImageSet:
    images = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    info = {"n": n, "fingerprint": "whole"}
    return ImageSet("set@train", images, None if labels is None else np.array(labels), ("a", "b", "c"), info)


def test_chosen_images_are_balanced_over_classes() -> None:
    found = module.choose_images(image_set([0] * 30 + [1] * 20 + [2] * 2, 52), 12)
    assert found.labels is not None
    assert np.bincount(found.labels).tolist() == [5, 5, 2]  # a class has no more than it has
    rows = found.images[:, 0, 0, 0].astype(int)
    assert (np.diff(rows) > 0).all()
    assert found.labels.tolist() == [0 if row < 30 else 1 if row < 50 else 2 for row in rows]


@pytest.mark.parametrize("labels", [None, [0, 1] * 20], ids=["unlabeled", "labeled"])
def test_smaller_choice_is_part_of_a_larger_one(labels: list[int] | None) -> None:
    small, large = (module.choose_images(image_set(labels, 40), n) for n in (9, 25))
    assert len(small) == 9
    assert set(small.images[:, 0, 0, 0]) < set(large.images[:, 0, 0, 0])
    assert small.images[:, 0, 0, 0].tolist() != list(range(9))


def test_chosen_images_are_recorded_by_their_own_fingerprint() -> None:
    found = module.choose_images(image_set(None, 40), 9)
    assert (found.info["n"], found.info["chosen_of"]) == (9, 40)
    assert found.fingerprint == content_fingerprint(found.images, None)


def test_load_images_with_a_maximum_returns_the_choice() -> None:
    config = loading.resolve("digits-dcgan", ["data.max_images=100"])
    images, config = module.load_images(config, Path("data"))
    assert images.images.shape == (100, 32, 32, 1)
    assert images.labels is not None
    assert np.bincount(images.labels).tolist() == [10] * 10


def test_load_images_with_a_maximum_below_a_batch_is_one_line() -> None:
    with pytest.raises(TrainerError, match=r"data\.max_images=20 has 20 images, fewer than optim\.batch_size=32"):
        module.load_images(loading.resolve("digits-dcgan", ["data.max_images=20"]), Path("data"))


@pytest.mark.parametrize("conditional", [True, False])
def test_batches_of_a_run_follow_its_config(conditional: bool, tiny: Callable[..., Config]) -> None:
    data = {"flip": True, "class_names": ["a", "b", "c"]}
    config = tiny(data=data, model={"conditional": conditional}, run={"seed": 5}, optim={"batch_size": 4})
    images = image_set([0, 1, 2] * 4, 12)
    found, labels = Batches.of_run(config, images, CPU, slice(1, 3)).at(8)
    expected, classes = Batches(images.images, 4, seed=5, device=CPU, labels=images.labels, flip=True).at(8)
    assert torch.equal(found, expected[1:3])
    assert labels is None if not conditional else torch.equal(labels, classes[1:3])
