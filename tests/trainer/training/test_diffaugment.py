from __future__ import annotations

import pytest
import torch

from trainer.distributed.sharded_rng import ShardedRNG
from trainer.training import diffaugment


def rng() -> ShardedRNG:
    return ShardedRNG(torch.Generator().manual_seed(0))


def test_translation_moves_and_fills_with_zeros() -> None:
    images = torch.ones(64, 1, 16, 16)
    moved = diffaugment.translation(images, rng())
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert (moved.sum(dim=(1, 2, 3)) >= 14 * 14).all()  # by at most an eighth
    assert len(moved.sum(dim=(1, 2, 3)).unique()) > 3  # each by its own draw


def test_translation_keeps_what_stays_inside() -> None:
    images = torch.zeros(32, 1, 16, 16)
    images[:, :, 8, 8] = 5.0
    moved = diffaugment.translation(images, rng())
    assert (moved.sum(dim=(1, 2, 3)) == 5.0).all()


@pytest.mark.parametrize("side", [7, 16, 28, 32])
def test_cutout_blanks_half_the_side_less_what_lies_outside(side: int) -> None:
    cut = diffaugment.cutout(torch.ones(512, 2, side, side), rng())
    half = (side + 1) // 2
    blank = cut[:, 0] == 0
    heights, widths = blank.any(dim=2).sum(dim=1), blank.any(dim=1).sum(dim=1)
    assert torch.equal(blank.sum(dim=(1, 2)), heights * widths)  # a rectangle
    for sizes in (heights, widths):
        assert sizes.max() == half
        assert sizes.min() >= half // 2  # its centre is inside
        assert len(sizes.unique()) > 2
    assert blank.any(dim=0).all()  # everywhere, the corners too
    assert torch.equal(cut[:, 0], cut[:, 1])


def test_color_leaves_shape_and_changes_every_image_differently() -> None:
    images = torch.linspace(-1, 1, 16 * 16 * 3).reshape(1, 3, 16, 16).expand(8, -1, -1, -1)
    changed = diffaugment.color(images, rng())
    assert changed.shape == images.shape
    assert len(changed.mean(dim=(1, 2, 3)).unique()) == 8


def test_augmentations_all_pass_gradients() -> None:
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    diffaugment.augment(images, ("color", "translation", "cutout"), rng()).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_augmentation_without_a_policy_changes_nothing() -> None:
    images = torch.randn(2, 1, 8, 8)
    assert diffaugment.augment(images, (), rng()) is images


def test_translation_has_first_and_second_derivatives() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([[1, -1], [0, 0], [-8, 3]])  # the last one's rows all come from outside
    assert torch.autograd.gradcheck(lambda x: diffaugment.ShiftFn.apply(x, shift), images)
    assert torch.autograd.gradgradcheck(lambda x: diffaugment.ShiftFn.apply(x, shift), images)
    moved = diffaugment.ShiftFn.apply(images, shift)
    assert torch.equal(moved[0, :, :-1, 1:], images[0, :, 1:, :-1])
    assert not moved[2].any()
