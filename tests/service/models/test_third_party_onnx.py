"""What others export is served as they meant it: the pixels are those of their own floats."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from artifacts.generator_file import ContractError
from service.models.served_model import ServedModel
from service.models.session import Runtime
from tests.support.paths import ROOT
from tests.support.service import onnx_fixtures, torch_exports
from tests.support.service.served_models import load_model


def loaded(path: Path) -> ServedModel:
    return load_model(path, 2**30, Runtime(1, 64))


def latents(n: int, z_dim: int = 100) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, z_dim)).astype(np.float32)


def pixels(floats: np.ndarray) -> np.ndarray:
    """round((x + 1) · 127.5), clipped: float [N, C, H, W] → uint8 [N, H, W, C]."""
    return (
        np.clip(np.round((floats + np.float32(1)) * np.float32(127.5)), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    )


EXPORTS: dict[str, Callable[[Path, Any], Path]] = {
    "traced": torch_exports.export_by_tracing,
    "traced, opset 11": lambda path, G: torch_exports.export_by_tracing(path, G, opset_version=11),
    "traced, opset 9": lambda path, G: torch_exports.export_by_tracing(path, G, opset_version=9),
    "traced, initializers as inputs": lambda path, G: torch_exports.export_by_tracing(
        path, G, keep_initializers_as_inputs=True
    ),
    "traced, batch 16": lambda path, G: torch_exports.export_by_tracing(path, G, batch=16, dynamic=False),
    "traced, batch 1": lambda path, G: torch_exports.export_by_tracing(path, G, batch=1, dynamic=False),
    "dynamo": torch_exports.export_by_dynamo,
}


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=pytest.mark.slow) if how == "dynamo" else how for how in EXPORTS]
)
def test_adapted_dcgan_equals_torch_for_every_export(tmp_path: Path, how: str) -> None:
    G = torch_exports.dcgan()
    generator = loaded(EXPORTS[how](tmp_path / "their-dcgan.onnx", G))
    m = generator.metadata
    assert (m.name, m.z_dim, m.z_distribution, m.image_shape, m.foreign) == (
        "their-dcgan", 100, "normal", (16, 16, 3), True,
    )  # fmt: skip
    assert (tmp_path / "their-dcgan.onnx.data").exists() == (how == "dynamo")
    z = latents(37)
    images = generator.run(z, None)
    with torch.no_grad():
        wanted = pixels(G(torch.from_numpy(z)[:, :, None, None]).numpy())
    assert images.dtype == np.uint8
    assert wanted.std() > 20, "an oracle of grey images would prove nothing"
    assert np.abs(images.astype(int) - wanted.astype(int)).max() <= 1
    assert (images != wanted).mean() < 1e-3


def test_adapted_pixels_equal_the_formula_exactly(tmp_path: Path) -> None:
    path = onnx_fixtures.write_plain(tmp_path / "x.onnx", last="Sin")  # the whole of [-1, 1], ends included
    floats = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"latents": latents(64, 8)})
    np.testing.assert_array_equal(loaded(path).run(latents(64, 8), None), pixels(floats[0]))


@pytest.mark.parametrize(
    "how",
    [
        {"z_rank": 2},
        {"z_rank": 4},
        {"inputs": ("images",), "output": "latents"},  # names that are ours, crossed
        {"inputs": ("foreign/x",)},
        {"told_shape": False},
        {"batch": 5, "z_rank": 4},
        {"batch": 1},
        {"channels": 3, "size": 32, "z_dim": 512},
        {"opset": 11, "ir_version": 3},
    ],
)
def test_adapted_layouts_are_accepted(tmp_path: Path, how: dict[str, Any]) -> None:
    path = onnx_fixtures.write_plain(tmp_path / "x.onnx", **how)
    generator = loaded(path)
    z = latents(13, how.get("z_dim", 8))
    straight = onnx_fixtures.plain(**{**how, "z_rank": 2, "batch": "N", "ir_version": 8})
    session = ort.InferenceSession(straight.SerializeToString(), providers=["CPUExecutionProvider"])
    floats = session.run(None, {session.get_inputs()[0].name: z})[0]
    np.testing.assert_array_equal(generator.run(z, None), pixels(floats))
    assert generator.describe()["batch"] == (how.get("batch") if isinstance(how.get("batch"), int) else None)


def test_adapted_half_and_double_inputs_are_accepted(tmp_path: Path) -> None:
    for kind in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        model = onnx_fixtures.plain(size=4)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = kind
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        path = tmp_path / "x.onnx"
        path.write_bytes(model.SerializeToString())
        exact = loaded(onnx_fixtures.write_plain(tmp_path / "y.onnx", size=4)).run(latents(4, 8), None)
        assert np.abs(loaded(path).run(latents(4, 8), None).astype(int) - exact).max() <= 2


def test_adapted_metadata_has_the_sha256_and_own_keys(tmp_path: Path) -> None:
    model = onnx_fixtures.plain()
    helper.set_model_props(model, {"z_distribution": "uniform", "dataset": "cats"})
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    generator = loaded(path)
    assert generator.metadata.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (generator.metadata.z_distribution, generator.metadata.dataset) == ("uniform", "cats")
    path.rename(tmp_path / "y.onnx")
    again = loaded(tmp_path / "y.onnx")
    assert (again.metadata.name, again.metadata.digest) == ("y", generator.metadata.digest)


def changed(change: Callable[[onnx.ModelProto], object], **how: Any) -> onnx.ModelProto:
    model = onnx_fixtures.plain(**how)
    change(model)
    return model


def noise(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[1] = "noise"
    model.graph.node.insert(0, helper.make_node("RandomUniform", [], ["noise"], shape=[1], low=0.0, high=1.0))


def neighbours(model: onnx.ModelProto) -> None:
    """Like BatchNorm in training mode: what an image is depends on the batch's mean."""
    model.graph.node[3].input[1] = "mean"
    model.graph.node.insert(3, helper.make_node("ReduceMean", ["squashed"], ["mean"], keepdims=0))


