"""Every form an answer can take, and what a picture can be asked to look like."""

import base64
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from artifacts.latents import seeds_to_latents
from tests.support.service.responses import array, pixels, refusal
from tests.support.tiny_generator import write_tiny_generator

Serve = Callable[..., TestClient]
NPY, NPZ, ZIP = "application/x-npy", "application/x-npz", "application/zip"
GENERATE = {"model": "coloured", "seed": 0, "n": 3}
INTERPOLATE = {"model": "coloured", "keyframes": [0, 1], "steps": 3}
MIX = {"model": "coloured", "terms": [{"seed": 0}, {"seed": 1, "weight": 0.5}]}


@pytest.fixture
def client(serve: Serve, folder: Path) -> TestClient:
    return serve(folder)


def post(client: TestClient, route: str, body: dict[str, Any], form: str, **more: Any) -> Any:
    return client.post(f"/v1/{route}", json={**body, **more}, headers={"Accept": form})


def opened(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


@pytest.mark.parametrize(("route", "body"), [("generate", GENERATE), ("interpolate", INTERPOLATE), ("mix", MIX)])
def test_generate_every_format_has_the_same_images(client: TestClient, route: str, body: Any) -> None:
    images = array(post(client, route, body, NPY))
    assert len(images) == 3
    for form in ("png", "webp", "jpeg", "gif"):
        if form == "gif" and route != "interpolate":
            refusal(post(client, route, body, "image/gif"), 406, "not_acceptable")
            continue
        answer = post(client, route, body, f"image/{form}")
        assert answer.headers["Content-Type"] == f"image/{form}"
        assert opened(answer).format == form.upper()
    packed = np.load(io.BytesIO(post(client, route, body, NPZ).content), allow_pickle=False)
    np.testing.assert_array_equal(packed["images"], images)
    same = post(client, "generate", {"model": "coloured", "latents": packed["latents"].astype(float).tolist()}, NPY,
                labels=packed["labels"].tolist())  # fmt: skip
    np.testing.assert_array_equal(array(same), images)
    assert str(packed["digest"]) == client.get("/v1/models/coloured").json()["digest"]
    assert str(packed["model"]) == "coloured"
    assert ("seeds" in packed) == (route == "generate")
    for output_format in ("png", "webp"):
        reported = post(client, route, body, "application/json", output_format=output_format).json()
        assert reported["output_format"] == output_format
        entries = reported["data"] + reported.get("terms", [])
        files = zipfile.ZipFile(io.BytesIO(post(client, route, body, ZIP, output_format=output_format).content))
        assert all(name.endswith(f".{output_format}") for name in files.namelist())
        for entry, name, image in zip(entries, files.namelist(), images, strict=True):
            picture = base64.b64decode(entry["b64_json"])
            assert picture == files.read(name)
            assert Image.open(io.BytesIO(picture)).format == output_format.upper()
            np.testing.assert_array_equal(pixels(picture), image)
    photo = post(client, route, body, ZIP, output_format="jpeg")
    assert zipfile.ZipFile(io.BytesIO(photo.content)).namelist()[0].endswith(".jpg")


def test_npz_has_only_the_arrays_that_apply(client: TestClient) -> None:
    latents = seeds_to_latents([3], 8)[0]
    packed = np.load(io.BytesIO(post(client, "generate", {"model": "tiny", "latents": latents.tolist()}, NPZ).content))
    assert set(packed.files) == {"images", "latents", "model", "digest"}
    np.testing.assert_array_equal(packed["latents"], latents)


def test_generate_equal_requests_have_equal_bytes(client: TestClient) -> None:
    """A zip and an npz hold no time of day; JSON tells when it was made, and POST answers are no-store."""
    for form in (NPY, NPZ, ZIP, "image/png", "image/webp", "image/jpeg"):
        assert len({post(client, "generate", GENERATE, form).content for _ in range(2)}) == 1


def test_generate_columns_and_padding_lay_out_the_grid(client: TestClient) -> None:
    images = array(post(client, "generate", GENERATE, NPY))
    for form in ("image/png", "image/webp"):
        grid = pixels(post(client, "generate", GENERATE, form, columns=3, padding=2, scale=2).content)
        assert grid.shape == (16, 3 * 16 + 2 * 2, 3)
        np.testing.assert_array_equal(grid[::2, 18:34:2], images[1])
        assert not grid[:, 16:18].any()
    assert pixels(post(client, "generate", GENERATE, "image/png", columns=1).content).shape == (24, 8, 3)
    assert pixels(post(client, "generate", GENERATE, "image/png", columns=9).content).shape == (8, 24, 3)
    strip = post(client, "interpolate", INTERPOLATE, "image/png", steps=18, columns=6)
    assert pixels(strip.content).shape == (24, 48, 3)
    alone = post(client, "generate", GENERATE, "image/png", n=1, padding=64)
    assert pixels(alone.content).shape == (8, 8, 3)


def test_generate_quality_applies_to_lossy_formats(serve: Serve, tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "large.onnx", channels=3, size=64)
    client, body = serve(tmp_path), {"seed": 0}
    image = array(post(client, "generate", body, NPY))[0].astype(int)
    worse, better = (pixels(post(client, "generate", body, "image/jpeg", quality=q).content) for q in (10, 100))
    assert np.abs(better - image).mean() < 1.5 < np.abs(worse - image).mean()
    default, ninety = (post(client, "generate", body, "image/jpeg", **q).content for q in ({}, {"quality": 90}))
    assert default == ninety
    lossless, lossy = (pixels(post(client, "generate", body, "image/webp", **q).content) for q in ({}, {"quality": 10}))
    np.testing.assert_array_equal(lossless, image)
    assert np.abs(lossy - image).max() > 0
    whole, less = (
        post(client, "interpolate", {"keyframes": [0, 1]}, "image/webp", **q).content for q in ({}, {"quality": 10})
    )
    assert len(less) < len(whole)


def test_generate_image_beyond_its_format_is_422(serve: Serve, tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "large.onnx", size=128)
    client = serve(tmp_path, max_images=600)
    body = {"seed": 0, "n": 129}
    answer = post(client, "generate", body, "image/webp", columns=1)
    assert refusal(answer, 422, "picture_too_large")["param"] == "columns"
    assert post(client, "generate", body, "image/webp").status_code == 200
    answer = post(client, "generate", body, "image/jpeg", columns=600, n=512)
    assert refusal(answer, 422, "picture_too_large")["param"] == "columns"
    assert post(client, "generate", body, "image/png", columns=1).status_code == 200


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"columns": 0}, "columns"),
        ({"padding": 65}, "padding"),
        ({"padding": -1}, "padding"),
        ({"quality": 0}, "quality"),
        ({"quality": 101}, "quality"),
        ({"output_format": "gif"}, "output_format"),
        ({"scale": 17}, "scale"),
    ],
)
def test_generate_output_options_have_bounds(client: TestClient, more: dict[str, Any], param: str) -> None:
    for route, body in (("generate", GENERATE), ("interpolate", INTERPOLATE), ("mix", MIX)):
        assert refusal(post(client, route, body, "image/png", **more), 422, "invalid_field")["param"] == param


