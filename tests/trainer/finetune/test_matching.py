"""What a new network takes from its parent: by name and shape, and across sizes, channels and classes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.trainer.parents import ARCHITECTURES, CLASSES, config_of, parent_of
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.errors import TrainerError
from trainer.finetune import initialize
from trainer.finetune.matching import Shape, match
from trainer.training import loop
from trainer.training.state import TrainState

BatchesOf = Callable[[Config], Batches]
PLAIN = {"bias": "all"}


def started(config: Config, parent_config: Config) -> tuple[TrainState, TrainState, list[str]]:
    """A state that starts from a parent, the parent's, and the lines for the user."""
    theirs, parent = parent_of(parent_config)
    state = TrainState.create(config)
    lines = initialize.initialize(state, parent)
    return state, theirs, lines


@torch.no_grad()
def images(state: TrainState, labels: Tensor | None = None) -> Tensor:
    z = torch.randn(6, state.config.model.z_dim, generator=torch.Generator().manual_seed(3))
    return state.G_ema(z, labels)


def pictures(channels: int = 1, resolution: int = 8) -> Tensor:
    return torch.rand(6, channels, resolution, resolution, generator=torch.Generator().manual_seed(4)) * 2 - 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_match_of_equal_networks_copies_every_tensor(architecture: str, spectral_norm: bool) -> None:
    config = config_of(architecture, model={"d_spectral_norm": spectral_norm})
    state, theirs, lines = started(config, config)
    for ours, parents in ((state.G, theirs.G_ema), (state.G_ema, theirs.G_ema), (state.D, theirs.D)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, parents.state_dict()[name]), name
    assert [line for line in lines if " is new" in line or "not used" in line or ": gray" in line] == []
    assert state.steps == state.images_seen == 0
    assert not state.g_optimizer.state
    assert state.G.training
    assert not state.G_ema.training


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_match_of_gray_as_rgb_keeps_the_images(architecture: str) -> None:
    state, theirs, lines = started(config_of(architecture, channels=3), config_of(architecture))
    torch.testing.assert_close(images(state), images(theirs).expand(-1, 3, -1, -1))
    gray = pictures()
    torch.testing.assert_close(state.D(gray.expand(-1, 3, -1, -1)), theirs.D(gray))
    assert any("gray → RGB, repeated" in line for line in lines)
    assert any("gray → RGB, a third each" in line for line in lines)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_match_of_rgb_as_gray_sees_gray_images_alike(architecture: str) -> None:
    state, theirs, lines = started(config_of(architecture), config_of(architecture, channels=3))
    gray = pictures()
    torch.testing.assert_close(state.D(gray), theirs.D(gray.expand(-1, 3, -1, -1)))
    for G in (state.G_ema, theirs.G_ema):
        G.output = torch.nn.Identity()  # the mean is that of the values before tanh
    torch.testing.assert_close(images(state), images(theirs).mean(1, keepdim=True), rtol=1e-4, atol=1e-4)
    assert any("RGB → gray, averaged" in line for line in lines)
    assert any("RGB → gray, summed" in line for line in lines)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_match_as_rgba_keeps_the_colors(architecture: str, channels: int) -> None:
    state, theirs, lines = started(config_of(architecture, channels=4), config_of(architecture, channels=channels))
    torch.testing.assert_close(images(state)[:, :3], images(theirs).expand(-1, 3, -1, -1))
    color = pictures().expand(-1, channels, -1, -1)
    alpha = torch.rand(len(color), 1, 8, 8)
    torch.testing.assert_close(state.D(torch.cat([color.expand(-1, 3, -1, -1), alpha], 1)), theirs.D(color))
    assert any("→ RGBA" in line and line.endswith("alpha new") for line in lines)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_match_of_rgba_as_rgb_leaves_out_the_alpha(architecture: str) -> None:
    state, theirs, lines = started(config_of(architecture, channels=3), config_of(architecture, channels=4))
    torch.testing.assert_close(images(state), images(theirs)[:, :3])
    assert any(line.endswith("RGBA → RGB") for line in lines)


def fastgan(**fields: Any) -> Config:
    model = {"g_widths": [8, 6, 5], "d_widths": [8, 8]}
    return config_of("fastgan", resolution=16, model=model, **fields)


