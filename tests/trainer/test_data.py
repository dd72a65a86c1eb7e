from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer import data as module
from trainer.data import Batches

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
