"""The weights of a generator file: read exactly where the export keeps them, else as the same function."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from artifacts.latents import seeds_to_latents
from tests.support.paths import ROOT
from tests.support.trainer.generators import random_generator
from tests.support.trainer.parents import CLASSES, config_of
from trainer import networks
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.finetune.parent import read_parent
from trainer.networks import Generator
from trainer.onnx_export import benchmark, exporter
from trainer.reports import image_grids
from trainer.training.state import TrainState

SEEDS = range(5_000_000, 5_000_064)  # not those that check or calibrate what was read
CASES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "mlp": ("mlp", (), {}),
    "mlp without biases": ("mlp", (), {"bias": "none"}),
    "dcgan": ("dcgan", (), {}),
    "dcgan with all biases": ("dcgan", (), {"bias": "all"}),
    "dcgan without biases": ("dcgan", (), {"bias": "none"}),
    "dcgan with a last 3x3": ("dcgan", (), {"g_widths": [8, 6, 5]}),
    "dcgan by class": ("dcgan", CLASSES, {"bias": "all", "g_widths": [8, 6, 5]}),
    "sndcgan, uniform z": ("sndcgan", (), {"z_distribution": "uniform"}),
    "resnet": ("resnet", (), {}),
    "resnet by class": ("resnet", CLASSES, {"bias": "all"}),
    "fastgan": ("fastgan", (), {"g_widths": [8, 6, 5]}),
    "fastgan by class": ("fastgan", CLASSES, {"g_widths": [8, 6, 5], "bias": "all"}),
}


def made(name: str) -> tuple[Config, Generator]:
    """A config and its generator, random everywhere, with the running statistics of that generator's features."""
    architecture, classes, model = CASES[name]
    config = config_of(architecture, resolution=16, channels=3, classes=classes, model=model)
    G = random_generator(config).train()
    for norm in G.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = None  # a mean over all batches
            norm.reset_running_stats()
    with torch.no_grad():
        for first in range(0, 4096, 256):
            latents, labels = drawn(config, range(first, first + 256))
            G(latents, labels)
    return config, G.eval()


def drawn(config: Config, seeds: range) -> tuple[torch.Tensor, torch.Tensor | None]:
    model = config.model
    latents, labels = seeds_to_latents(seeds, model.z_dim, model.z_distribution, num_classes=config.num_classes)
    return torch.from_numpy(latents), None if labels is None else torch.from_numpy(labels)


def write_file(config: Config, G: Generator, path: Path) -> Path:
    content = {"G_ema": G.state_dict(), "counters": {"images_seen": 7000}, "created": "2026-01-01T00:00:00Z"}
    return exporter.export(content | {"config": config.model_dump(mode="json")}, path).path


def read_back(path: Path) -> Generator:
    parent = read_parent(path)
    G = networks.build(parent.config)[0]
    G.load_state_dict(parent.G)
    return G.eval()


@pytest.mark.parametrize("name", CASES)
def test_read_weights_give_the_images_of_the_file(name: str, tmp_path: Path) -> None:
    config, G = made(name)
    path = write_file(config, G, tmp_path / "x.onnx")
    feed = exporter.make_feed(SEEDS, G.z_dim, config.model.z_distribution, G.classes)
    (theirs,) = benchmark.make_session(onnx.load(path)).run(["images"], feed)
    read = read_back(path)
    ours = image_grids.sample(read, SEEDS, config.model.z_distribution)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert theirs.std() > 30

    latents, labels = drawn(config, SEEDS)
    with torch.no_grad():
        as_trained, before = (copy.deepcopy(net).train()(latents, labels) for net in (read, G))
    off = (as_trained - before).abs().mean().item()
    assert off < (1e-4 if labels is not None or config.model.architecture == "mlp" else 0.02)


@pytest.mark.parametrize("name", ["mlp", "dcgan by class", "resnet"])
def test_read_weights_that_no_norm_follows_are_exact(name: str, tmp_path: Path) -> None:
    config, G = made(name)
    before, after = G.state_dict(), read_back(write_file(config, G, tmp_path / "x.onnx")).state_dict()
    kept = {"mlp": tuple(before), "dcgan by class": ("net.0.weight", "net.1", "net.9"), "resnet": ("net.0", "net.5")}
    for name_ in before:
        if name_.startswith(kept[name]) or name_.endswith(("scale.weight", "shift.weight")):
            assert torch.equal(after[name_], before[name_]) or name_.endswith("num_batches_tracked"), name_


