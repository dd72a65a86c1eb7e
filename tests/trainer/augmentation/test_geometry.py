from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.augmentation import geometry
from trainer.distributed.sharded_rng import ShardedRNG


def distinct(n: int, height: int = 6, width: int = 6) -> Tensor:
    """n copies of one image, all of whose pixels differ."""
    return torch.arange(2.0 * height * width).reshape(1, 2, height, width).repeat(n, 1, 1, 1)


def which(changed: Tensor, candidates: list[Tensor]) -> list[int]:
    """How many of the images equal each candidate; every image is one of them."""
    found = torch.stack([(changed == each).flatten(1).all(dim=1) for each in candidates])
    assert found.any(dim=0).all()
    return found.sum(dim=1).tolist()


@pytest.mark.parametrize(("height", "width"), [(6, 6), (4, 7)])
def test_flip_mirrors_half_of_the_images(height: int, width: int, rng: ShardedRNG) -> None:
    images = distinct(400, height, width)
    kept, mirrored = which(geometry.flip(images, rng), [images[0], images[0].flip(2)])
    assert abs(mirrored - 200) < 40
    assert kept == 400 - mirrored


def test_rotate90_draws_all_four_rotations_equally(rng: ShardedRNG) -> None:
    images = distinct(800)
    counts = which(geometry.rotate90(images, rng), [images[0].rot90(quarter, (1, 2)) for quarter in range(4)])
    assert all(abs(count - 200) < 50 for count in counts)


def test_rotate90_of_rectangles_turns_by_180_only(rng: ShardedRNG) -> None:
    images = distinct(400, 4, 7)
    counts = which(geometry.rotate90(images, rng), [images[0], images[0].rot90(2, (1, 2))])
    assert all(abs(count - 200) < 40 for count in counts)


@pytest.mark.parametrize("side", [5, 8])
def test_resample_by_one_changes_nothing(side: int) -> None:
    images = torch.randn(3, 2, side, side + 1)
    assert torch.equal(geometry.resample(images, torch.ones(3)), images)


def test_resample_equals_grid_sample() -> None:
    images, factors = torch.randn(4, 3, 9, 6, dtype=torch.float64), torch.tensor([0.6, 0.9, 1.3, 2.0]).double()
    theta = torch.zeros(4, 2, 3, dtype=torch.float64)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / factors
    grid = torch.nn.functional.affine_grid(theta, [4, 3, 9, 6], align_corners=False)
    expected = torch.nn.functional.grid_sample(images, grid, align_corners=False)
    torch.testing.assert_close(geometry.resample(images, factors), expected)


def test_resample_by_a_half_leaves_a_border_of_zeros() -> None:
    scaled = geometry.resample(torch.ones(1, 1, 8, 8), torch.tensor([0.5]))
    expected = torch.zeros(8, 8)
    expected[2:6, 2:6] = 1
    torch.testing.assert_close(scaled[0, 0], expected)


def test_scale_is_log_normal_per_image(rng: ShardedRNG) -> None:
    """The second moment of a spot around the center grows with the square of the factor."""
    side = 65
    offset = torch.arange(side) - side // 2
    spot = torch.exp(-(offset[:, None] ** 2 + offset**2) / 50.0).expand(2000, 1, side, side)
    scaled = geometry.scale(spot, rng)[:, 0]
    factors = ((scaled * offset**2).sum(dim=(1, 2)) / scaled.sum(dim=(1, 2)) / 25).sqrt()
    logarithms = factors.log2()
    assert logarithms.mean().item() == pytest.approx(0, abs=0.02)
    assert logarithms.std().item() == pytest.approx(0.2, rel=0.05)


def test_scale_under_bfloat16_autocast_keeps_the_pixels(rng: ShardedRNG) -> None:
    images = torch.rand(2, 1, 8, 8) + 1 / 512
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(geometry.resample(images, torch.ones(2)), images)


def test_translation_moves_and_fills_with_zeros(rng: ShardedRNG) -> None:
    images = torch.ones(64, 1, 16, 16)
    moved = geometry.translation(images, rng)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert (moved.sum(dim=(1, 2, 3)) >= 14 * 14).all()  # by at most an eighth
    assert len(moved.sum(dim=(1, 2, 3)).unique()) > 3  # each by its own draw


def test_translation_keeps_what_stays_inside(rng: ShardedRNG) -> None:
    images = torch.zeros(32, 1, 16, 16)
    images[:, :, 8, 8] = 5.0
    moved = geometry.translation(images, rng)
    assert (moved.sum(dim=(1, 2, 3)) == 5.0).all()


def test_translation_of_rectangles_reaches_an_eighth_of_each_side(rng: ShardedRNG) -> None:
    images = torch.zeros(512, 1, 16, 32)
    images[:, :, 8, 16] = 1.0
    places = geometry.translation(images, rng).nonzero()
    assert places[:, 2].unique().tolist() == list(range(6, 11))
    assert places[:, 3].unique().tolist() == list(range(12, 21))


@pytest.mark.parametrize(("height", "width"), [(7, 7), (16, 16), (28, 28), (32, 32), (12, 9)])
def test_cutout_blanks_half_the_side_less_what_lies_outside(height: int, width: int, rng: ShardedRNG) -> None:
    cut = geometry.cutout(torch.ones(512, 2, height, width), rng)
    blank = cut[:, 0] == 0
    heights, widths = blank.any(dim=2).sum(dim=1), blank.any(dim=1).sum(dim=1)
    assert torch.equal(blank.sum(dim=(1, 2)), heights * widths)  # a rectangle
    for sizes, side in ((heights, height), (widths, width)):
        half = (side + 1) // 2
        assert sizes.max() == half
        assert sizes.min() >= half // 2  # its centre is inside
        assert len(sizes.unique()) > 2
    assert blank.any(dim=0).all()  # everywhere, the corners too
    assert torch.equal(cut[:, 0], cut[:, 1])


def test_translation_has_first_and_second_derivatives() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 2, 8, 6, dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([[1, -1], [0, 0], [-8, 3]])  # the last one's rows all come from outside
    assert torch.autograd.gradcheck(lambda x: geometry.ShiftFn.apply(x, shift), images)
    assert torch.autograd.gradgradcheck(lambda x: geometry.ShiftFn.apply(x, shift), images)
    moved = geometry.ShiftFn.apply(images, shift)
    assert torch.equal(moved[0, :, :-1, 1:], images[0, :, 1:, :-1])
    assert not moved[2].any()
