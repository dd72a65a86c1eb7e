from __future__ import annotations

import hashlib
from typing import get_args

import pytest
import torch

from trainer.augmentation.policies import POLICIES, augment
from trainer.config import schema
from trainer.distributed.sharded_rng import ShardedRNG

DIFFAUGMENT = ("cutout", "color", "translation")


def test_policies_are_those_of_the_schema() -> None:
    assert tuple(POLICIES) == get_args(schema.Augmentation)


def test_augment_without_a_policy_changes_nothing(rng: ShardedRNG) -> None:
    images = torch.randn(2, 1, 8, 8)
    assert augment(images, (), rng) is images


@pytest.mark.parametrize("p", [1.0, torch.tensor(1.0)], ids=["constant", "tensor"])
def test_augment_at_p_1_applies_every_policy_in_order(p: float | torch.Tensor) -> None:
    images = torch.rand(8, 3, 16, 16)
    ours, theirs = (ShardedRNG(torch.Generator().manual_seed(5)) for _ in range(2))
    found, expected = augment(images, DIFFAUGMENT, ours, p), images
    for name in ("color", "translation", "cutout"):
        if isinstance(p, torch.Tensor):
            theirs.rand(8, 1, 1, 1)
        expected = POLICIES[name](expected, theirs)
    assert torch.equal(found, expected)
    assert torch.equal(ours.get_state(), theirs.get_state())


def test_augment_with_diffaugment_equals_its_first_release() -> None:
    """The digest is that of the release before probabilities were added: runs resume bit for bit."""
    images = torch.arange(4 * 3 * 16 * 16, dtype=torch.float32).reshape(4, 3, 16, 16).remainder(255) / 127.5 - 1
    found = augment(images, DIFFAUGMENT, ShardedRNG(torch.Generator().manual_seed(0)))
    rounded = (found.contiguous() * 1000).round().to(torch.int32).numpy()
    assert hashlib.sha256(rounded.tobytes()).hexdigest() == (
        "2b99642ee39a4946bd9b6c5a03027a0d061020df32e2d0452cf088214e83eb42"
    )


@pytest.mark.parametrize("name", POLICIES)
def test_augment_applies_a_policy_with_probability_p_per_image(name: str, rng: ShardedRNG) -> None:
    images = torch.randn(1, 3, 8, 8).repeat(2000, 1, 1, 1)
    found = augment(images, [name], rng, torch.tensor(0.3))
    changed = (found != images).flatten(1).any(dim=1).float().mean().item()
    draws_identity = {"flip": 1 / 2, "rotate90": 1 / 4, "translation": 1 / 9}.get(name, 0)
    assert changed == pytest.approx(0.3 * (1 - draws_identity), abs=0.035)


@pytest.mark.parametrize("p", [0.0, torch.tensor(0.0)], ids=["constant", "tensor"])
def test_augment_at_p_0_changes_nothing(p: float | torch.Tensor, rng: ShardedRNG) -> None:
    images = torch.randn(16, 3, 8, 8)
    assert torch.equal(augment(images, POLICIES, rng, p), images)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 10)])
def test_augment_keeps_any_shape(height: int, width: int, channels: int, rng: ShardedRNG) -> None:
    images = torch.randn(5, channels, height, width)
    found = augment(images, POLICIES, rng, 0.5)
    assert found.shape == images.shape
    assert found.isfinite().all()


@pytest.mark.parametrize("name", POLICIES)
def test_augment_gradient_is_the_adjoint_per_policy(name: str) -> None:
    """Every policy is affine in the pixels: f(x) - f(0) = Ax, and the gradient of y·f(x) is Aᵀy."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 3, 8, 8, requires_grad=True), torch.randn(6, 3, 8, 8)

    def apply(images: torch.Tensor) -> torch.Tensor:
        return augment(images, [name], ShardedRNG(torch.Generator().manual_seed(1)), torch.tensor(0.7))

    (gradient,) = torch.autograd.grad((apply(x) * y).sum(), x)
    linear = apply(x) - apply(torch.zeros_like(x))
    torch.testing.assert_close((gradient * x).sum(), (linear * y).sum(), rtol=1e-4, atol=1e-4)
    other = torch.randn_like(x)  # Aᵀy does not depend on x
    torch.testing.assert_close(
        (gradient * other).sum(), ((apply(other) - apply(torch.zeros_like(x))) * y).sum(), rtol=1e-4, atol=1e-4
    )