@pytest.mark.parametrize("path", ["tests/fixtures/first_release/small.onnx", "service/bundled/digits.onnx"])
def test_read_weights_of_earlier_files(path: str) -> None:
    parent = read_parent(ROOT / path)
    assert parent.D is None
    assert parent.record["images_seen"] > 0
    G = read_back(ROOT / path)
    feed = exporter.make_feed(SEEDS, G.z_dim, "normal", G.classes)
    (theirs,) = benchmark.make_session(onnx.load(ROOT / path)).run(["images"], feed)
    assert np.abs(image_grids.sample(G, SEEDS, "normal").astype(int) - theirs).max() <= 1


def changed(path: Path, output: Path, **changes: Any) -> Path:
    """The file with other weights or metadata, sealed again."""
    model = onnx.load(path)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    properties.pop("digest")
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(changes[tensor.name](value), tensor.name))
    if "node" in changes:
        changes["node"](model.graph)
    exporter.set_metadata(model, properties | changes.get("metadata", {}))
    onnx.save(model, output)
    return output


def leaky(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.op_type == "Relu":
            node.CopyFrom(helper.make_node("LeakyRelu", node.input, node.output, alpha=0.3))


def without_first_layer(graph: onnx.GraphProto) -> None:
    graph.node[0].CopyFrom(helper.make_node("Tanh", [graph.node[0].input[0]], graph.node[0].output))


def with_a_wrong_reshape(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array([7], np.int64), "wrong"))
    graph.node.append(helper.make_node("Reshape", [graph.initializer[0].name, "wrong"], ["unused"]))


def test_read_weights_of_another_graph_is_one_line(tmp_path: Path) -> None:
    path = write_file(*made("mlp"), tmp_path / "x.onnx")
    config = json.loads({entry.key: entry.value for entry in onnx.load(path).metadata_props}["config"])
    config["model"]["g_widths"] = [8, 9, 9]
    other = json.dumps(config)
    for reason, changes in {
        "differs from torch": {"node": leaky},
        "cannot reshape array": {"node": with_a_wrong_reshape},
        "it has 2 layers with weights, the config's network 3": {"node": without_first_layer},
        "the config's network 4": {"metadata": {"config": other}},
    }.items():
        with pytest.raises(TrainerError, match=reason) as caught:
            read_parent(changed(path, tmp_path / "y.onnx", **changes))
        assert "give the run or a checkpoint instead" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_read_parent_of_an_altered_or_optimized_file_is_one_line(tmp_path: Path) -> None:
    path = write_file(*made("mlp"), tmp_path / "x.onnx")
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    onnx.save(model, tmp_path / "altered.onnx")
    with pytest.raises(TrainerError, match="its digest does not match"):
        read_parent(tmp_path / "altered.onnx")
    with pytest.raises(TrainerError, match="is int8; give the float32 file"):
        read_parent(changed(path, tmp_path / "y.onnx", metadata={"optimize": "int8"}))
    with pytest.raises(TrainerError, match="has a config that this version does not read"):
        read_parent(changed(path, tmp_path / "y.onnx", metadata={"config": '{"name": "x", "more": 1}'}))
    with pytest.raises(TrainerError, match="not a generator file that can be read: metadata z_dim"):
        read_parent(changed(path, tmp_path / "y.onnx", metadata={"z_dim": "0"}))


def test_run_from_a_generator_file_begins_with_its_images(tmp_path: Path) -> None:
    from trainer.finetune import initialize

    config, G = made("dcgan")
    path = write_file(config, G, tmp_path / "x.onnx")
    state = TrainState.create(config)
    lines = initialize.initialize(state, read_parent(path))
    difference = image_grids.sample(state.G_ema, SEEDS, "normal").astype(int) - image_grids.sample(G, SEEDS, "normal")
    assert np.abs(difference).max() <= 1
    assert "D: all of it is new: a generator file has none" in lines
    with pytest.raises(TrainerError, match=r"keeps weights of the parent's D, and x\.onnx has none"):
        initialize.preview(read_parent(path), config_of("dcgan", resolution=16, channels=3, optim={"d_freeze": 1}))
