import base64
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from fastapi.routing import APIRoute
from PIL import Image
from starlette.testclient import TestClient

from artifacts.latents import seeds_to_latents
from service.app import ROUTERS
from tests.support.service.responses import JSON, NPY, array, npy, pixels, refusal

Serve = Callable[..., TestClient]


def test_generate_equals_a_plain_session(client: TestClient, folder: Path) -> None:
    session = ort.InferenceSession(str(folder / "a.onnx"), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"latents": seeds_to_latents(range(5, 9), 8)[0]})[0]
    np.testing.assert_array_equal(npy(client, seed=5, n=4), wanted)


def test_generate_seed_and_n_are_consecutive_seeds(client: TestClient) -> None:
    together = npy(client, seed=40, n=5)
    np.testing.assert_array_equal(together, npy(client, seeds=[40, 41, 42, 43, 44]))
    for i in range(5):
        np.testing.assert_array_equal(together[i : i + 1], npy(client, seeds=[40 + i]))


def test_generate_latents_equal_their_seeds(client: TestClient) -> None:
    latents = seeds_to_latents([3, 9], 8)[0].astype(float).tolist()
    np.testing.assert_array_equal(npy(client, latents=latents), npy(client, seeds=[3, 9]))


def test_generate_reports_its_origin_in_headers_and_json(client: TestClient) -> None:
    answer = client.post("/v1/generate", json={"seeds": [0, 1, 2, 9]})
    assert answer.headers["Atelier-Seeds"] == "0-2,9"
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert (body["model"], body["digest"]) == (answer.headers["Atelier-Model"], answer.headers["Atelier-Digest"])
    assert [entry["seed"] for entry in body["data"]] == [0, 1, 2, 9]
    images = npy(client, seeds=[0, 1, 2, 9])
    for entry, image in zip(body["data"], images, strict=True):
        np.testing.assert_array_equal(pixels(base64.b64decode(entry["b64_json"])), image[:, :, 0])


def test_generate_without_a_seed_draws_and_returns_it(client: TestClient) -> None:
    first, second = (client.post("/v1/generate", json={"n": 3}) for _ in range(2))
    seeds = [entry["seed"] for entry in first.json()["data"]]
    assert seeds == list(range(seeds[0], seeds[0] + 3))
    assert first.headers["Atelier-Seeds"] != second.headers["Atelier-Seeds"]
    np.testing.assert_array_equal(
        npy(client, seeds=seeds)[0, :, :, 0], pixels(base64.b64decode(first.json()["data"][0]["b64_json"]))
    )


def test_generate_accepts_integral_floats(client: TestClient) -> None:
    np.testing.assert_array_equal(npy(client, seed=12.0, n=2.0), npy(client, seed=12, n=2))


def test_generate_labels_are_drawn_or_given_and_returned(client: TestClient) -> None:
    answer = client.post("/v1/generate", json={"model": "coloured", "seed": 0, "n": 4})
    drawn = [entry["label"] for entry in answer.json()["data"]]
    assert drawn == seeds_to_latents(range(4), 8, num_classes=3)[1].tolist()  # type: ignore[union-attr]
    assert answer.headers["Atelier-Labels"] == ",".join(map(str, drawn))
    same = npy(client, model="coloured", seed=0, n=4, labels=drawn)
    np.testing.assert_array_equal(same, npy(client, model="coloured", seed=0, n=4))
    one = npy(client, model="coloured", seed=0, n=4, labels=[2])
    np.testing.assert_array_equal(one, npy(client, model="coloured", seed=0, n=4, labels=[2, 2, 2, 2]))


