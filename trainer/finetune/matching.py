"""Matches the tensors of a parent with those of a new network, by name and shape, and adapts what differs.

Adapted are: the first and last layer where the images have other channels, rows per class by the name of the
class, BatchNorm where only one network is conditional, and spectral normalization. Other tensors keep their
initialization. All of it is listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifacts.images.alpha import RGBA
from trainer.config.schema import Config
from trainer.networks import ConditionalBatchNorm, Discriminator, SpectralNorm
from trainer.networks.layers import as_matrix

Weights = dict[str, Tensor]
ORIGINAL = "parametrizations.weight.original"  # what spectral normalization calls a layer's weight
SINGULAR = "parametrizations.weight.0.u"
COUNTER = "num_batches_tracked"
NORM_ADDED = "with spectral normalization from here on"
NORM_REMOVED = "divided by its spectral norm"


@dataclass(frozen=True)
class Shape:
    """What of a config decides which tensors a network has at its ends."""

    classes: tuple[str, ...]
    channels: int
    pixels: int

    @classmethod
    def of(cls, config: Config) -> Shape:
        """Return the shape of a config's networks."""
        data = config.data
        return cls(data.class_names if config.model.conditional else (), data.channels, data.height * data.width)


@dataclass
class Match:
    """What one network takes from its parent.

    Attributes:
        values: The new values, by the name of our tensor.
        copied: The names of the tensors that are copied as they are, without counters.
        adapted: The names of the others in `values`, by how they were adapted.
        new: Why each tensor that keeps its initialization does, by name.
        unused: The names of the parent's tensors that have no place.
        fits: Whether a layer's weight is among `values`.
    """

    which: str
    values: Weights = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)
    adapted: dict[str, list[str]] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    fits: bool = False

    def lines(self) -> list[str]:
        """Return the match as lines for the user."""
        total = len(self.copied) + sum(map(len, self.adapted.values())) + len(self.new)
        found = [f"{self.which}: {len(self.copied)} of {total} tensors are the parent's"]
        found += [f"{self.which}: {', '.join(names)}: {how}" for how, names in self.adapted.items()]
        found += [f"{self.which}: {name} is new: {reason}" for name, reason in self.new.items()]
        if self.unused:
            found.append(f"{self.which}: not used of the parent: {', '.join(self.unused)}")
        return found


def match(network: nn.Module, theirs: Mapping[str, Tensor], ours: Shape, parents: Shape) -> Match:
    """Return what a new network takes from its parent. The network is not changed.

    Args:
        network: The new G or D, with its initial weights.
        theirs: The parent's state dict.
        ours: The shape of the new networks.
        parents: The shape of the parent's.
    """
    source = _Source(dict(theirs))
    _align_spectral_norm(network, source)
    if is_d := isinstance(network, Discriminator):
        _align_projection(network, source, parents)
    else:
        _align_norms(network, source, len(ours.classes))
    tables = _tables(network, len(ours.classes))
    found = Match("D" if is_d else "G")
    for name, place in network.state_dict().items():
        value, how = source.take(name)
        if value is not None and name in tables and how in (None, NORM_ADDED, NORM_REMOVED):
            value, rows = _rows_by_class(value, place, ours.classes, parents.classes)
            how = "; ".join(filter(None, (how, rows))) or None
        if value is not None and value.shape != place.shape:
            reads_pixels = is_d and not name.startswith("decoders.")  # decoders make them, as G does
            value, how = _adapt_channels(value, place, ours, parents, reads_pixels, how)
        if value is None or value.shape != place.shape:
            if not name.endswith((COUNTER, SINGULAR)):
                found.new[name] = _reason(theirs.get(name), place)
            continue
        found.values[name] = value
        if name.endswith(COUNTER):
            continue
        found.fits |= place.dim() > 1 and name not in tables
        if how is None:
            found.copied.append(name)
        else:
            found.adapted.setdefault(how, []).append(name)
    left = [name for name in theirs if name not in source.taken]
    found.unused = [name for name in left if not name.endswith((COUNTER, SINGULAR))]
    return found