WRONG = {
    "two inputs": (onnx_fixtures.plain(inputs=("z", "more")), "one input, its latents; this one has 'z', 'more'"),
    "an image": (onnx_fixtures.plain(z_rank=3), r"its input is \[\?, 8, 1\]"),
    "a width that is free": (
        changed(lambda m: m.graph.input[0].type.tensor_type.shape.dim[1].Clear()),
        r"its input is \[\?, \?\]: the latents' width is not in the graph",
    ),
    "two outputs": (changed(lambda m: m.graph.output.append(m.graph.output[0])), "one output, its images"),
    "no images": (changed(lambda m: m.graph.output[0].type.tensor_type.shape.dim.pop()), r"its output is \[\?, 1, 6\]"),
    "integers in": (
        changed(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT64)),
        "its input is int64, not float",
    ),
    "bytes out": (
        changed(lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", TensorProto.UINT8)),
        "no metadata.*its output is uint8, not float",
    ),
    "five channels": (onnx_fixtures.plain(channels=5), "5 channels; only 1, 3 and 4 are supported"),
    "sigmoid": (onnx_fixtures.plain(last="Sigmoid"), r"are in \[0.*, not \[-1, 1\]: let it end in 2x - 1"),
    "no tanh": (onnx_fixtures.plain(scale=40.0), r"are in \[-40, 40\], not \[-1, 1\]: let it end in tanh"),
    "not a number": (onnx_fixtures.plain(scale=float("nan")), "not all finite"),
    "noise": (changed(noise), "neighbors in the batch, or each time"),
    "training mode": (changed(neighbours), "export the generator in evaluation mode"),
    "an unknown operator": (
        changed(lambda m: setattr(m.graph.node[2], "op_type", "Nope")),
        "ONNX Runtime does not run it",
    ),
    "a huge batch": (onnx_fixtures.plain(batch=100_000), "batch is fixed at 100000"),
    "a word unknown": (
        changed(lambda m: helper.set_model_props(m, {"z_distribution": "cauchy"})),
        "z_distribution is 'cauchy'",
    ),
    "weights elsewhere": (
        changed(lambda m: setattr(m.graph.initializer[0], "data_location", TensorProto.EXTERNAL)),
        "external",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_adapted_contradiction_is_named(tmp_path: Path, what: str) -> None:
    model, body = WRONG[what]
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ContractError, match=body) as error:
        loaded(tmp_path / "x.onnx")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "body"),
    [
        ("location", "/etc/passwd", "are in '/etc/passwd'; only 'x.onnx.data', next to it, is read"),
        ("location", "../x.onnx.data", "only 'x.onnx.data'"),
        ("offset", "999999", "end past that"),
        ("offset", "-1", "end past that"),
        ("length", "-1", "end past that"),
        ("length", "999999", "end past that"),
        ("offset", "many", "not a number"),
        ("length", "7", "ONNX Runtime does not run it"),
    ],
)
def test_external_weights_are_read_from_the_folder_only(tmp_path: Path, key: str, value: str, body: str) -> None:
    path = tmp_path / "x.onnx"
    onnx.save(onnx_fixtures.plain(), path, save_as_external_data=True, location="x.onnx.data", size_threshold=0)
    whole = loaded(onnx_fixtures.write_plain(tmp_path / "y.onnx")).run(latents(4, 8), None)
    np.testing.assert_array_equal(loaded(path).run(latents(4, 8), None), whole)
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    kept = {entry.key: entry.value for entry in tensor.external_data if entry.key != key} | {key: value}
    del tensor.external_data[:]
    for k, v in kept.items():
        tensor.external_data.add(key=k, value=v)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ContractError, match=body):
        loaded(path)