def test_generate_formats_follow_accept(client: TestClient) -> None:
    images = npy(client, model="coloured", seed=0, n=3)
    body = {"model": "coloured", "seed": 0, "n": 3}
    grid = pixels(client.post("/v1/generate", json=body, headers={"Accept": "image/png"}).content)
    assert grid.shape == (16, 16, 3)
    np.testing.assert_array_equal(grid[8:, :8], images[2])
    assert not grid[8:, 8:].any()
    one = client.post("/v1/generate", json={**body, "n": 1}, headers={"Accept": "image/*"})
    np.testing.assert_array_equal(pixels(one.content), images[0])
    packed = client.post("/v1/generate", json=body, headers={"Accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(packed.content)) as file:
        assert file.namelist() == ["seed-0.png", "seed-1.png", "seed-2.png"]
        np.testing.assert_array_equal(pixels(file.read("seed-1.png")), images[1])
    twice = {"seeds": [1, 1]}
    packed = client.post("/v1/generate", json=twice, headers={"Accept": "application/zip"})
    assert len(zipfile.ZipFile(io.BytesIO(packed.content)).namelist()) == 2


def test_interpolate_passes_through_its_keyframes(client: TestClient) -> None:
    latent = seeds_to_latents([8], 8)[0][0].astype(float).tolist()
    body = {"keyframes": [3, {"latent": latent}, {"seed": 5}], "steps": 4}
    frames = array(client.post("/v1/interpolate", json=body, headers=NPY))
    assert len(frames) == 7
    np.testing.assert_array_equal(frames[[0, 3, 6]], npy(client, seeds=[3, 8, 5]))
    looped = array(client.post("/v1/interpolate", json={**body, "loop": True}, headers=NPY))
    np.testing.assert_array_equal(looped[:7], frames)
    assert len(looped) == 9


def test_interpolate_slerps_normal_and_lerps_uniform_latents(client: TestClient) -> None:
    for model, mode in (("tiny", "slerp"), ("boxed", "lerp")):
        body = {"model": model, "keyframes": [0, 1], "steps": 9}
        default, said = (
            array(client.post("/v1/interpolate", json={**body, **more}, headers=NPY)) for more in ({}, {"mode": mode})
        )
        np.testing.assert_array_equal(default, said)


def test_interpolate_formats_follow_accept(client: TestClient) -> None:
    body = {"model": "coloured", "keyframes": [0, 1], "steps": 5, "fps": 10, "loop": True}
    frames = array(client.post("/v1/interpolate", json=body, headers=NPY))
    for form in ("gif", "webp"):
        answer = client.post("/v1/interpolate", json=body, headers={"Accept": f"image/{form}"})
        assert answer.headers["Content-Type"] == f"image/{form}"
        animation: Any = Image.open(io.BytesIO(answer.content))
        assert (animation.n_frames, animation.info["loop"]) == (len(frames), 0)
        animation.seek(2)
        animation.load()
        assert animation.info["duration"] == 100
        if form == "webp":
            np.testing.assert_array_equal(np.asarray(animation.convert("RGB")), frames[2])
    strip = client.post("/v1/interpolate", json=body, headers={"Accept": "image/png"})
    assert pixels(strip.content).shape == (8, 8 * len(frames), 3)
    reported = client.post("/v1/interpolate", json=body).json()
    assert [entry["frame"] for entry in reported["data"]] == list(range(len(frames)))


def test_generate_scale_enlarges_images_not_arrays(client: TestClient) -> None:
    body = {"model": "coloured", "seed": 3, "n": 1}
    plain, large = (
        pixels(client.post("/v1/generate", json={**body, "scale": scale}, headers={"Accept": "image/png"}).content)
        for scale in (1, 3)
    )
    np.testing.assert_array_equal(large, plain.repeat(3, axis=0).repeat(3, axis=1))
    assert array(client.post("/v1/generate", json={**body, "scale": 3}, headers=NPY)).shape == (1, 8, 8, 3)
    gif = client.post("/v1/interpolate", json={"keyframes": [0, 1], "scale": 2}, headers={"Accept": "image/gif"})
    assert Image.open(io.BytesIO(gif.content)).size == (16, 16)


def test_generate_scale_is_bounded(serve: Serve, folder: Path) -> None:
    client = serve(folder, max_scaled_pixels=1000)
    assert client.get("/v1/models").json()["limits"]["max_scaled_pixels"] == 1000
    assert npy(client, seed=0, n=4, scale=2).shape == (4, 8, 8, 1)
    answer = client.post("/v1/generate", json={"seed": 0, "n": 4, "scale": 2})
    assert refusal(answer, 422, "scale_too_large")["param"] == "scale"
    refusal(client.post("/v1/interpolate", json={"keyframes": [0, 1], "scale": 16}), 422, "scale_too_large")


def test_image_resource_has_a_strong_etag(client: TestClient) -> None:
    url = "/v1/models/tiny/images/7.png"
    answer = client.get(url)
    np.testing.assert_array_equal(pixels(answer.content), npy(client, seed=7)[0, :, :, 0])
    etag = answer.headers["ETag"]
    assert etag.startswith('"')
    assert client.get(url).headers["ETag"] == etag
    again = client.get(url, headers={"If-None-Match": f'"x", W/{etag}'})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(answer.content))
    webp = client.get("/v1/models/tiny/images/7.webp?truncation=0.5")
    assert webp.headers["ETag"] != etag
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(webp.content)).convert("L")), npy(client, seed=7, truncation=0.5)[0, :, :, 0]
    )


