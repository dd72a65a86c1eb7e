"""The pair of Liu et al. 2021 for few images: skip-layer excitation in G, an autoencoding D that sees two scales.

It differs from the paper in five ways. G has no noise injection, because an image depends on its latent and label only.
A doubling is a 4x4 transposed convolution: doubled pixels under a 3x3 convolution are a special case of it that needs 9
instead of 4 products per pixel. D makes the small image from the large one instead of receiving it from G. D's patch
logits are averaged to one logit per image before the loss, so that every objective and penalty works. Reconstructions
are compared pixel by pixel, because a perceptual distance needs a pretrained network.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifacts.images.resolution import Resolution
from trainer.config.image_shape import first_map, num_upsamples
from trainer.config.schema import Model
from trainer.distributed.sharded_rng import ShardedRNG
from trainer.networks.base import ConditionalLayer, Discriminator, Generator
from trainer.networks.layers import DenseToFeatureMap, TransposedConv, batch_norm, d_head, d_norms

Sides = tuple[int, int]  # height and width

MIN_DECODER_WIDTH = 8


class SkipExcitation(nn.Module):
    """Weights in (0, 1) for the channels of a later map, [N, C, H, W] → [N, width, 1, 1] (equation 1)."""

    def __init__(self, channels: int, width: int, *, doublings: int, initial: Sides, bias: bool) -> None:
        """Read a map that is `doublings` larger than `initial`, averaged to that size."""
        super().__init__()
        self.pool = nn.AvgPool2d(1 << doublings) if doublings else nn.Identity()
        self.weights = nn.Sequential(
            nn.Conv2d(channels, width, initial, bias=bias),
            nn.SiLU(),
            nn.Conv2d(width, width, 1, bias=bias),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the weights."""
        weights: Tensor = self.weights(self.pool(features))
        return weights


class GatedConv(ConditionalLayer):
    """A convolution, a norm and a gated linear unit: [N, C, H, W] → [N, width, H, W], or 2H, 2W with `doubling`."""

    def __init__(self, channels: int, width: int, classes: int, *, doubling: bool, bias: bool) -> None:
        """Make a layer of a generator."""
        super().__init__()
        if doubling:
            self.conv: nn.Module = TransposedConv(channels, 2 * width, 4, stride=2, padding=1, bias=bias)
        else:
            self.conv = nn.Conv2d(channels, 2 * width, 3, padding=1, bias=bias)
        self.norm = batch_norm(2 * width, classes)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the gated features."""
        return gate(self.norm, self.conv(features), labels)


class SkipLayerBody(ConditionalLayer):
    """Latents [N, z] → the last map, [N, width, H, W]: a dense layer, then per width one or two gated convolutions.

    The first one doubles. Blocks with two and with one alternate, as in the authors' code. A late map's channels are
    weighted by the map `shift` doublings before it: 4 as in the paper, less where there are fewer doublings.
    """

    def __init__(self, model: Model, initial: Sides, classes: int) -> None:
        """Make the layers; the first map has the sides `initial`."""
        super().__init__()
        bias = model.bias == "all"
        widths = model.g_widths
        doublings = len(widths) - 1
        self.shift = max(1, min(4, doublings - 1))
        self.first = DenseToFeatureMap(model.z_dim, 2 * widths[0], initial, bias=bias)
        self.norm = batch_norm(2 * widths[0], classes)
        self.blocks = nn.ModuleList()
        self.excite = nn.ModuleDict()  # by the number of the block whose map it weights
        for block, (channels, width) in enumerate(pairwise(widths)):
            inner = [channels] if block % 2 == 0 else []
            sizes = pairwise([channels, *inner, width])
            layers = [GatedConv(*size, classes, doubling=number == 0, bias=bias) for number, size in enumerate(sizes)]
            self.blocks.append(nn.ModuleList(layers))
            source = block + 1 - self.shift
            if source >= 0:
                self.excite[str(block)] = SkipExcitation(
                    widths[source], width, doublings=source, initial=initial, bias=model.bias != "none"
                )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the last map."""
        features = gate(self.norm, self.first(z), labels)
        maps = [features]
        for number, convolutions in enumerate(self.blocks):
            for convolution in convolutions:  # type: ignore[attr-defined]
                features = convolution(features, labels)
            if str(number) in self.excite:
                features = features * self.excite[str(number)](maps[number + 1 - self.shift])
            maps.append(features)
        return features


