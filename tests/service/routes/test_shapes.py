"""Rectangular and transparent images over HTTP."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from artifacts.images.alpha import over_white
from service.client.decoding import read_images
from tests.support.service.responses import NPY, npy
from tests.support.tiny_generator import write_tiny_generator

Serve = Callable[..., TestClient]


@pytest.fixture
def client(serve: Serve, tmp_path: Path) -> TestClient:
    """Serve one model of RGBA images, 6 x 10 pixels."""
    write_tiny_generator(tmp_path / "shapes/clear.onnx", name="clear", size=(6, 10), channels=4)
    return serve(tmp_path / "shapes")


def raw(client: TestClient, n: int = 3) -> np.ndarray:
    return npy(client, seed=0, n=n)


def opened(answer: Any) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_model_states_height_width_and_channels(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["height"], model["width"], model["channels"]) == (6, 10, 4)


def test_generate_npy_of_rgba_has_four_channels(client: TestClient) -> None:
    assert raw(client).shape == (3, 6, 10, 4)


@pytest.mark.parametrize("form", ["png", "webp"])
def test_image_resource_of_rgba_keeps_alpha(client: TestClient, form: str) -> None:
    picture = opened(client.get(f"/v1/models/clear/images/0.{form}"))
    assert (picture.mode, picture.size) == ("RGBA", (10, 6))
    assert np.array_equal(np.asarray(picture), raw(client)[0])


def test_image_resource_jpg_of_rgba_is_drawn_over_white(client: TestClient) -> None:
    picture = opened(client.get("/v1/models/clear/images/0.jpg?quality=100"))
    assert (picture.mode, picture.size) == ("RGB", (10, 6))
    assert np.abs(np.asarray(picture).astype(int) - over_white(raw(client)[0])).mean() < 3


def test_generate_grid_of_rgba_has_clear_gaps(client: TestClient) -> None:
    body = {"seed": 0, "n": 3, "columns": 2, "padding": 2, "scale": 2}
    picture = np.asarray(opened(client.post("/v1/generate", json=body, headers={"Accept": "image/png"})))
    assert picture.shape == (2 * 12 + 2, 2 * 20 + 2, 4)
    assert (picture[:, 20:22] == 0).all()
    assert (picture[14:, 22:] == 0).all()  # the cell without an image


def test_generate_json_and_interpolate_answer_rgba(client: TestClient) -> None:
    (entry,) = client.post("/v1/generate", json={"seed": 0}).json()["data"]
    assert Image.open(io.BytesIO(base64.b64decode(entry["b64_json"]))).mode == "RGBA"
    body = {"keyframes": [0, 1], "steps": 4}
    for form, size in (("image/gif", (10, 6)), ("image/webp", (10, 6)), ("image/png", (40, 6))):
        assert opened(client.post("/v1/interpolate", json=body, headers={"Accept": form})).size == size


def test_openapi_states_what_draws_rgba_over_white(client: TestClient) -> None:
    answers = client.get("/openapi.json").json()["paths"]["/v1/generate"]["post"]["responses"]
    assert "JPEG and GIF, which have none, draw them over white" in answers["200"]["description"]


def test_client_decodes_rgba(client: TestClient) -> None:
    answer = client.post("/v1/generate", json={"seed": 0, "n": 2}, headers=NPY)
    assert np.array_equal(read_images(answer.content), raw(client, 2))