def test_image_resource_with_digest_is_immutable(client: TestClient) -> None:
    digest = client.get("/v1/models/tiny").json()["digest"]
    url = "/v1/models/tiny/images/7.png"
    assert "immutable" in client.get(f"{url}?digest={digest[:16]}").headers["Cache-Control"]
    assert "no-cache" in client.get(url).headers["Cache-Control"]
    refusal(client.get(f"{url}?digest={'0' * 64}"), 404, "digest_mismatch")


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"n": 0}, 422, "invalid_field", "n"),
        ({"n": -3}, 422, "invalid_field", "n"),
        ({"n": 101}, 422, "too_many_images", "n"),
        ({"seeds": list(range(101))}, 422, "too_many_images", "seeds"),
        ({"n": 10**30}, 422, "too_many_images", "n"),
        ({"seed": -1}, 422, "invalid_field", "seed"),
        ({"seed": 2**53}, 422, "invalid_field", "seed"),
        ({"seed": 2**53 - 1, "n": 2}, 422, "invalid_field", None),
        ({"seed": 1.5}, 422, "invalid_field", "seed"),
        ({"seed": "1"}, 422, "invalid_field", "seed"),
        ({"seed": True}, 422, "invalid_field", "seed"),
        ({"seeds": []}, 422, "invalid_field", "seeds"),
        ({"seeds": [1, None]}, 422, "invalid_field", "seeds.1"),
        ({"seed": 1, "seeds": [1]}, 422, "invalid_field", None),
        ({"seeds": [1, 2], "n": 3}, 422, "invalid_field", None),
        ({"latents": [[0.0] * 7]}, 422, "wrong_latent_width", "latents.0"),
        ({"latents": [[0.0] * 8, [0.0] * 9]}, 422, "wrong_latent_width", "latents.1"),
        ({"latents": [["a"] * 8]}, 422, "invalid_field", "latents.0.0"),
        ({"latents": [[1e39] * 8]}, 422, "invalid_field", "latents.0.0"),
        ({"latents": [[0.0] * 8], "truncation": 1}, 422, "invalid_field", None),
        ({"model": "nope"}, 404, "model_not_found", "model"),
        ({"model": ""}, 422, "invalid_field", "model"),
        ({"sed": 1}, 422, "unknown_field", "sed"),
        ({"truncation": 0}, 422, "invalid_field", "truncation"),
        ({"model": "boxed", "truncation": 1}, 422, "truncation_of_uniform", "truncation"),
        ({"labels": [0]}, 422, "model_has_no_labels", "labels"),
        ({"model": "coloured", "labels": [3]}, 422, "unknown_label", "labels"),
        ({"model": "coloured", "labels": [0, 1], "n": 3}, 422, "wrong_label_count", "labels"),
        ({"model": "coloured", "latents": [[0.0] * 8]}, 422, "labels_required", "labels"),
        ([], 422, "invalid_field", None),
    ],
)
def test_generate_invalid_body_is_rejected(
    client: TestClient, body: Any, status: int, code: str, param: str | None
) -> None:
    assert refusal(client.post("/v1/generate", json=body), status, code)["param"] == param


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_field"),
        ({"keyframes": [1]}, "invalid_field"),
        ({"keyframes": [1, {}]}, "invalid_field"),
        ({"keyframes": [1, {"seed": 1, "latent": [0.0] * 8}]}, "invalid_field"),
        ({"keyframes": [1, "2"]}, "invalid_field"),
        ({"keyframes": [1, [0.0] * 7]}, "wrong_latent_width"),
        ({"keyframes": [1, 2], "steps": 1}, "invalid_field"),
        ({"keyframes": [1, 2], "steps": 51}, "too_many_frames"),
        ({"keyframes": list(range(9)), "steps": 2}, "too_many_keyframes"),
        ({"keyframes": [1, 2], "mode": "cubic"}, "invalid_field"),
        ({"keyframes": [1, 2], "easing": "bounce"}, "invalid_field"),
        ({"keyframes": [1, 2], "fps": 0}, "invalid_field"),
        ({"keyframes": [1, 2], "loop": 1}, "invalid_field"),
        ({"keyframes": [1, 2], "model": "boxed", "truncation": 1}, "truncation_of_uniform"),
        ({"keyframes": [1, [0.0] * 8], "model": "coloured"}, "labels_required"),
    ],
)
def test_interpolate_invalid_body_is_rejected(client: TestClient, body: Any, code: str) -> None:
    refusal(client.post("/v1/interpolate", json=body), 422, code)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b"{", 400, "malformed_json"),
        (b'{"seed": 1} x', 400, "malformed_json"),
        (b"\xff\xfe\x00", 400, "malformed_json"),
        (b'{"model": "\xe4"}', 400, "malformed_json"),
        (b"[" * 50_000, 400, "malformed_json"),
        (b'{"seed": ' + b"9" * 9000 + b"}", 400, "malformed_json"),
        (b'{"seed": NaN}', 422, "invalid_field"),
        (b'{"seed": 1e999}', 422, "invalid_field"),
        (b'{"latents": [[NaN, 0, 0, 0, 0, 0, 0, 0]]}', 422, "invalid_field"),
        (b'{"latents": [[-Infinity, 0, 0, 0, 0, 0, 0, 0]]}', 422, "invalid_field"),
        (b'{"truncation": Infinity}', 422, "invalid_field"),
        (b" " * 100_001, 413, "body_too_large"),
    ],
)
def test_generate_body_not_json_is_rejected(client: TestClient, content: bytes, status: int, code: str) -> None:
    refusal(client.post("/v1/generate", content=content, headers=JSON), status, code)


