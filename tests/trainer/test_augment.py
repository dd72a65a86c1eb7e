from __future__ import annotations

import torch

from trainer import augment
from trainer.draws import Draws


def rng() -> Draws:
    return Draws(torch.Generator().manual_seed(0))


def test_translation_moves_and_fills_with_zeros() -> None:
    images = torch.ones(64, 1, 16, 16)
    moved = augment.translation(images, rng())
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert (moved.sum(dim=(1, 2, 3)) >= 14 * 14).all()  # by at most an eighth
    assert len(moved.sum(dim=(1, 2, 3)).unique()) > 3  # each by its own draw


def test_translation_keeps_what_stays_inside() -> None:
    images = torch.zeros(32, 1, 16, 16)
    images[:, :, 8, 8] = 5.0
    moved = augment.translation(images, rng())
    assert (moved.sum(dim=(1, 2, 3)) == 5.0).all()


def test_cutout_blanks_a_quarter_at_most() -> None:
    cut = augment.cutout(torch.ones(64, 2, 16, 16), rng())
    blank = (cut[:, 0] == 0).sum(dim=(1, 2))
    assert (blank > 0).all()
    assert (blank <= 9 * 9).all()
    assert torch.equal(cut[:, 0], cut[:, 1])


def test_color_leaves_shape_and_changes_every_image_differently() -> None:
    images = torch.linspace(-1, 1, 16 * 16 * 3).reshape(1, 3, 16, 16).expand(8, -1, -1, -1)
    changed = augment.color(images, rng())
    assert changed.shape == images.shape
    assert len(changed.mean(dim=(1, 2, 3)).unique()) == 8


def test_gradients_pass_through_all_of_them() -> None:
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    augment.augment(images, ("color", "translation", "cutout"), rng()).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_no_policy_changes_nothing() -> None:
    images = torch.randn(2, 1, 8, 8)
    assert augment.augment(images, (), rng()) is images
