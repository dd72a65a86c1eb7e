import onnx
import pytest

from artifacts.generator_file import ContractError, check, digest
from tests.support import tiny_generator as tiny


def refused(model: onnx.ModelProto) -> str:
    with pytest.raises(ContractError) as error:
        check(model)
    return str(error.value)


def resealed(model: onnx.ModelProto) -> onnx.ModelProto:
    tiny.set_metadata(model, digest=tiny.digest(model))
    return model


def test_check_valid_file_returns_its_metadata() -> None:
    model = tiny.tiny_generator(name="x", num_classes=3, channels=3, **{"evaluation.fid10k": "12.5"})
    metadata = check(model)
    assert (metadata.name, metadata.z_dim, metadata.image_shape) == ("x", 8, (8, 8, 3))
    assert metadata.class_names == ("0", "1", "2")
    assert metadata.evaluation == {"fid10k": 12.5}
    assert metadata.digest == tiny.digest(model) == digest(model)


def test_digest_covers_everything_but_scores() -> None:
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
    ("metadata", "body"),
    [
        ({"format_version": "2"}, "format_version"),
        ({"z_dim": "9"}, r"latents has shape [N, 8] in the graph, [N, 9] in the metadata"),
        ({"z_dim": "-1"}, "z_dim"),
        ({"height": "9"}, "images has shape [N, 8, 8, 1]"),
        ({"channels": "5"}, "channels"),
        ({"z_distribution": "cauchy"}, "z_distribution"),
        ({"class_names": '["a", "b"]'}, "inputs"),
        ({"class_names": "a"}, "class_names"),
        ({"config": "[]"}, "config"),
        ({"config": "[" * 100_000}, "config"),
        ({"config": '{"a": ' * 900 + "1" + "}" * 900}, "config"),
        ({"config": '{"a": Infinity}'}, "config"),
        ({"config": '{"a": NaN}'}, "config"),
        ({"config": '{"a": 1e999}'}, "config"),
        ({"config": r'{"a": "\ud800"}'}, "config"),
        ({"class_names": r'["\ud800", "b"]'}, "class_names"),
        ({"created": "yesterday"}, "created"),
        ({"ema": "yes"}, "ema"),
        ({"name": "../x"}, "name"),
        ({"digest": "00"}, "digest"),
    ],
)
def test_check_metadata_that_contradicts_the_graph_names_it(metadata: dict[str, str], body: str) -> None:
    model = tiny.tiny_generator()
    tiny.set_metadata(model, **metadata)
    assert body in refused(model if "digest" in metadata else resealed(model))


@pytest.mark.parametrize(
    ("stamped", "body"),
    [("1e999", "1e999"), ("NaN", "NaN"), ("-Infinity", "-Infinity"), (r'"\ud800"', r'"\ud800"'), ("3.5", 3.5)],
)
def test_check_score_that_json_cannot_write_becomes_text(stamped: str, body: object) -> None:
    assert check(tiny.tiny_generator(**{"evaluation.x": stamped})).evaluation == {"x": body}


def test_check_missing_metadata_lists_the_keys() -> None:
    model = tiny.tiny_generator()
    del model.metadata_props[:]
    assert "z_dim" in refused(model)


def test_check_wrong_types_and_fixed_batches_raise() -> None:
    model = tiny.tiny_generator()
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    assert "images is float, not uint8" in refused(resealed(model))
    model = tiny.tiny_generator()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    assert "fixed batch of 4" in refused(resealed(model))


def test_check_external_weights_anywhere_raise() -> None:
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


def test_check_optimized_form_is_reported() -> None:
    assert check(tiny.tiny_generator()).optimize == "none"
    assert check(tiny.tiny_generator(optimize="int8")).optimize == "int8"