def load(network: nn.Module, found: Match) -> None:
    """Write matched values into a network, and estimate again the singular vectors of weights that are not a copy."""
    places = network.state_dict()
    with torch.no_grad():
        for name, value in found.values.items():
            places[name].copy_(value)
    copied = set(found.copied)
    for name, module in network.named_modules():
        if isinstance(getattr(module, "parametrizations", None), nn.ModuleDict):
            prefix = f"{name}." if name else ""
            norm = module.parametrizations.weight[0]  # type: ignore[union-attr,index]
            if isinstance(norm, SpectralNorm) and not {f"{prefix}{ORIGINAL}", f"{prefix}{SINGULAR}"} <= copied:
                norm.estimate(places[f"{prefix}{ORIGINAL}"])


class _Source:
    """The parent's tensors under our names, each with how it was adapted, and which of them were taken."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.renamed: dict[str, tuple[Tensor, str | None, tuple[str, ...]]] = {}
        self.taken: set[str] = set()

    def add(self, name: str, value: Tensor, how: str | None, *sources: str) -> None:
        """Offer a value, made of the parent's tensors `sources`, for our tensor `name`; `how` None is a plain copy."""
        self.renamed[name] = value, how, sources

    def take(self, name: str) -> tuple[Tensor | None, str | None]:
        """Return the value for our tensor `name`, and how it was adapted."""
        if name in self.renamed:
            value, how, sources = self.renamed[name]
            self.taken |= set(sources)
            return value, how
        if name in self.weights:
            self.taken.add(name)
        return self.weights.get(name), None


def _align_spectral_norm(network: nn.Module, source: _Source) -> None:
    """Offer weights under the names that they have with, or without, spectral normalization."""
    ours = network.state_dict()
    for name in ours:
        if name.endswith(ORIGINAL):
            plain = f"{name.removesuffix(ORIGINAL)}weight"
            if name not in source.weights and plain in source.weights:
                source.add(name, source.weights[plain], NORM_ADDED, plain)
        elif name.endswith("weight"):
            prefix = name.removesuffix("weight")
            original, singular = f"{prefix}{ORIGINAL}", f"{prefix}{SINGULAR}"
            if name not in source.weights and {original, singular} <= source.weights.keys():
                weight, u = source.weights[original], source.weights[singular]
                if weight.dim() > 1 and u.shape == weight.shape[:1]:
                    value = weight / _largest_singular_value(weight, u)
                    source.add(name, value, NORM_REMOVED, original, singular)


def _largest_singular_value(weight: Tensor, u: Tensor) -> Tensor:
    v = F.normalize(u @ as_matrix(weight), dim=0)
    return torch.dot(u, as_matrix(weight) @ v).clamp_min(1e-12)


def _align_norms(network: nn.Module, source: _Source, classes: int) -> None:
    """Offer G's BatchNorms to conditional ones, each row the same, or the mean of a conditional one's rows."""
    weights = source.weights
    for name, module in network.named_modules():
        statistics = ("running_mean", "running_var", COUNTER)
        if isinstance(module, ConditionalBatchNorm) and f"{name}.running_mean" in weights:
            for ours, theirs in (("scale", "weight"), ("shift", "bias")):
                if (row := weights.get(f"{name}.{theirs}")) is not None:
                    how = f"of all {classes} classes from the unconditional one's"
                    source.add(f"{name}.{ours}.weight", row.repeat(classes, 1), how, f"{name}.{theirs}")
            for each in statistics:
                if f"{name}.{each}" in weights:
                    value = weights[f"{name}.{each}"]
                    source.add(f"{name}.norm.{each}", value, None, f"{name}.{each}")
        elif isinstance(module, nn.BatchNorm2d) and module.affine and f"{name}.norm.running_mean" in weights:
            for ours, theirs in (("weight", "scale"), ("bias", "shift")):
                if (table := weights.get(f"{name}.{theirs}.weight")) is not None and table.dim() == 2:
                    source.add(f"{name}.{ours}", table.mean(0), "the mean of the classes'", f"{name}.{theirs}.weight")
            for each in statistics:
                if f"{name}.norm.{each}" in weights:
                    value = weights[f"{name}.norm.{each}"]
                    source.add(f"{name}.{each}", value, None, f"{name}.norm.{each}")


