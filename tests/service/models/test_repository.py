import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from artifacts.generator_file import ContractError
from service.models.model_files import read_model_bytes
from service.models.repository import BUNDLED, Repository
from service.models.session import Runtime
from service.settings import Settings
from tests.support import tiny_generator as tiny
from tests.support.service.served_models import load_model


def resealed(model: onnx.ModelProto) -> onnx.ModelProto:
    tiny.set_metadata(model, digest=tiny.digest(model))
    return model


def repository(folder: Path | None, **settings: object) -> Repository:
    result = Repository(Settings(model_dir=folder, **settings))  # type: ignore[arg-type]
    result.load_all()
    return result


def test_read_model_bytes_takes_memory_of_the_file_only(tmp_path: Path) -> None:
    for size, body in ((3 * 2**30, r"larger than ATELIER_MAX_MODEL_BYTES \(1073741824 bytes\)"), (1000, "")):
        path = tmp_path / "x.onnx"
        with path.open("wb") as file:
            file.truncate(size)  # sparse: it takes no room on disk
        tracemalloc.start()
        try:
            if body:
                with pytest.raises(ContractError, match=body):
                    read_model_bytes(path, 2**30)
            else:
                assert read_model_bytes(path, 2**30) == bytes(size)
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


def test_read_model_bytes_beyond_the_limit_raises(tmp_path: Path) -> None:
    path = tiny.write_tiny_generator(tmp_path / "x.onnx", size=16)
    with pytest.raises(ContractError, match="MAX_MODEL_BYTES"):
        load_model(path, 1024, Runtime(1, 4))


def test_load_of_a_graph_with_other_output_shapes_fails(tmp_path: Path) -> None:
    model = tiny.tiny_generator()
    model.graph.output[0].type.tensor_type.shape.dim[1].ClearField("dim_value")
    model.graph.initializer[2].raw_data = np.array([-1, 1, 4, 16], np.int64).tobytes()
    path = tmp_path / "x.onnx"
    path.write_bytes(resealed(model).SerializeToString())
    with pytest.raises(ContractError):
        load_model(path, 2**20, Runtime(1, 4))


def test_load_with_more_classes_than_the_graph_fails(tmp_path: Path) -> None:
    path = tiny.write_tiny_generator(tmp_path / "x.onnx", num_classes=3, class_names='["a", "b", "c", "d"]')
    with pytest.raises(ContractError, match="class_names has 4 classes, but the graph does not run label 3"):
        load_model(path, 2**20, Runtime(1, 4))


def test_load_of_a_bad_file_stops_no_other(tmp_path: Path) -> None:
    tiny.write_tiny_generator(tmp_path / "good.onnx", name="good")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "endless.onnx").symlink_to("/dev/zero")
    found = repository(tmp_path)
    assert [g.metadata.name for g in found.all()] == ["good"]
    assert set(found.failed) == {"junk.onnx", "empty.onnx", "folder.onnx", "pipe.onnx", "endless.onnx"}
    assert found.not_ready is None


def test_load_of_one_name_twice_serves_the_newer(tmp_path: Path) -> None:
    tiny.write_tiny_generator(tmp_path / "a.onnx", name="same", seed=1)
    tiny.write_tiny_generator(tmp_path / "b.onnx", name="same", seed=2, created="2025-01-01T00:00:00+00:00")
    tiny.write_tiny_generator(tmp_path / "c.onnx", name="other")
    found = repository(tmp_path)
    assert [g.path.name for g in found.all()] == ["c.onnx", "b.onnx"]
    assert "its name 'same' is also that of b.onnx" in found.failed["a.onnx"].reason


def test_default_model_is_the_named_or_the_newest(folder: Path) -> None:
    assert repository(folder).default == "tiny"
    assert repository(folder, default_model="boxed").default == "boxed"
    assert "ATELIER_DEFAULT_MODEL" in str(repository(folder, default_model="nope").not_ready)


def test_load_without_onnx_runtime_names_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = repository(folder)
    assert "pip install '.[cpu]' in the checkout" in str(found.not_ready)
    assert found.failed == {}


@pytest.mark.parametrize("make", [lambda p: p / "missing", lambda p: p])
def test_load_of_a_named_folder_without_models_is_not_ready(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert str(tmp_path) in str(repository(make(tmp_path)).not_ready)


def test_load_without_a_folder_prefers_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_DIR", raising=False)
    assert Repository(Settings()).folder.name == "bundled"
    tiny.write_tiny_generator(tmp_path / "models" / "x.onnx")
    assert Repository(Settings()).folder == Path("models")


def test_load_without_any_file_logs_that_the_bundled_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_DIR", raising=False)
    Repository(Settings()).load_all()
    line = (
        f"no generator file (*.onnx) in {tmp_path / 'models'} and no MODEL_DIR: serving the bundled example, the model"
    )
    assert f"{line} bundled-digits" in caplog.messages


def test_load_with_look_alikes_only_logs_them_next_to_the_bundled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_DIR", raising=False)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "photos.pth").touch()
    loaded = repository(None)
    assert [entry["file"] for entry in loaded.describe()["left_out"]] == ["photos.pth"]
    assert "photos.pth is left out: it is not an ONNX file" in caplog.text


def test_load_of_the_bundled_folder_by_name_logs_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert repository(BUNDLED).default == "bundled-digits"
    assert not caplog.records


def test_load_of_a_users_file_logs_nothing_of_the_bundled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_DIR", raising=False)
    tiny.write_tiny_generator(tmp_path / "models" / "x.onnx")
    Repository(Settings()).load_all()
    assert "bundled" not in caplog.text


def test_session_image_is_bit_identical_in_every_batch(folder: Path) -> None:
    generator = repository(folder).get("tiny")
    latents = np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)
    together = generator.run(latents, None)
    for n in (1, 2, 3, 7, 16):
        for start in range(0, 32 - n, n):
            np.testing.assert_array_equal(generator.run(latents[start : start + n], None), together[start : start + n])
