"""The settings that are chosen for a set of images, each with its reason. A rule is a small function or a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from artifacts.images.resolution import Resolution
from trainer.config.image_shape import num_upsamples
from trainer.config.schema import UNCENTERED
from trainer.own_images.findings import Findings

# The preset of a named set, whose settings are kept.
PRESETS_OF_SETS = {"digits": "digits-dcgan", "mnist": "mnist-best", "fashion-mnist": "mnist-best"}
# The resolution in pixels that a device trains in reasonable time, for images that are at least as large.
LARGEST = {"cpu": 32, "mps": 64, "cuda": 64}
SMALLEST = 32
OWN_SIDES = (28, 32)  # of square images that need no resize
# Length in kimg by the number of images: the first row whose number is not reached.
LENGTHS = {
    "cpu": ((None, 200),),
    "mps": ((1_000, 400), (20_000, 800), (None, 1_600)),
    "cuda": ((1_000, 1_600), (20_000, 3_200), (None, 12_800)),
}
# DiffAugment's policies by the number of images, as in Zhao et al. 2020: all three for 100 to a few thousand images,
# and without colors for CIFAR-10 and its subsets; None is the preset's choice.
AUGMENTATIONS: tuple[tuple[int | None, list[str] | None], ...] = (
    (5_000, ["color", "translation", "cutout"]),
    (20_000, ["translation", "cutout"]),
    (None, None),
)
ADA_TARGET = 0.6  # Karras et al. 2020
ADAPTED = ("dcgan", "sndcgan", "resnet", "fastgan")  # architectures with widths per doubling
MIN_PER_CLASS = 50  # images, for a conditional model
MIN_DIFFERENT = 16  # images, to train at all
FEW = 100  # images below which a GAN copies them


@dataclass(frozen=True)
class Choice:
    """A setting and its reason.

    Attributes:
        field: `section.field`, or `preset`.
        value: Its value.
        reason: Why, in a phrase.
        is_given: Whether the user gave it.
    """

    field: str
    value: Any
    reason: str
    is_given: bool = False

    @property
    def setting(self) -> str:
        """The choice as `--set` takes it."""
        return f"{self.field}={self.value if isinstance(self.value, str) else json.dumps(self.value)}"


def choose_preset(source: str, device: str) -> Choice:
    """Choose the preset whose networks and optimizers are used."""
    name = source.partition("@")[0]
    if name in PRESETS_OF_SETS:
        return Choice("preset", PRESETS_OF_SETS[name], f"made for {name}")
    if device == "cpu":
        return Choice("preset", "cifar10-small", "small networks, for a CPU")
    return Choice("preset", "cifar10-best", "wider networks, for a GPU")


def choose_resolution(found: Findings, device: str) -> Choice:
    """Choose the resolution: the images' own where that is usual, else by their sizes and the device."""
    if found.own_side in OWN_SIDES:
        return Choice("data.resolution", found.own_side, "the images' own")
    limit, side = LARGEST[device], found.short_side
    if side < SMALLEST:
        return Choice("data.resolution", SMALLEST, f"the smallest; images of {side} px are enlarged")
    resolution = SMALLEST
    while resolution * 2 <= min(limit, side):
        resolution *= 2
    if side >= 2 * resolution:
        return Choice("data.resolution", resolution, f"for this device; {2 * resolution} takes 2 to 4 times as long")
    return Choice("data.resolution", resolution, "the images are not larger")


def choose_channels(found: Findings) -> Choice:
    """Choose gray or RGB."""
    if not found.is_gray:
        gray = sum(found.headers.modes[mode] for mode in ("L", "1", "LA", "I;16"))
        return Choice("data.channels", 3, f"{gray:,} gray images become RGB" if gray else "the images are in color")
    reason = f"{found.sampled} sampled images have no color" if found.sampled else "no image has colors"
    return Choice("data.channels", 1, reason)