def _align_projection(network: Discriminator, source: _Source, parents: Shape) -> None:
    """Offer an unconditional D the mean of the classes' projection as a part of its head, or a conditional D zeros.

    logit = head(h) + <embedding(y), sum of h over space>: with the mean of the embeddings in every place of the head's
    weight, the logit is the mean of the classes' logits. With spectral normalization neither is possible: a weight
    has the norm 1 there.
    """
    ours, weights = network.state_dict(), source.weights
    table = weights.get("projection.weight")
    if "projection.weight" in ours and not any(name.startswith("projection.") for name in weights):
        value = torch.zeros_like(ours["projection.weight"])
        source.add("projection.weight", value, "0, so that D begins as the unconditional one")
    if network.projection is None and table is not None and table.dim() == 2 and parents.classes:
        for name in ("score.weight", "score.1.weight"):  # the second after MinibatchStd, whose map is the last
            head = weights.get(name)
            if name in ours and head is not None and head.dim() > 1 and head.shape[1] >= table.shape[1]:
                value = head.clone()
                mean = table.mean(0).reshape(1, -1, *[1] * (head.dim() - 2))
                value[:, : table.shape[1]] += mean
                source.add(name, value, "with the mean of the classes' projection", name, "projection.weight")


def _tables(network: nn.Module, classes: int) -> set[str]:
    """Return the names of the tensors that have a row per class."""
    found = set()
    for name, module in network.named_modules():
        if classes and isinstance(module, nn.Embedding) and module.num_embeddings == classes:
            found |= {f"{name}.weight", f"{name}.{ORIGINAL}"}
    return found


def _rows_by_class(
    table: Tensor, place: Tensor, ours: tuple[str, ...], theirs: tuple[str, ...]
) -> tuple[Tensor | None, str | None]:
    """Return a table whose rows are the parent's of the class of that name, or else the mean of its rows."""
    if table.dim() != 2 or len(table) != len(theirs) or table.shape[1:] != place.shape[1:]:
        return (table, None) if not theirs else (None, None)
    if ours == theirs:
        return table, None
    rows = {name: table[index] for index, name in enumerate(theirs)}
    known = [name for name in ours if name in rows]
    others = [name for name in ours if name not in rows]
    how = [f"of the parent's classes {', '.join(known)}"] if known else []
    how += [f"{', '.join(others)} from the mean of all classes"] if others else []
    return torch.stack([rows.get(name, table.mean(0)) for name in ours]), "; ".join(how)


def _adapt_channels(
    value: Tensor, place: Tensor, ours: Shape, theirs: Shape, reads_pixels: bool, how: str | None
) -> tuple[Tensor | None, str | None]:
    """Return the first weight of D or the last of G for images of the other number of channels, or None.

    A gray G becomes an RGB one of the same images: three equal channels. A D of the other kind sees a gray image as the
    parent did: its weights are repeated and divided by 3, or summed. The channels of an RGB G are averaged. To or from
    RGBA the colors are adapted likewise; a new alpha has weights 0 (a G draws it half transparent at first), and the
    parent's is left out.
    """
    differ = [dim for dim in range(min(value.dim(), place.dim())) if value.shape[dim] != place.shape[dim]]
    if value.dim() != place.dim() or len(differ) != 1 or ours.channels == theirs.channels:
        return None, None
    (dim,) = differ
    pixels, rest = divmod(value.shape[dim], theirs.channels)  # per channel: 1 in a convolution
    if rest or pixels * ours.channels != place.shape[dim] or pixels not in (1, ours.pixels):
        return None, None
    parts = value.unflatten(dim, (theirs.channels, pixels))
    names = {1: "gray", 3: "RGB", RGBA: "RGBA"}
    what = f"{names[theirs.channels]} → {names[ours.channels]}"
    parts = parts.narrow(dim, 0, min(3, theirs.channels))
    if theirs.channels == 1:
        parts = parts.expand(*[3 if at == dim else -1 for at in range(parts.dim())])
        parts, what = (parts / 3, f"{what}, a third each") if reads_pixels else (parts, f"{what}, repeated")
    elif ours.channels == 1:
        parts = parts.sum(dim, keepdim=True) if reads_pixels else parts.mean(dim, keepdim=True)
        what = f"{what}, summed" if reads_pixels else f"{what}, averaged"
    if ours.channels == RGBA:
        parts, what = torch.cat([parts, torch.zeros_like(parts.narrow(dim, 0, 1))], dim), f"{what}, alpha new"
    return parts.flatten(dim, dim + 1), what if how is None else f"{how}; {what}"


def _reason(theirs: Tensor | None, place: Tensor) -> str:
    if theirs is None:
        return "the parent has none"
    return f"it is {tuple(place.shape)}, the parent's is {tuple(theirs.shape)}"
