"""FastGAN's pair: sizes, excitation, patches, and what D's decoders are trained on."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.trainer.generators import random_generator
from tests.support.trainer.tiny_run import TINY
from trainer import networks
from trainer.config import loading
from trainer.config.schema import Config
from trainer.distributed.sharded_rng import ShardedRNG
from trainer.errors import TrainerError
from trainer.networks import fastgan
from trainer.networks.base import Discriminator
from trainer.networks.freezing import d_blocks


def config_of(resolution: int = 16, channels: int = 3, classes: tuple[str, ...] = (), **model: Any) -> Config:
    doublings = (resolution // (7 if resolution % 7 == 0 else 4)).bit_length() - 1
    widths = {"g_widths": [8] * (doublings + 1), "d_widths": [6] * min(doublings, 4)}
    data = {"resolution": resolution, "channels": channels, "class_names": classes}
    fields = {"architecture": "fastgan", "z_dim": 5, "conditional": bool(classes)} | widths | model
    return loading.parse({**TINY, "data": data, "model": fields})


def rng(seed: int = 0) -> ShardedRNG:
    return ShardedRNG(torch.Generator().manual_seed(seed))


def pictures(count: int = 4, resolution: int = 16) -> Tensor:
    return torch.rand(count, 3, resolution, resolution, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("classes", [(), ("a", "b")])
@pytest.mark.parametrize("resolution", [16, 28, 32, 56, 64, 112, 128])
def test_fastgan_reaches_every_size(resolution: int, classes: tuple[str, ...], norm: str) -> None:
    G, D = networks.build(config_of(resolution, classes=classes, d_norm=norm, d_minibatch_std=norm == "none"))
    labels = torch.tensor([0, 1]) if classes else None
    images = G(torch.randn(2, 5), labels)
    assert images.shape == (2, 3, resolution, resolution)
    logits, features = D(images, labels, with_features=True)
    assert logits.shape == (2,)
    assert D.reconstruction_loss(images, features, rng()).isfinite()


def test_fastgan_at_256_px_weights_the_papers_maps() -> None:
    """Figure 3 and section 3.1: 4 → 64, 8 → 128 and 16 → 256 px."""
    model = config_of(128).model.model_copy(update={"g_widths": (8,) * 7})
    body = fastgan.generator(model, 256, 3, 0).net[0]
    weighted = {8 << int(block): 4 * getattr(excite.pool, "kernel_size", 1) for block, excite in body.excite.items()}
    assert weighted == {64: 4, 128: 8, 256: 16}


def test_skip_excitation_is_the_papers_formula() -> None:
    excite = fastgan.SkipExcitation(3, 5, doublings=1, initial=(4, 4), bias=False)
    features = torch.randn(2, 3, 8, 8)
    first, _, second, _ = excite.weights
    pooled = F.conv2d(F.adaptive_avg_pool2d(features, 4), first.weight)
    expected = torch.sigmoid(F.conv2d(pooled * torch.sigmoid(pooled), second.weight))
    torch.testing.assert_close(excite(features), expected)


def test_skip_excitation_of_g_depends_on_the_early_map() -> None:
    G = random_generator(config_of(32))
    z = torch.randn(2, 5)
    before = G(z)
    for excite in G.net[0].excite.values():
        excite.weights[2].bias.data.fill_(-40.0)  # a sigmoid of 0: the map is empty
    after = G(z)
    assert (before - after).abs().max() > 0.1


def test_generator_image_depends_on_its_latent_only() -> None:
    G = random_generator(config_of())
    z = torch.randn(4, 5)
    images = G(z)
    assert torch.equal(G(z), images)
    torch.testing.assert_close(G(z[2:3]), images[2:3])
    assert (images[0] - images[1]).abs().max() > 0.01


def test_conditional_label_changes_the_image_and_the_logit() -> None:
    config = config_of(classes=("a", "b"), d_norm="none")
    G, D = random_generator(config), networks.build(config)[1]
    labels = torch.tensor([0, 1])
    images = G(torch.randn(1, 5).expand(2, -1), labels)
    assert (images[0] - images[1]).abs().max() > 0.01
    logits = D(images[:1].expand(2, -1, -1, -1), labels)
    maps = D.net(images[:1])
    plain = D.score(maps)
    products = [(D.projection.weight[label] * maps.last.mean(dim=(2, 3))).sum() for label in labels]
    torch.testing.assert_close(logits, torch.stack([plain[0] + product for product in products]))


def test_logit_is_the_mean_over_the_patches_of_both_scales() -> None:
    _, D = networks.build(config_of(32, d_norm="none", d_widths=[4, 6]))
    maps = D.net(pictures(2, 32))
    large, small = D.score.large(maps.last), D.score.small(maps.small)
    assert large.shape == small.shape == (2, 1, 5, 5)
    torch.testing.assert_close(D(pictures(2, 32)), torch.cat([large, small], dim=1).mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("number", range(4))
def test_choose_quarter_returns_that_quarter(number: int) -> None:
    images = pictures(2, 6)
    chosen = fastgan.choose_quarter(images, F.one_hot(torch.tensor([number, 0]), 4))
    row, column = divmod(number, 2)
    assert torch.equal(chosen[0], images[0, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3])
    assert torch.equal(chosen[1], images[1, :, :3, :3])


class Remembered(nn.Module):
    """A decoder that returns an image, whatever the map."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, features: Tensor) -> Tensor:
        return self.image[: len(features)]


