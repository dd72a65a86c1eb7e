from __future__ import annotations

import pytest
import torch

from trainer.config.schema import Ema
from trainer.training.state import ema_decay, update_ema


def test_ema_decay_leaves_half_after_a_half_life() -> None:
    keep = ema_decay(Ema(halflife_kimg=1, warmup=0), batch_size=100, images_seen=10**9)
    assert keep**10 == pytest.approx(0.5)


def test_ema_decay_early_follows_the_images_seen() -> None:
    settings = Ema(halflife_kimg=10, warmup=0.05)
    assert ema_decay(settings, 64, images_seen=2000) == pytest.approx(0.5 ** (64 / 100))
    assert ema_decay(settings, 64, images_seen=10**9) == pytest.approx(0.5 ** (64 / 10_000))


def test_update_ema_with_half_life_0_copies() -> None:
    assert ema_decay(Ema(halflife_kimg=0), 64, 100) == 0.0


def test_update_ema_averages_statistics_and_copies_counters() -> None:
    ours, theirs = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
    theirs(torch.randn(8, 2, 3, 3) * 3 + 5)
    expected = 0.75 * ours.running_mean + 0.25 * theirs.running_mean
    update_ema(ours, theirs, decay=0.75)
    torch.testing.assert_close(ours.running_mean, expected)
    assert ours.num_batches_tracked == theirs.num_batches_tracked == 1