def test_generate_streamed_body_beyond_the_limit_is_413(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 1000

    refusal(client.post("/v1/generate", content=chunks(), headers=JSON), 413, "body_too_large")


def test_other_rejections_have_the_same_envelope(client: TestClient) -> None:
    refusal(client.get("/nope"), 404, "route_not_found")
    assert client.put("/v1/generate").headers["Allow"] == "POST"
    refusal(client.put("/v1/generate"), 405, "method_not_allowed")
    refusal(
        client.post("/v1/generate", content=b"n=1", headers={"Content-Type": "text/plain"}),
        415,
        "unsupported_media_type",
    )
    unacceptable = client.post("/v1/generate", json={}, headers={"Accept": "image/gif"})
    refusal(unacceptable, 406, "not_acceptable")
    assert unacceptable.headers["Vary"] == "Accept"
    for path in ("/v1/models/", "/v1/status/", "/v1/models/tiny/images/1.png/", "/livez/", "/docs/"):
        answer = client.get(path, headers={"Host": "elsewhere"}, follow_redirects=False)
        refusal(answer, 404, "route_not_found")
        assert "Location" not in answer.headers
    refusal(client.get("/v1/models/nope"), 404, "model_not_found")
    for path in ("x.png", "-1.png", "1.5.png", "01.png", f"{2**53}.png", "9" * 5000 + ".png", "1.png?truncation=x"):
        refusal(client.get(f"/v1/models/tiny/images/{path}"), 422, "invalid_field")
    refusal(client.get("/v1/models/tiny/images/1.bmp"), 404, "route_not_found")
    refusal(client.get("/v1/models/tiny/images/1.png?x=1"), 422, "unknown_field")
    refusal(client.get("/v1/models/tiny/images/1.png?label=1"), 422, "model_has_no_labels")
    error = refusal(client.get("/v1/models/coloured/images/1.png?label=10"), 422, "unknown_label")
    assert error["param"] == "label"


def test_get_routes_answer_head(client: TestClient) -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    fixed = {route.path for route in routes if "GET" in route.methods and "{" not in route.path}
    assert {"/", "/livez", "/readyz", "/v1/models", "/v1/status", "/metrics"} <= fixed
    for path in (*fixed, "/v1/models/tiny", "/v1/models/tiny/images/1.png", "/studio/studio.css"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["Content-Type"] == got.headers["Content-Type"]


def test_error_message_shortens_a_long_number(client: TestClient) -> None:
    for path, body in (
        ("generate", b'{"n": 1%s}' % (b"0" * 400)),
        ("interpolate", b'{"keyframes": [1, 2], "steps": 1%s}' % (b"0" * 400)),
    ):
        answer = client.post(f"/v1/{path}", content=body, headers=JSON)
        assert answer.status_code == 422
        assert len(answer.json()["error"]["message"]) < 200


def test_internal_error_is_500_without_its_reason(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.routes.images.resolve_generate", lambda *_: 1 / 0)
    assert "division" not in refusal(client.post("/v1/generate", json={}), 500, "internal_error")["message"]