class Maps(NamedTuple):
    """What D's layers make of images: the last map of each scale, and the large one's before it."""

    last: Tensor
    before: Tensor
    small: Tensor


class Halving(nn.Module):
    """[N, C, H, W] → [N, width, H/2, W/2]: the mean of two convolutions and of an averaged 1x1 one."""

    def __init__(self, channels: int, width: int, *, norm: str, bias: bool) -> None:
        """Make a block of the large image's branch."""
        super().__init__()
        self.main = nn.Sequential(
            *strided(channels, width, norm, bias=bias),
            nn.Conv2d(width, width, 3, padding=1, bias=bias),
            *d_norms(norm, width),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(channels, width, 1, bias=bias),
            *d_norms(norm, width),
            nn.LeakyReLU(0.2, inplace=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return features of half the resolution."""
        halved: Tensor = (self.main(features) + self.direct(features)) / 2
        return halved


class Stage(nn.Module):
    """A halving of the large image's map, its excitation, and a halving of the small image's map, which ends earlier.

    A stage is one block of `optim.d_freeze`.
    """

    def __init__(self, large: nn.Module, small: nn.Module | None, excite: nn.Module | None) -> None:
        """Join the layers."""
        super().__init__()
        self.large, self.small, self.excite = large, small, excite


class Trunk(nn.Sequential):
    """D's stages: images [N, C, H, W] → Maps."""

    def __init__(self, stages: list[Stage], shift: int) -> None:
        """Join the stages; a map is weighted by the map `shift` stages before it."""
        super().__init__(*stages)
        self.shift = shift

    def forward(self, images: Tensor) -> Maps:
        """Return the maps that the heads and decoders read."""
        large, small = images, F.avg_pool2d(images, 2)
        maps = [large]
        for stage in self:
            assert isinstance(stage, Stage)
            large = stage.large(large)
            if stage.excite is not None:
                large = large * stage.excite(maps[len(maps) - self.shift])
            if stage.small is not None:
                small = stage.small(small)
            maps.append(large)
        return Maps(large, maps[-2], small)


class Heads(nn.Module):
    """Maps → logits [N]: the mean over the patches of both scales."""

    def __init__(self, large: nn.Module, small: nn.Module) -> None:
        """Join the heads of the two scales, each [N, C, H, W] → [N, 1, h, w]."""
        super().__init__()
        self.large, self.small = large, small

    def forward(self, maps: Maps) -> Tensor:
        """Return the logits."""
        patches = (self.large(maps.last), self.small(maps.small))
        logits: Tensor = torch.stack([each.mean(dim=(1, 2, 3)) for each in patches]).mean(dim=0)
        return logits


class AutoencodingDiscriminator(Discriminator):
    """A discriminator whose maps are also decoded into the real images that they were made from (section 3.2).

    Decoded are, each at half the image's side: the whole image, from the last map of either scale, and a quarter of it,
    at its full resolution, from that quarter of the map before the last.
    """

    decoders: nn.ModuleDict | None

    def __init__(self, net: Trunk, score: Heads, decoders: nn.ModuleDict, *, width: int, classes: int) -> None:
        """Wrap the layers; the decoders are `last`, `before` and `small`, by the map that they read."""
        super().__init__(net, score, width=width, classes=classes)
        self.decoders = decoders

    def pool(self, features: Maps) -> Tensor:
        """Return the last map's mean over space, [N, width], as the heads' logits are means."""
        return features.last.mean(dim=(2, 3))

    def reconstruction_loss(self, images: Tensor, features: Maps, rng: ShardedRNG) -> Tensor:
        """Return the sum of the decoders' mean absolute errors."""
        assert self.decoders is not None
        last, before, small = (each[: len(images)] for each in features)
        quarter = F.one_hot(rng.randint(0, 4, len(images)), 4)
        whole = F.avg_pool2d(images, 2)
        pairs = [("last", last, whole), ("small", small, whole)]
        pairs.append(("before", choose_quarter(before, quarter), choose_quarter(images, quarter)))
        errors = [F.l1_loss(self.decoders[name](part).float(), target) for name, part, target in pairs]
        return torch.stack(errors).sum()


def choose_quarter(maps: Tensor, quarter: Tensor) -> Tensor:
    """Return one quarter of each map, [N, C, H, W] → [N, C, H/2, W/2]; `quarter` is one-hot, [N, 4]."""
    n, c, height, width = maps.shape
    quarters = maps.reshape(n, c, 2, height // 2, 2, width // 2)
    chosen = quarter.to(maps.dtype).view(n, 1, 2, 1, 2, 1)
    return (quarters * chosen).sum(dim=(2, 4))


def gate(norm: nn.Module, features: Tensor, labels: Tensor | None) -> Tensor:
    """Return normalized features, half of whose channels are multiplied with the sigmoid of the others."""
    normalized: Tensor = norm(features, labels) if isinstance(norm, ConditionalLayer) else norm(features)
    return F.glu(normalized, dim=1)


def strided(channels: int, width: int, norm: str, *, bias: bool) -> list[nn.Module]:
    """Return a 4x4 convolution that halves the resolution, its norm and LeakyReLU 0.2."""
    convolution = nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=bias)
    return [convolution, *d_norms(norm, width), nn.LeakyReLU(0.2, inplace=True)]


def decoder(channels: int, doublings: int, colors: int, norm: str, *, bias: bool) -> nn.Sequential:
    """Return the small decoder of a map, [N, channels, H, W] → pixels in (-1, 1) after `doublings`."""
    layers: list[nn.Module] = []
    for number in range(doublings):
        width = max(MIN_DECODER_WIDTH, channels // 4 if number == 0 else channels // 2)
        layers += [
            TransposedConv(channels, 2 * width, 4, stride=2, padding=1, bias=bias),
            *d_norms(norm, 2 * width),
            nn.GLU(dim=1),
        ]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, colors, 3, padding=1), nn.Tanh())


def generator(model: Model, resolution: Resolution, channels: int, classes: int) -> Generator:
    """Return a first map of the first width, a doubling block per further width, and a 3x3 layer to the pixels."""
    body = SkipLayerBody(model, first_map(resolution), classes)
    to_pixels = nn.Conv2d(model.g_widths[-1], channels, 3, padding=1, bias=model.bias != "none")
    return Generator(
        nn.Sequential(body, to_pixels), z_dim=model.z_dim, resolution=resolution, channels=channels, classes=classes
    )


def discriminator(model: Model, resolution: Resolution, channels: int, classes: int) -> Discriminator:
    """Return a halving per width for the image, one less for the image at half its side, two heads, three decoders."""
    end_bias = model.bias != "none"
    bias = model.bias == "all" or (model.bias == "unnormalized" and model.d_norm == "none")
    norm, widths = model.d_norm, model.d_widths
    count, initial, doublings = len(widths), first_map(resolution), num_upsamples(resolution)
    shift = max(1, min(3, count - 1))
    stages: list[Stage] = []
    for number, width in enumerate(widths):
        if number == 0:  # the pixels are not normalized
            large: nn.Module = nn.Sequential(*strided(channels, width, "none", bias=end_bias))
        else:
            large = Halving(widths[number - 1], width, norm=norm, bias=bias)
        small = None
        if number == 0:
            small = nn.Sequential(*strided(channels, widths[1], "none", bias=end_bias))
        elif number < count - 1:
            small = nn.Sequential(*strided(widths[number], widths[number + 1], norm, bias=bias))
        excite, source = None, number - shift
        if source >= 0:
            larger = doublings - source - 1
            excite = SkipExcitation(widths[source], width, doublings=larger, initial=initial, bias=end_bias)
        stages.append(Stage(large, small, excite))

    def head(width: int, inner: list[nn.Module]) -> nn.Module:
        return nn.Sequential(*inner, nn.Conv2d(width, 1, initial, bias=end_bias))

    last = widths[-1]
    mixed = d_head(model, last, lambda width: nn.Conv2d(width, last, 1, bias=bias))
    score = Heads(
        head(last, [mixed, *d_norms(norm, last), nn.LeakyReLU(0.2, inplace=True)]),
        head(last, []),
    )
    decoders = nn.ModuleDict(
        {
            name: decoder(width, count - 1, channels, norm, bias=bias)
            for name, width in (("last", last), ("before", widths[-2]), ("small", last))
        }
    )
    return AutoencodingDiscriminator(Trunk(stages, shift), score, decoders, width=last, classes=classes)