def test_reconstruction_loss_compares_the_image_at_half_its_side_and_a_quarter() -> None:
    _, D = networks.build(config_of(d_norm="none"))
    images = pictures()
    features = D.net(images)
    quarter = F.one_hot(rng(3).randint(0, 4, len(images)), 4)
    half = F.avg_pool2d(images, 2)
    targets = {"last": half, "small": half, "before": fastgan.choose_quarter(images, quarter)}
    D.decoders = nn.ModuleDict({name: Remembered(target) for name, target in targets.items()})
    assert D.reconstruction_loss(images, features, rng(3)).item() == 0
    D.decoders["small"] = Remembered(half + 0.25)
    assert D.reconstruction_loss(images, features, rng(3)).item() == pytest.approx(0.25, rel=1e-5)


def test_reconstruction_loss_reads_the_first_rows_of_the_features() -> None:
    _, D = networks.build(config_of(d_norm="none"))
    images = pictures()
    both = torch.cat([images, -images])
    expected = D.reconstruction_loss(images, D.net(images), rng())
    torch.testing.assert_close(D.reconstruction_loss(images, D.net(both), rng()), expected)


def test_reconstruction_loss_trains_the_layers_but_not_the_heads() -> None:
    _, D = networks.build(config_of())
    images = pictures()
    D.reconstruction_loss(images, D(images, with_features=True)[1], rng()).backward()
    with_gradient = {name.partition(".")[0] for name, weight in D.named_parameters() if weight.grad is not None}
    assert with_gradient == {"net", "decoders"}


def test_build_without_reconstruction_has_no_decoders() -> None:
    config = config_of()
    with_decoders, without = (
        networks.build(loading.override(config, [f"objective.reconstruction_weight={weight}"]))[1] for weight in (1, 0)
    )
    assert with_decoders.decoders is not None
    assert without.decoders is None
    assert {name for name, _ in with_decoders.named_parameters() if not name.startswith("decoders.")} == {
        name for name, _ in without.named_parameters()
    }


def test_decoders_without_a_loss_are_named() -> None:
    D = Discriminator(nn.Identity(), nn.Identity(), width=1)
    with pytest.raises(NotImplementedError, match="Discriminator has decoders but no reconstruction_loss"):
        D.reconstruction_loss(pictures(), pictures(), rng())


def test_d_blocks_of_fastgan_are_its_stages() -> None:
    _, D = networks.build(config_of(32))
    assert [list(block) for block in d_blocks(D)] == [["net.0"], ["net.1"], ["net.2"]]


@pytest.mark.parametrize(
    ("resolution", "model", "message"),
    [
        (8, {}, "model.d_widths halves 8 px 1 times in a fastgan; use 16 px or more"),
        (16, {"d_widths": [4] * 3}, "model.d_widths halves 16 px 3 times in a fastgan; 2 fit"),
        (64, {"d_widths": [4]}, "model.d_widths halves 64 px 1 times in a fastgan; 2 to 4 fit"),
        (64, {"g_widths": [4] * 4}, "at 64 px a fastgan's model.g_widths needs 5 widths"),
        (64, {"d_downsamples": 2}, "model.d_downsamples applies to a resnet's D; leave it out with fastgan"),
    ],
)
def test_fastgan_with_widths_that_do_not_fit_is_one_line(resolution: int, model: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainerError, match=re.escape(message)):
        config_of(resolution, **model)
