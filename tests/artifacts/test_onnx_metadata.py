import pytest

from artifacts.files import is_lfs_pointer, is_lfs_pointer_file
from artifacts.onnx_metadata import onnx_error_message

SIGNATURE = (
    "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model("
    "onnx::ModelProto&&, const onnxruntime::PathString&, const onnxruntime::IOnnxRuntimeOpSchemaRegistryList*, "
    "const onnxruntime::logging::Logger&, const onnxruntime::ModelOptions&) "
)


def test_onnx_reason_signature_is_left_out() -> None:
    reason = "Unsupported model IR version: 99, max supported IR version: 14"
    assert onnx_error_message(RuntimeError(SIGNATURE + reason + "\n")) == reason


def test_onnx_reason_long_message_keeps_its_end() -> None:
    line = onnx_error_message(RuntimeError("first\n" + "x " * 500 + "the reason"))
    assert len(line) <= 300
    assert line.startswith("first x")
    assert line.endswith("the reason")


@pytest.mark.parametrize("error", [RuntimeError(""), RuntimeError("\n")])
def test_onnx_reason_no_message_returns_the_type(error: Exception) -> None:
    assert onnx_error_message(error) == "RuntimeError"


def test_onnx_reason_lone_surrogate_can_be_encoded() -> None:
    assert onnx_error_message(RuntimeError("a\udcff")).encode() == b"a\\udcff"


def test_lfs_pointer_is_known_by_its_first_line(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "b").write_bytes(b"\x08\x08")
    assert [is_lfs_pointer_file(tmp_path / name) for name in "abc"] == [True, False, False]
    assert not is_lfs_pointer(b"")