def test_image_resource_has_each_format_and_size(client: TestClient) -> None:
    image = array(post(client, "generate", {"model": "tiny", "seed": 7}, NPY))[0, :, :, 0]
    url = "/v1/models/tiny/images/7"
    seen = set()
    for form, query in (("png", ""), ("webp", ""), ("jpg", ""), ("png", "?scale=2"), ("jpg", "?quality=50")):
        answer = client.get(f"{url}.{form}{query}")
        assert answer.headers["Content-Type"] == f"image/{form.replace('jpg', 'jpeg')}"
        seen.add(answer.headers["ETag"])
        assert client.head(f"{url}.{form}{query}").headers["ETag"] == answer.headers["ETag"]
    assert len(seen) == 5
    np.testing.assert_array_equal(pixels(client.get(f"{url}.png?scale=2").content)[::2, ::2], image)
    for query in ("scale=0", "scale=17", "quality=0", "quality=x", "scale=1&scale=2", "columns=2"):
        assert client.get(f"{url}.png?{query}").status_code == 422
    refusal(client.get(f"{url}.gif"), 404, "route_not_found")


def test_image_resource_head_equals_get(serve: Serve, client: TestClient, tmp_path: Path) -> None:
    for path in ("/", "/livez", "/readyz", "/metrics", "/v1/models", "/v1/models/tiny"):
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
    for path in ("/", "/v1/models/tiny/images/1.png"):
        answer = client.post(path)
        assert refusal(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD"
    assert client.head("/v1/models/nope").status_code == 404
    empty = serve(tmp_path / "nothing")
    assert empty.head("/readyz").status_code == 503
    assert empty.head("/livez").status_code == 200
