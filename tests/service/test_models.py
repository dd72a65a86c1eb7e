from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.models import ContractError, Repository, check, digest, load
from service.settings import Settings
from tests import tiny_generator as tiny


def refused(model: onnx.ModelProto) -> str:
    with pytest.raises(ContractError) as error:
        check(model)
    return str(error.value)


def resealed(model: onnx.ModelProto) -> onnx.ModelProto:
    tiny.set_metadata(model, digest=tiny.digest(model))
    return model


def repository(folder: Path | None, **settings: object) -> Repository:
    result = Repository(Settings(model_dir=folder, **settings))  # type: ignore[arg-type]
    result.load_all()
    return result


def test_a_sound_file_is_read() -> None:
    model = tiny.tiny_generator(name="x", num_classes=3, channels=3, **{"evaluation.fid10k": "12.5"})
    metadata = check(model)
    assert (metadata.name, metadata.z_dim, metadata.image_shape) == ("x", 8, (8, 8, 3))
    assert metadata.class_names == ("0", "1", "2")
    assert metadata.evaluation == {"fid10k": 12.5}
    assert metadata.digest == tiny.digest(model) == digest(model)


def test_stamping_a_score_keeps_the_digest_and_any_other_change_breaks_it() -> None:
    model = tiny.tiny_generator()
    sealed = digest(model)
    tiny.set_metadata(model, **{"evaluation.fid10k": "3"})
    assert digest(model) == sealed
    check(model)
    tiny.set_metadata(model, dataset="another")
    assert "digest" in refused(model)
    weights = tiny.tiny_generator()
    weights.graph.initializer[0].raw_data = bytes(len(weights.graph.initializer[0].raw_data))
    assert "digest" in refused(weights)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"format_version": "2"}, "format_version"),
        ({"z_dim": "9"}, r"latents has shape [N, 8] in the graph, [N, 9] in the metadata"),
        ({"z_dim": "-1"}, "z_dim"),
        ({"height": "9"}, "images has shape [N, 8, 8, 1]"),
        ({"channels": "4"}, "channels"),
        ({"z_distribution": "cauchy"}, "z_distribution"),
        ({"class_names": '["a", "b"]'}, "inputs"),
        ({"class_names": "a"}, "class_names"),
        ({"config": "[]"}, "config"),
        ({"config": "[" * 100_000}, "config"),
        ({"created": "yesterday"}, "created"),
        ({"ema": "yes"}, "ema"),
        ({"name": "../x"}, "name"),
        ({"digest": "00"}, "digest"),
    ],
)
def test_metadata_that_disagrees_is_named(metadata: dict[str, str], told: str) -> None:
    model = tiny.tiny_generator()
    tiny.set_metadata(model, **metadata)
    assert told in refused(model if "digest" in metadata else resealed(model))


def test_missing_metadata_is_listed() -> None:
    model = tiny.tiny_generator()
    del model.metadata_props[:]
    assert "z_dim" in refused(model)


def test_wrong_types_and_fixed_batches_are_refused() -> None:
    model = tiny.tiny_generator()
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    assert "images is float, not uint8" in refused(resealed(model))
    model = tiny.tiny_generator()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    assert "fixed batch of 4" in refused(resealed(model))


def test_external_weights_are_refused_wherever_they_hide(tmp_path: Path) -> None:
    model = tiny.tiny_generator()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    assert "external" in refused(resealed(model))
    model = tiny.tiny_generator()
    hidden = onnx.TensorProto(name="h", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["unused"], value=hidden))
    assert "external" in refused(resealed(model))


def test_a_file_larger_than_the_setting_is_not_read(tmp_path: Path) -> None:
    path = tiny.write_tiny_generator(tmp_path / "x.onnx", size=16)
    with pytest.raises(ContractError, match="MAX_MODEL_BYTES"):
        load(path, 1024, 1, 4)


def test_a_graph_that_breaks_its_promise_is_found_by_running_it(tmp_path: Path) -> None:
    model = tiny.tiny_generator()
    model.graph.output[0].type.tensor_type.shape.dim[1].ClearField("dim_value")
    model.graph.initializer[2].raw_data = np.array([-1, 1, 4, 16], np.int64).tobytes()
    path = tmp_path / "x.onnx"
    path.write_bytes(resealed(model).SerializeToString())
    with pytest.raises(ContractError):
        load(path, 2**20, 1, 4)


def test_one_bad_file_stops_no_other(tmp_path: Path) -> None:
    tiny.write_tiny_generator(tmp_path / "good.onnx", name="good")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "folder.onnx").mkdir()
    found = repository(tmp_path)
    assert [g.metadata.name for g in found.all()] == ["good"]
    assert set(found.failed) == {"junk.onnx", "empty.onnx", "folder.onnx"}
    assert found.not_ready is None


def test_two_files_of_one_name_are_both_refused(tmp_path: Path) -> None:
    for file in ("a", "b"):
        tiny.write_tiny_generator(tmp_path / f"{file}.onnx", name="same")
    tiny.write_tiny_generator(tmp_path / "c.onnx", name="other")
    found = repository(tmp_path)
    assert [g.metadata.name for g in found.all()] == ["other"]
    assert "b.onnx" in found.failed["a.onnx"]


def test_the_default_is_named_or_the_newest(folder: Path) -> None:
    assert repository(folder).default == "tiny"
    assert repository(folder, default_model="boxed").default == "boxed"
    assert "ATELIER_DEFAULT_MODEL" in str(repository(folder, default_model="nope").not_ready)


@pytest.mark.parametrize("make", [lambda p: p / "missing", lambda p: p])
def test_a_named_folder_without_models_is_not_ready(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert str(tmp_path) in str(repository(make(tmp_path)).not_ready)


def test_without_a_folder_models_of_the_working_directory_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_DIR", raising=False)
    assert Repository(Settings()).folder.name == "bundled"
    tiny.write_tiny_generator(tmp_path / "models" / "x.onnx")
    assert Repository(Settings()).folder == Path("models")


def test_an_image_is_bit_identical_in_every_batch(folder: Path) -> None:
    generator = repository(folder).get("tiny")
    latents = np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)
    together = generator.run(latents, None)
    for n in (1, 2, 3, 7, 16):
        for start in range(0, 32 - n, n):
            np.testing.assert_array_equal(generator.run(latents[start : start + n], None), together[start : start + n])
