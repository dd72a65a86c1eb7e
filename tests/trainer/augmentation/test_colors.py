from __future__ import annotations

import math

import pytest
import torch

from trainer.augmentation import colors
from trainer.distributed.sharded_rng import ShardedRNG


def test_color_leaves_shape_and_changes_every_image_differently(rng: ShardedRNG) -> None:
    images = torch.linspace(-1, 1, 16 * 16 * 3).reshape(1, 3, 16, 16).expand(8, -1, -1, -1)
    changed = colors.color(images, rng)
    assert changed.shape == images.shape
    assert len(changed.mean(dim=(1, 2, 3)).unique()) == 8


def test_brightness_adds_one_normal_number_per_image(rng: ShardedRNG) -> None:
    images = torch.randn(4000, 3, 2, 5)
    added = colors.brightness(images, rng) - images
    torch.testing.assert_close(added, added[:, :1, :1, :1].expand_as(added), atol=1e-6, rtol=0)
    assert added[:, 0, 0, 0].mean().item() == pytest.approx(0, abs=0.01)
    assert added[:, 0, 0, 0].std().item() == pytest.approx(0.2, rel=0.05)


def test_contrast_multiplies_by_one_log_normal_number_per_image(rng: ShardedRNG) -> None:
    images = 1 + torch.rand(4000, 3, 2, 5)
    factors = colors.contrast(images, rng) / images
    torch.testing.assert_close(factors, factors[:, :1, :1, :1].expand_as(factors))
    logarithms = factors[:, 0, 0, 0].log() / math.log(2)
    assert logarithms.mean().item() == pytest.approx(0, abs=0.03)
    assert logarithms.std().item() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("policy", [colors.color, colors.brightness, colors.contrast])
def test_color_policy_of_rgba_changes_rgb_only(policy: colors.Policy) -> None:
    images = torch.rand(6, 4, 5, 4)
    same_draws = [ShardedRNG(torch.Generator().manual_seed(3)) for _ in range(2)]
    changed = policy(images, same_draws[0])
    assert torch.equal(changed[:, 3], images[:, 3])
    assert torch.equal(changed[:, :3], policy(images[:, :3], same_draws[1]))
    assert not torch.isclose(changed[:, :3], images[:, :3]).all(dim=(1, 2, 3)).any()
