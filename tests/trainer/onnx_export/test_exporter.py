from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from artifacts import generator_file
from artifacts.latents import seeds_to_labels, seeds_to_latents
from tests.support.paths import ROOT
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.errors import TrainerError
from trainer.onnx_export import exporter
from trainer.reports import image_grids
from trainer.training import checkpoint, loop
from trainer.training.state import TrainState

Tiny = Callable[..., Config]
BatchesOf = Callable[[Config], Batches]


@pytest.fixture
def payload_of(batches_of: BatchesOf, tmp_path: Path) -> Callable[[Config], dict[str, Any]]:
    def make(config: Config) -> dict[str, Any]:
        state = TrainState.create(config)
        for _ in range(5):
            loop.train_iteration(state, batches_of(config))
        return checkpoint.read(checkpoint.save(state, tmp_path, keep=1))

    return make


PayloadOf = Callable[[Config], dict[str, Any]]

GENERATORS = {
    "grayscale": {},
    "color": {"data": {"channels": 3}},
    "28 px": {"data": {"resolution": 28}, "model": {"g_widths": [8, 8, 4], "d_widths": [4, 4]}},
    "mlp": {"model": {"architecture": "mlp", "g_widths": [16], "d_widths": [16]}},
    "conditional": {"model": {"conditional": True}, "data": {"class_names": ["eins", "zwei", "größer"]}},
    "fastgan": {
        "model": {"architecture": "fastgan", "g_widths": [8, 8, 4, 4], "d_widths": [4, 4], "conditional": True},
        "data": {"resolution": 32, "channels": 3, "class_names": ["a", "b"]},
    },
    "uniform": {"model": {"z_distribution": "uniform", "bias": "none"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", GENERATORS)
def test_export_file_keeps_the_contract(kind: str, tiny: Tiny, payload_of: PayloadOf, tmp_path: Path) -> None:
    config = tiny(**GENERATORS[kind])
    payload = payload_of(config)
    made = exporter.export(payload, tmp_path / "models")
    assert made.path == tmp_path / "models" / "tiny.onnx"
    assert made.max_difference <= 1

    model = onnx.load(made.path)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["digest"] == made.digest == generator_file.digest(model)
    assert (properties["name"], properties["architecture"]) == ("tiny", config.model.architecture)
    assert properties["z_distribution"] == config.model.z_distribution
    assert [properties[key] for key in ("height", "width", "channels")] == [
        str(config.data.resolution),
        str(config.data.resolution),
        str(config.data.channels),
    ]
    assert properties["images_seen"] == "40"
    assert json.loads(properties["config"])["optim"]["batch_size"] == 8
    classes = json.loads(properties["class_names"])
    assert classes == (list(config.data.class_names) if config.model.conditional else [])

    session = onnxruntime.InferenceSession(str(made.path))
    inputs = {value.name: (value.type, value.shape) for value in session.get_inputs()}
    assert inputs.pop("latents") == ("tensor(float)", ["N", config.model.z_dim])
    assert inputs == ({"labels": ("tensor(int64)", ["N"])} if classes else {})
    for n in (1, 2, 7):
        feed = {"latents": seeds_to_latents(range(n), config.model.z_dim, config.model.z_distribution)[0]}
        if classes:
            feed["labels"] = seeds_to_labels(range(n), config.model.z_dim, len(classes))
        (images,) = session.run(["images"], feed)
        assert images.dtype == np.uint8
        assert images.shape == (n, config.data.resolution, config.data.resolution, config.data.channels)
        ours = image_grids.sample(checkpoint.generator_of(payload), range(n), config.model.z_distribution)
        assert np.abs(images.astype(int) - ours.astype(int)).max() <= 1


def test_export_file_has_no_path_of_the_machine(tiny: Tiny, payload_of: PayloadOf, tmp_path: Path) -> None:
    made = exporter.export(payload_of(tiny()), tmp_path / "x.onnx")
    content = made.path.read_bytes()
    assert b"site-packages" not in content
    assert str(ROOT).encode() not in content


def test_digest_covers_all_but_scores(tiny: Tiny, payload_of: PayloadOf, tmp_path: Path) -> None:
    model = onnx.load(exporter.export(payload_of(tiny()), tmp_path).path)
    before = generator_file.digest(model)
    model.metadata_props.add(key="evaluation.fid10k", value="12.3")
    assert generator_file.digest(model) == before
    model.metadata_props[0].value += "x"
    assert generator_file.digest(model) != before
    model.metadata_props[0].value = model.metadata_props[0].value[:-1]
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    assert generator_file.digest(model) != before


@pytest.mark.slow
def test_export_of_a_differing_graph_keeps_the_old_file(
    tiny: Tiny, payload_of: PayloadOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = payload_of(tiny())
    earlier = exporter.export(payload, tmp_path / "models").path.read_bytes()
    monkeypatch.setattr(image_grids, "sample", lambda G, seeds, *_: np.zeros((len(seeds), 8, 8, 1), np.uint8))
    with pytest.raises(TrainerError, match="levels"):
        exporter.export(payload, tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny.onnx"]
    assert (tmp_path / "models" / "tiny.onnx").read_bytes() == earlier


def test_export_to_an_unwritable_path_raises(tiny: Tiny, payload_of: PayloadOf, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(TrainerError, match="could not write"):
        exporter.export(payload_of(tiny()), tmp_path / "file" / "models")


@pytest.mark.slow
def test_export_twice_has_equal_digests(tiny: Tiny, payload_of: PayloadOf, tmp_path: Path) -> None:
    payload = payload_of(tiny())
    first, second = (exporter.export(payload, tmp_path / f"{name}.onnx") for name in "ab")
    assert first.digest == second.digest


def test_export_file_has_no_folders_above_the_images(tiny: Tiny, payload_of: PayloadOf, tmp_path: Path) -> None:
    payload = payload_of(tiny())
    payload["config"]["data"]["source"] = "folder:/home/somebody/cats@train"
    content = exporter.export(payload, tmp_path).path.read_bytes()
    assert b"folder:cats@train" in content
    assert b"somebody" not in content


@pytest.mark.parametrize("name", ["../evil", "a b", "", "ü", "a/b"])
def test_export_under_an_invalid_name_raises(name: str, tiny: Tiny, payload_of: PayloadOf, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="a model's name has"):
        exporter.export(payload_of(tiny()), tmp_path / "models", name=name or "-")
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_export_without_ema_is_g_of_the_last_step(tiny: Tiny, payload_of: PayloadOf, tmp_path: Path) -> None:
    config = tiny(optim={"g_lr": 0.05}, ema={"halflife_kimg": 0.1, "warmup": 0})
    payload = payload_of(config)
    averaged = exporter.export(payload, tmp_path / "averaged.onnx")
    last = exporter.export(payload, tmp_path / "last.onnx", ema=False)
    feed = {"latents": seeds_to_latents(range(8), config.model.z_dim)[0]}
    ema, images = {}, {}
    for made in (averaged, last):
        model = onnx.load(made.path)
        ema[made.path] = {entry.key: entry.value for entry in model.metadata_props}["ema"]
        images[made.path] = onnxruntime.InferenceSession(made.path).run(["images"], feed)[0]
    assert list(ema.values()) == ["true", "false"]
    G = checkpoint.generator_of(payload, ema=False)
    theirs = image_grids.sample(G, range(8), "normal")
    assert np.abs(images[last.path].astype(int) - theirs.astype(int)).max() <= 1
    assert np.abs(images[last.path].astype(int) - images[averaged.path].astype(int)).max() > 1


def test_rename_of_a_file_keeps_graph_and_scores(tiny: Tiny, payload_of: PayloadOf, tmp_path: Path) -> None:
    made = exporter.export(payload_of(tiny()), tmp_path)
    scored = onnx.load(made.path)
    scored.metadata_props.add(key="evaluation.fid10k", value="3.5")
    onnx.save(scored, made.path)
    path, digest = exporter.rename(made.path, made.path, "other")
    renamed = onnx.load(path)
    properties = {entry.key: entry.value for entry in renamed.metadata_props}
    assert path == made.path
    assert renamed.graph == scored.graph
    assert (properties["name"], properties["evaluation.fid10k"]) == ("other", "3.5")
    assert properties["digest"] == digest == generator_file.digest(renamed)
    assert generator_file.check(renamed).name == "other"


@pytest.mark.parametrize("content", [b"no onnx", b""])
def test_rename_of_another_file_raises(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(TrainerError, match=r"not an ONNX file|not a generator file"):
        exporter.rename(tmp_path / "a.onnx", tmp_path / "b.onnx", "b")
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.slow
def test_export_over_a_file_reports_what_it_replaced(tiny: Tiny, payload_of: PayloadOf, tmp_path: Path) -> None:
    payload = payload_of(tiny())
    first = exporter.export(payload, tmp_path / "models")
    assert first.replaced is None
    second = exporter.export(payload, tmp_path / "models")
    assert second.replaced == (
        f"a generator of {tiny().data.source}, made at {payload['created']} (sha256 {first.digest[:12]}…)"
    )
    second.path.write_bytes(b"not an ONNX file")
    assert exporter.export(payload, tmp_path / "models").replaced == "a file that is not a generator file"
