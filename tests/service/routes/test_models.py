"""/v1/models lists models, limits and failures."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from starlette.testclient import TestClient

from tests.support.service.responses import pixels
from tests.support.tiny_generator import write_tiny_generator

Serve = Callable[..., TestClient]


def test_models_list_limits_failures_and_the_default(serve: Serve, folder: Path) -> None:
    (folder / "bad.onnx").write_bytes(b"junk")
    client = serve(folder, max_images=5)
    listing = client.get("/v1/models").json()
    assert [m["name"] for m in listing["data"]] == ["boxed", "coloured", "tiny"]
    assert (listing["default"], listing["limits"]["max_images"]) == ("tiny", 5)
    (failed,) = listing["failed"]
    assert (failed["file"], failed["reason"], failed["serving"]) == ("bad.onnx", "not an ONNX file", None)
    assert datetime.fromisoformat(failed["since"]) <= datetime.now(UTC)
    assert client.get("/v1/models/coloured").json()["class_names"] == ["0", "1", "2"]
    assert client.get("/readyz").status_code == 200


def test_generate_of_an_rgb_model_is_one_grid(serve: Serve, tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "x.onnx", channels=3, size=20, z_dim=100)
    grid = serve(tmp_path).post("/v1/generate", json={"seed": 0, "n": 5}, headers={"Accept": "image/png"})
    assert pixels(grid.content).shape == (40, 60, 3)


def test_models_list_survives_values_json_cannot_write(serve: Serve, folder: Path) -> None:
    write_tiny_generator(folder / "bad.onnx", name="bad", config='{"a": Infinity}')
    write_tiny_generator(folder / "odd.onnx", name="odd", **{"evaluation.x": "1e999"})
    listing = serve(folder).get("/v1/models").json()
    assert [m["name"] for m in listing["data"]] == ["boxed", "coloured", "odd", "tiny"]
    assert "config" in listing["failed"][0]["reason"]