def choose_conditional(found: Findings, *, can_be: bool = True) -> Choice:
    """Choose whether G and D know the class: only if every class has enough images."""
    field, smallest = "model.conditional", found.smallest_class
    if smallest is None or len(found.headers.class_counts) < 2:
        return Choice(field, False, "no classes")
    name, count = smallest
    if count < MIN_PER_CLASS:
        return Choice(field, False, f"class {name} has {count:,} of the {MIN_PER_CLASS} images that each needs")
    if not can_be:
        return Choice(field, False, "the preset's networks take no classes")
    return Choice(field, True, f"each of {len(found.headers.class_counts):,} classes has {count:,} images or more")


def choose_flip(channels: int) -> Choice:
    """Choose whether to mirror images: photos may be mirrored, letters and scans may not."""
    if channels == 1:
        return Choice("data.flip", False, "gray images may be letters, digits or scans")
    return Choice("data.flip", True, "photos; turn it off for text and logos")


def choose_augmentation(different: int) -> Choice | None:
    """Choose DiffAugment's policies for a number of different images; None keeps the preset's."""
    policies = next(found for limit, found in AUGMENTATIONS if limit is None or different < limit)
    if policies is None:
        return None
    return Choice("data.augment", policies, f"{different:,} images are few: D would memorize them")


def choose_ada_target(device: str, objective: str) -> Choice | None:
    """Choose adaptive augmentation for a short run; None applies the policies always.

    In the short runs of a CPU, policies that are always applied kept D at chance (docs/results/ours.md).
    """
    if device != "cpu" or objective in UNCENTERED:
        return None
    return Choice("data.ada_target", ADA_TARGET, "augments only as much as D memorizes")


def choose_length(different: int, device: str, *, fine_tuned: bool = False) -> Choice:
    """Choose the length by the number of different images and the device; half of it for weights that are trained."""
    kimg: float = next(found for limit, found in LENGTHS[device] if limit is None or different < limit)
    kimg = kimg / 2 if fine_tuned else kimg
    return Choice("run.total_kimg", kimg, f"each image is shown about {1000 * kimg / different:,.0f} times")


def choose_batch_size(count: int, preset_size: int) -> Choice | None:
    """Choose a smaller batch where there are fewer images than the preset's; None keeps the preset's."""
    if count >= preset_size:
        return None
    return Choice("optim.batch_size", count // 4 * 4, f"there are {count} images")


def dependent_settings(preset: Mapping[str, Any], resolution: Resolution, kimg: float) -> dict[str, Any]:
    """Return the fields that follow from resolution and length: widths, the decay of learning rates, ticks.

    Args:
        preset: The sections of the preset.
        resolution: Side in pixels.
        kimg: The length.
    """
    settings: dict[str, Any] = {}
    model, before = preset.get("model", {}), preset.get("data", {}).get("resolution", 32)
    try:
        more = num_upsamples(resolution) - num_upsamples(before)
    except ValueError:  # the config's check explains which resolutions there are
        return settings
    if (
        model.get("architecture") in ("dcgan", "sndcgan", "resnet", "fastgan")
        and "g_widths" in model
        and "d_widths" in model
    ):
        g_widths, d_widths = list(model["g_widths"]), list(model["d_widths"])
        for _ in range(more):  # a layer per doubling: half as wide in G, as wide as the last in D
            g_widths.append(max(8, g_widths[-1] // 2))
            d_widths.append(d_widths[-1])
        if more < 0 and (
            model["architecture"] in ("resnet", "fastgan") or len(g_widths) > num_upsamples(resolution) + 1
        ):
            g_widths, d_widths = g_widths[-more:], d_widths[:more]
        if g_widths != list(model["g_widths"]):
            settings |= {"model.g_widths": g_widths, "model.d_widths": d_widths}
    if (decay := preset.get("optim", {}).get("decay_kimg")) is not None and decay[1] != kimg:
        settings["optim.decay_kimg"] = [kimg * decay[0] / decay[1], kimg]
    if kimg != preset.get("run", {}).get("total_kimg"):
        settings |= {"run.tick_kimg": kimg / 10, "run.checkpoint_ticks": 1}
    return settings