def test_external_weights_count_toward_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    model = onnx_fixtures.plain(size=16)
    onnx.save(model, path, save_as_external_data=True, location="x.onnx.data", size_threshold=1000)
    sizes = path.stat().st_size, (tmp_path / "x.onnx.data").stat().st_size
    assert max(sizes) == sizes[1] == 8 * 16 * 16 * 4
    load_model(path, sum(sizes), Runtime(1, 64))
    again = onnx.load(path, load_external_data=False)
    for i in range(100):
        again.graph.initializer.add().CopyFrom(again.graph.initializer[0])
        again.graph.initializer[-1].name = f"bomb{i}"
    path.write_bytes(again.SerializeToString())
    for limit in (sizes[1] + 100, 50 * sizes[1]):
        with pytest.raises(ContractError, match=f"larger than ATELIER_MAX_MODEL_BYTES .{limit} bytes"):
            load_model(path, limit, Runtime(1, 64))
    os.truncate(tmp_path / "x.onnx.data", 100)
    with pytest.raises(ContractError, match="has 100 bytes; its external"):
        loaded(path)
    (tmp_path / "x.onnx.data").unlink()
    os.mkfifo(tmp_path / "x.onnx.data")
    with pytest.raises(ContractError, match="not a file"):
        loaded(path)


def test_adapted_traced_batch_size_is_found(tmp_path: Path) -> None:
    """The input says N, a Reshape inside says 16."""
    model = onnx_fixtures.plain()
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.array([16, 1, 6, 6]), "chw"))
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ContractError, match="ONNX Runtime does not run it"):
        loaded(tmp_path / "x.onnx")


def test_adapted_file_with_an_invalid_name_says_rename(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="rename 'my cats'"):
        loaded(onnx_fixtures.write_plain(tmp_path / "my cats.onnx"))


def test_serving_page_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import re
    import warnings

    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in blocks:
            exec(block, {})
    m = loaded(tmp_path / "theirs.onnx").metadata
    assert (m.z_dim, m.image_shape, m.z_distribution, m.dataset) == (100, (16, 16, 3), "uniform", "cats")