def test_match_of_a_fastgan_copies_every_tensor() -> None:
    state, theirs, lines = started(fastgan(), fastgan())
    for ours, parents in ((state.G, theirs.G_ema), (state.D, theirs.D)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, parents.state_dict()[name]), name
    assert [line for line in lines if " is new" in line or "not used" in line] == []


def test_match_of_a_gray_fastgan_as_rgb_keeps_images_logits_and_reconstructions() -> None:
    state, theirs, _ = started(fastgan(channels=3), fastgan())
    torch.testing.assert_close(images(state), images(theirs).expand(-1, 3, -1, -1))
    gray = pictures(resolution=16)
    torch.testing.assert_close(state.D(gray.expand(-1, 3, -1, -1)), theirs.D(gray))
    assert state.D.decoders is not None
    assert theirs.D.decoders is not None
    maps = theirs.D.net(gray)
    for name, features in maps._asdict().items():
        decoded = theirs.D.decoders[name](features)
        torch.testing.assert_close(state.D.decoders[name](features), decoded.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("architecture", ["dcgan", "sndcgan", "resnet"])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_match_copies_the_rows_of_classes_by_name(architecture: str, spectral_norm: bool) -> None:
    model = {"d_spectral_norm": spectral_norm}
    ours = config_of(architecture, classes=("three", "new", "one"), model=model)
    state, theirs, lines = started(ours, config_of(architecture, classes=CLASSES, model=model))
    for label, of_parent in ((0, 2), (2, 0)):
        labels = torch.full((6,), label), torch.full((6,), of_parent)
        torch.testing.assert_close(images(state, labels[0]), images(theirs, labels[1]), rtol=0, atol=0)
    for name, table in state.G.state_dict().items():
        if name.endswith(("scale.weight", "shift.weight")):
            torch.testing.assert_close(table[1], theirs.G_ema.state_dict()[name].mean(0))
    if not spectral_norm:
        torch.testing.assert_close(state.D(pictures(), labels[0]), theirs.D(pictures(), labels[1]))
    assert any("of the parent's classes three, one; new from the mean of all classes" in line for line in lines)


def test_match_of_as_many_other_classes_copies_none_by_position() -> None:
    ours = config_of("dcgan", classes=("a", "b", "c"))
    state, theirs, lines = started(ours, config_of("dcgan", classes=CLASSES))
    table = state.D.projection.weight
    torch.testing.assert_close(table, theirs.D.projection.weight.mean(0).expand(3, -1))
    assert any("D: projection.weight: a, b, c from the mean of all classes" in line for line in lines)


@pytest.mark.parametrize(("before", "now"), [(False, True), (True, False)])
@pytest.mark.parametrize("classes", [("three", "two", "one"), ("one", "new")])
def test_match_across_spectral_normalization_copies_rows_by_name(
    before: bool, now: bool, classes: tuple[str, ...]
) -> None:
    ours = config_of("sndcgan", classes=classes, model={"d_spectral_norm": now})
    state, theirs, lines = started(ours, config_of("sndcgan", classes=CLASSES, model={"d_spectral_norm": before}))
    tables = [network.D.eval().projection.weight for network in (state, theirs)]
    rows = [tables[1][CLASSES.index(name)] if name in CLASSES else tables[1].mean(0) for name in classes]
    for row, of_parent in zip(tables[0], rows, strict=True):  # the norm of the whole table may differ
        assert torch.cosine_similarity(row, of_parent, dim=0).item() == pytest.approx(1, abs=1e-5)
    assert any("spectral norm" in line and "of the parent's classes" in line for line in lines)


@pytest.mark.parametrize("architecture", ["dcgan", "sndcgan", "resnet"])
@pytest.mark.parametrize("minibatch_std", [False, True])
def test_match_of_unconditional_as_conditional_keeps_images_and_logits(architecture: str, minibatch_std: bool) -> None:
    model = {"d_minibatch_std": minibatch_std}
    ours = config_of(architecture, classes=CLASSES, model=model)
    state, theirs, lines = started(ours, config_of(architecture, model=model))
    for label in range(3):
        labels = torch.full((6,), label)
        torch.testing.assert_close(images(state, labels), images(theirs))
        torch.testing.assert_close(state.D(pictures(), labels), theirs.D(pictures()))
    assert any("of all 3 classes from the unconditional one's" in line for line in lines)
    assert any("D: projection.weight: 0, so that" in line for line in lines)


@pytest.mark.parametrize("architecture", ["dcgan", "sndcgan", "resnet"])
@pytest.mark.parametrize("minibatch_std", [False, True])
def test_match_of_conditional_as_unconditional_is_the_mean(architecture: str, minibatch_std: bool) -> None:
    model = {"d_minibatch_std": minibatch_std}
    parent_config = config_of(architecture, classes=CLASSES, model=model)
    state, theirs, lines = started(config_of(architecture, model=model), parent_config)
    logits = [theirs.D(pictures(), torch.full((6,), label)) for label in range(3)]
    torch.testing.assert_close(state.D(pictures()), torch.stack(logits).mean(0), rtol=1e-4, atol=1e-4)
    weights, before = state.G.state_dict(), theirs.G_ema.state_dict()
    scales = [name for name in before if name.endswith(".scale.weight")]
    assert scales
    for name in scales:
        torch.testing.assert_close(weights[name.replace("scale.", "")], before[name].mean(0))
        torch.testing.assert_close(
            weights[name.replace("scale.weight", "running_var")],
            before[name.replace("scale.weight", "norm.running_var")],
        )
    assert any("the mean of the classes'" in line for line in lines)


def test_match_of_a_conditional_spectral_norm_lists_the_unused_projection() -> None:
    model = {"d_spectral_norm": True}
    _, _, lines = started(config_of("dcgan", model=model), config_of("dcgan", classes=CLASSES, model=model))
    assert any("D: not used of the parent: projection.parametrizations.weight.original" in line for line in lines)


@pytest.mark.parametrize(("before", "now"), [(False, True), (True, False)])
def test_match_across_spectral_normalization_keeps_the_direction(before: bool, now: bool) -> None:
    ours, parents = (config_of("sndcgan", model={"d_spectral_norm": has}) for has in (now, before))
    state, theirs, lines = started(ours, parents)
    for name, module in state.D.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            of_parent = dict(theirs.D.named_modules())[name].eval().weight.flatten(1)
            matrix = module.eval().weight.flatten(1)
            sigma = torch.linalg.matrix_norm(of_parent, 2) if now else 1
            torch.testing.assert_close(matrix, of_parent / sigma, rtol=0.05, atol=0.01)
    assert any("spectral norm" in line for line in lines)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_load_estimates_the_norm_of_an_adapted_weight(architecture: str) -> None:
    ours, parents = (config_of(architecture, channels=n, model={"d_spectral_norm": True}) for n in (3, 1))
    state, _, _ = started(ours, parents)
    first = next(module for module in state.D.modules() if hasattr(module, "parametrizations"))
    sigma = torch.linalg.matrix_norm(first.eval().weight.flatten(1), 2)
    assert sigma.item() == pytest.approx(1, abs=0.02)


def test_match_at_another_resolution_copies_the_common_layers() -> None:
    state, theirs, lines = started(config_of("dcgan", resolution=16), config_of("dcgan"))
    copied = {name for name, value in state.G.state_dict().items() if name.startswith(("net.0", "net.1"))}
    assert all(torch.equal(state.G.state_dict()[name], theirs.G_ema.state_dict()[name]) for name in copied)
    assert "G: net.3.weight is new: it is (8, 6, 4, 4), the parent's is (8, 1, 4, 4)" in lines
    assert "G: net.6.weight is new: the parent has none" in lines
    assert "D: score.weight is new: it is (1, 8, 4, 4), the parent's is (1, 8, 2, 2)" in lines


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_pair_of_shapes_lists_each_tensor_and_trains(architecture: str, batches_of: BatchesOf) -> None:
    classes: tuple[tuple[str, ...], ...] = ((), CLASSES, ("two", "four"))
    ends = list(itertools.product((8, 16), (1, 3), classes if architecture != "mlp" else ((),)))
    configs = {end: config_of(architecture, resolution=end[0], channels=end[1], classes=end[2]) for end in ends}
    parents = {end: parent_of(config)[1] for end, config in configs.items()}
    for index, (now, config) in enumerate(configs.items()):
        state = TrainState.create(config)
        for before, parent in parents.items():
            for network, weights in ((state.G, parent.G), (state.D, parent.D)):
                found = match(network, weights, Shape.of(config), Shape.of(parent.config))
                names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
                listed = [*found.copied, *itertools.chain(*found.adapted.values()), *found.new]
                assert sorted(listed) == sorted(names), (now, before)
                assert found.fits, (now, before)
                if now == before:
                    assert len(found.copied) == len(names)
        initialize.initialize(state, parents[ends[-1 - index]])
        loop.train_iteration(state, batches_of(config))
        loop.check_finite(state)


MISFITS = {
    "architecture": (config_of("dcgan"), config_of("mlp"), "G", "--set model.architecture=dcgan"),
    "z_dim and widths": (
        config_of("dcgan"),
        config_of("dcgan", model={"z_dim": 5, "g_widths": [7], "d_widths": [7, 7]}),
        "G",
        "--set model.z_dim=4 --set 'model.g_widths=[8]' --set 'model.d_widths=[8, 8]'",
    ),
    "D's widths": (
        config_of("dcgan"),
        config_of("dcgan", model={"d_widths": [7, 9]}),
        "D",
        "--set 'model.d_widths=[8, 8]'",
    ),
    "D's kind": (config_of("resnet"), config_of("sndcgan", model={"g_widths": [8]}), "D", "model.architecture=resnet"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_initialize_of_other_networks_is_one_line(name: str) -> None:
    parent_config, config, which, setting = MISFITS[name]
    _, parent = parent_of(parent_config)
    state = TrainState.create(config)
    for call in (lambda: initialize.preview(parent, config), lambda: initialize.initialize(state, parent)):
        with pytest.raises(TrainerError, match=f"nothing of {which} fits that of p ") as caught:
            call()
        assert "\n" not in str(caught.value)
        assert setting in str(caught.value)


def test_a_misfit_does_not_ask_for_labels_which_adapt() -> None:
    _, parent = parent_of(config_of("dcgan", classes=CLASSES))
    config = config_of("dcgan", model={"z_dim": 5, "g_widths": [7]})
    with pytest.raises(TrainerError, match="nothing of G fits") as caught:
        initialize.preview(parent, config)
    assert "conditional" not in str(caught.value)


def test_initialize_rejects_freezing_what_is_new() -> None:
    _, parent = parent_of(config_of("dcgan", model={"d_widths": [6, 8]}))
    config = config_of("dcgan", model={"d_widths": [6, 7]}, optim={"d_freeze": 2})
    with pytest.raises(TrainerError, match=r"--freeze-d would keep random weights: D's net\.2\.weight is new"):
        initialize.preview(parent, config)


@pytest.mark.parametrize(
    ("data", "parents", "first"),
    [
        ({"ada_target": 0.6}, 0.55, 0.55),
        ({"ada_target": 0.6}, 0.0, 0.0),
        ({"ada_target": 0.6}, None, 0.0),
        ({"ada_target": 0.6, "augment_p": 0.1}, 0.55, 0.1),
        ({"ada_target": 0.6, "augment_p": 0.0}, 0.55, 0.0),
        ({"augment_p": 0.1}, 0.55, 0.1),
        ({}, 0.55, 1.0),
    ],
)
def test_adaptive_augmentation_starts_where_the_parents_ended(
    data: dict[str, float], parents: float | None, first: float
) -> None:
    config = config_of("dcgan", data={"augment": ["brightness"], **data})
    parent = dataclasses.replace(parent_of(config)[1], augment_p=parents)
    state = TrainState.create(config)
    lines = initialize.initialize(state, parent)
    assert float(state.augment_p) == pytest.approx(first)
    assert any("starts at p = 0.55" in line for line in lines) == (first == 0.55)
    assert initialize.preview(parent, config) == lines


def test_preview_lists_what_initialize_does() -> None:
    parent_config = config_of("dcgan", classes=CLASSES)
    _, parent = parent_of(parent_config)
    config = config_of("dcgan", channels=3, classes=("one", "x"), optim={"d_freeze": 1})
    before = {name: tensor.clone() for name, tensor in parent.G.items()}
    assert initialize.preview(parent, config) == initialize.initialize(TrainState.create(config), parent)
    assert all(torch.equal(parent.G[name], tensor) for name, tensor in before.items())
    unknown = config.model_copy(update={"data": config.data.model_copy(update={"class_names": ()})})
    assert "once the images are loaded" in initialize.preview(parent, unknown)[-1]
