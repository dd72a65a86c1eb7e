import asyncio
import base64
import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from fastapi.routing import APIRoute
from PIL import Image
from starlette.testclient import TestClient

from artifacts.latents import seeds_to_latents
from service import encoding
from service.app import ROUTERS
from service.inference import interpolation as z
from tests.service.conftest import wait_until
from tests.tiny_generator import write_tiny_generator

NPY = {"Accept": "application/x-npy"}
JSON = {"Content-Type": "application/json"}
Serve = Callable[..., TestClient]


@pytest.fixture
def client(serve: Serve, folder: Path) -> TestClient:
    return serve(folder, max_images=100, max_frames=50, max_keyframes=8, max_body_bytes=100_000)


def array(response: Any) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.load(io.BytesIO(response.content))


def npy(client: TestClient, **body: Any) -> np.ndarray:
    return array(client.post("/v1/generate", json=body, headers=NPY))


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def refusal(response: Any, status: int, code: str) -> dict[str, Any]:
    """The envelope of an error, whole and alone."""
    assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"type", "code", "message", "param"}
    assert "Traceback" not in response.text
    assert "\n" not in error["message"]
    return error


def test_images_are_those_of_a_session_of_ones_own(client: TestClient, folder: Path) -> None:
    session = ort.InferenceSession(str(folder / "a.onnx"), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"latents": seeds_to_latents(range(5, 9), 8)[0]})[0]
    np.testing.assert_array_equal(npy(client, seed=5, n=4), wanted)


def test_seed_and_n_are_consecutive_seeds(client: TestClient) -> None:
    together = npy(client, seed=40, n=5)
    np.testing.assert_array_equal(together, npy(client, seeds=[40, 41, 42, 43, 44]))
    for i in range(5):
        np.testing.assert_array_equal(together[i : i + 1], npy(client, seeds=[40 + i]))


def test_latents_are_taken_as_they_are(client: TestClient) -> None:
    latents = seeds_to_latents([3, 9], 8)[0].astype(float).tolist()
    np.testing.assert_array_equal(npy(client, latents=latents), npy(client, seeds=[3, 9]))


def test_the_answer_tells_its_origin_in_headers_and_json(client: TestClient) -> None:
    answer = client.post("/v1/generate", json={"seeds": [0, 1, 2, 9]})
    assert answer.headers["Atelier-Seeds"] == "0-2,9"
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert (body["model"], body["digest"]) == (answer.headers["Atelier-Model"], answer.headers["Atelier-Digest"])
    assert [entry["seed"] for entry in body["data"]] == [0, 1, 2, 9]
    images = npy(client, seeds=[0, 1, 2, 9])
    for entry, image in zip(body["data"], images, strict=True):
        np.testing.assert_array_equal(pixels(base64.b64decode(entry["b64_json"])), image[:, :, 0])


def test_a_seed_is_drawn_and_told(client: TestClient) -> None:
    first, second = (client.post("/v1/generate", json={"n": 3}) for _ in range(2))
    seeds = [entry["seed"] for entry in first.json()["data"]]
    assert seeds == list(range(seeds[0], seeds[0] + 3))
    assert first.headers["Atelier-Seeds"] != second.headers["Atelier-Seeds"]
    np.testing.assert_array_equal(
        npy(client, seeds=seeds)[0, :, :, 0], pixels(base64.b64decode(first.json()["data"][0]["b64_json"]))
    )


def test_integral_floats_are_integers(client: TestClient) -> None:
    np.testing.assert_array_equal(npy(client, seed=12.0, n=2.0), npy(client, seed=12, n=2))


def test_labels_are_drawn_told_and_given(client: TestClient) -> None:
    answer = client.post("/v1/generate", json={"model": "coloured", "seed": 0, "n": 4})
    drawn = [entry["label"] for entry in answer.json()["data"]]
    assert drawn == seeds_to_latents(range(4), 8, num_classes=3)[1].tolist()  # type: ignore[union-attr]
    assert answer.headers["Atelier-Labels"] == ",".join(map(str, drawn))
    same = npy(client, model="coloured", seed=0, n=4, labels=drawn)
    np.testing.assert_array_equal(same, npy(client, model="coloured", seed=0, n=4))
    one = npy(client, model="coloured", seed=0, n=4, labels=[2])
    np.testing.assert_array_equal(one, npy(client, model="coloured", seed=0, n=4, labels=[2, 2, 2, 2]))


def test_forms_of_generate(client: TestClient) -> None:
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


def test_interpolation_passes_through_its_keyframes(client: TestClient) -> None:
    latent = seeds_to_latents([8], 8)[0][0].astype(float).tolist()
    body = {"keyframes": [3, {"latent": latent}, {"seed": 5}], "steps": 4}
    frames = array(client.post("/v1/interpolate", json=body, headers=NPY))
    assert len(frames) == 7
    np.testing.assert_array_equal(frames[[0, 3, 6]], npy(client, seeds=[3, 8, 5]))
    looped = array(client.post("/v1/interpolate", json={**body, "loop": True}, headers=NPY))
    np.testing.assert_array_equal(looped[:7], frames)
    assert len(looped) == 9


def test_normal_latents_are_slerped_and_uniform_ones_lerped(client: TestClient) -> None:
    for model, mode in (("tiny", "slerp"), ("boxed", "lerp")):
        body = {"model": model, "keyframes": [0, 1], "steps": 9}
        default, said = (
            array(client.post("/v1/interpolate", json={**body, **more}, headers=NPY)) for more in ({}, {"mode": mode})
        )
        np.testing.assert_array_equal(default, said)


def test_forms_of_interpolate(client: TestClient) -> None:
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


def test_pictures_are_enlarged_pixel_by_pixel_and_arrays_are_not(client: TestClient) -> None:
    body = {"model": "coloured", "seed": 3, "n": 1}
    plain, large = (
        pixels(client.post("/v1/generate", json={**body, "scale": scale}, headers={"Accept": "image/png"}).content)
        for scale in (1, 3)
    )
    np.testing.assert_array_equal(large, plain.repeat(3, axis=0).repeat(3, axis=1))
    assert array(client.post("/v1/generate", json={**body, "scale": 3}, headers=NPY)).shape == (1, 8, 8, 3)
    gif = client.post("/v1/interpolate", json={"keyframes": [0, 1], "scale": 2}, headers={"Accept": "image/gif"})
    assert Image.open(io.BytesIO(gif.content)).size == (16, 16)


def test_an_enlargement_is_bounded_where_there_is_one(serve: Serve, folder: Path) -> None:
    client = serve(folder, max_scaled_pixels=1000)
    assert client.get("/v1/models").json()["limits"]["max_scaled_pixels"] == 1000
    assert npy(client, seed=0, n=4, scale=2).shape == (4, 8, 8, 1)
    answer = client.post("/v1/generate", json={"seed": 0, "n": 4, "scale": 2})
    assert refusal(answer, 422, "scale_too_large")["param"] == "scale"
    refusal(client.post("/v1/interpolate", json={"keyframes": [0, 1], "scale": 16}), 422, "scale_too_large")


def test_the_image_resource(client: TestClient) -> None:
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


def test_an_image_under_its_digest_may_be_kept_forever(client: TestClient) -> None:
    digest = client.get("/v1/models/tiny").json()["digest"]
    url = "/v1/models/tiny/images/7.png"
    assert "immutable" in client.get(f"{url}?digest={digest[:16]}").headers["Cache-Control"]
    assert "no-cache" in client.get(url).headers["Cache-Control"]
    refusal(client.get(f"{url}?digest={'0' * 64}"), 404, "digest_mismatch")


def test_models_tell_limits_failures_and_the_default(serve: Serve, folder: Path) -> None:
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
def test_bad_generate_bodies(client: TestClient, body: Any, status: int, code: str, param: str | None) -> None:
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
def test_bad_interpolate_bodies(client: TestClient, body: Any, code: str) -> None:
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
def test_bodies_that_are_not_json(client: TestClient, content: bytes, status: int, code: str) -> None:
    refusal(client.post("/v1/generate", content=content, headers=JSON), status, code)


def test_a_streamed_body_is_refused_when_it_passes_the_limit(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 1000

    refusal(client.post("/v1/generate", content=chunks(), headers=JSON), 413, "body_too_large")


def test_other_refusals_have_the_same_envelope(client: TestClient) -> None:
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


def test_what_answers_get_answers_head(client: TestClient) -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    fixed = {route.path for route in routes if "GET" in route.methods and "{" not in route.path}
    assert {"/", "/livez", "/readyz", "/v1/models", "/v1/status", "/metrics"} <= fixed
    for path in (*fixed, "/v1/models/tiny", "/v1/models/tiny/images/1.png", "/studio/studio.css"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["Content-Type"] == got.headers["Content-Type"]


def test_a_message_does_not_repeat_a_number_of_any_length(client: TestClient) -> None:
    for path, body in (
        ("generate", b'{"n": 1%s}' % (b"0" * 400)),
        ("interpolate", b'{"keyframes": [1, 2], "steps": 1%s}' % (b"0" * 400)),
    ):
        answer = client.post(f"/v1/{path}", content=body, headers=JSON)
        assert answer.status_code == 422
        assert len(answer.json()["error"]["message"]) < 200


def test_a_failure_of_ours_is_500_without_its_reason(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.inference.inputs.resolve_generate", lambda *_: 1 / 0)
    assert "division" not in refusal(client.post("/v1/generate", json={}), 500, "internal_error")["message"]


def test_not_ready_says_why(serve: Serve, tmp_path: Path) -> None:
    client = serve(tmp_path / "missing")
    assert "does not exist" in refusal(client.get("/readyz"), 503, "not_ready")["message"]
    answer = client.post("/v1/generate", json={})
    refusal(answer, 503, "not_ready")
    assert int(answer.headers["Retry-After"]) > 0
    assert client.get("/livez").status_code == 200
    assert "missing" in client.get("/v1/models").json()["not_ready"]


def test_metrics_count_by_route_template(client: TestClient) -> None:
    for i in range(20):
        client.get(f"/v1/models/tiny/images/{i}.png")
        client.get(f"/nothing/{i}")
    client.post("/v1/generate", json={"n": 3})
    text = client.get("/metrics").text
    assert (
        'atelier_requests_total{method="GET",route="/v1/models/{name}/images/{seed}.{form}",status="200"} 20.0' in text
    )
    assert 'atelier_requests_total{method="GET",route="unmatched",status="404"} 20.0' in text
    assert 'atelier_images_total{model="tiny"} 23.0' in text
    assert "/nothing/" not in text


def test_openapi_names_bodies_and_errors(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"GenerateRequest", "InterpolateRequest", "Error"} <= set(schemas)
    assert schemas["GenerateRequest"]["additionalProperties"] is False
    body = document["paths"]["/v1/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/GenerateRequest"}


def test_openapi_says_bounds_in_json_schemas_words_and_refusals_in_ours(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    seed = document["components"]["schemas"]["GenerateRequest"]["properties"]["seed"]["anyOf"][0]
    assert seed == {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**53}

    def keys(node: Any) -> Iterator[str]:
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from keys(value)
        if isinstance(node, dict):
            yield from node

    assert not {"ge", "gt", "le", "lt"} & set(keys(document))
    assert "ValidationError" not in str(document)


def test_openapi_asks_for_a_key_where_the_service_does(serve: Serve, folder: Path) -> None:
    open_one = serve(folder).get("/openapi.json").json()
    assert "securitySchemes" not in open_one["components"]
    guarded = serve(folder, api_keys="secret").get("/openapi.json", headers={"Authorization": "Bearer secret"}).json()
    assert guarded["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    generate, livez = guarded["paths"]["/v1/generate"]["post"], guarded["paths"]["/livez"]["get"]
    assert (generate["security"], "401" in generate["responses"]) == ([{"key": []}], True)
    assert "security" not in livez


def test_openapi_documents_what_is_answered(client: TestClient) -> None:
    """Status, content type and Atelier- headers of a request of each kind; and every reference leads somewhere."""
    document = client.get("/openapi.json").json()
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]
    posted = {
        "generate": {"seed": 1},
        "interpolate": {"keyframes": [1, 2], "steps": 2},
        "mix": {"terms": [{"seed": 1}]},
    }
    asked: list[tuple[str, Any]] = []
    for route, body in posted.items():
        path = f"/v1/{route}"
        for form in document["paths"][path]["post"]["responses"]["200"]["content"]:
            asked.append((path, client.post(path, json=body, headers={"Accept": form})))
            assert asked[-1][1].headers["Content-Type"] == form
        for content, headers in (
            (b"\xff", JSON),
            (b"{", JSON),
            (b"{}", {"Content-Type": "text/plain"}),
            (b"{}", {**JSON, "Accept": "text/html"}),
            (b'{"x": 1}', JSON),
            (b"1" * 200_000, JSON),
            (json.dumps({**body, "model": "nope"}).encode(), JSON),
        ):
            asked.append((path, client.post(path, content=content, headers=headers)))
    image = "/v1/models/{name}/images/{seed}.{form}"
    here = image.format(name="tiny", seed=1, form="png")
    etag = client.get(here).headers["ETag"]
    asked += [(image, client.get(here)), (image, client.get(here, headers={"If-None-Match": etag}))]
    for name, seed, suffix in (("tiny", 1, "gif"), ("no", 1, "png"), ("tiny", "x", "png"), ("tiny", 1, "webp")):
        asked.append((image, client.get(image.format(name=name, seed=seed, form=suffix))))
    asked += [(path, client.get(path)) for path in ("/v1/models", "/livez", "/readyz", "/metrics", "/v1/status")]
    asked += [("/v1/models/{name}", client.get(f"/v1/models/{name}")) for name in ("tiny", "nope")]
    assert {answer.status_code for _, answer in asked} == {200, 304, 400, 404, 406, 413, 415, 422}
    for path, answer in asked:
        operation = next(iter(document["paths"][path].values()))
        reported = operation["responses"][str(answer.status_code)]
        assert (answer.headers.get("Content-Type", "").partition(";")[0] or None) in (
            reported.get("content") or {None: 0}
        )
        if answer.status_code == 200:
            given = {k.title() for k in answer.headers if k.startswith("atelier-") or k == "etag"}
            assert given <= {k.title() for k in reported.get("headers", {})}


def test_a_bundled_generator_keeps_the_contract(tmp_path: Path) -> None:
    from service.models.repository import BUNDLED
    from service.models.session import Runtime
    from tests.support.served_models import load_model

    for path in BUNDLED.glob("*.onnx"):
        load_model(path, 2**30, Runtime(1, 4))


def test_rgb_and_wide_models_are_shown(serve: Serve, tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "x.onnx", channels=3, size=20, z_dim=100)
    grid = serve(tmp_path).post("/v1/generate", json={"seed": 0, "n": 5}, headers={"Accept": "image/png"})
    assert pixels(grid.content).shape == (40, 60, 3)


class Held:
    """An encoder that begins and does not end until `open` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.open, self.begun = threading.Event(), threading.Event()
        monkeypatch.setattr("service.encoding.encode_image", self)

    def __call__(self, image: np.ndarray, *_: Any) -> bytes:
        self.begun.set()
        assert self.open.wait(20)
        return b"png"


def test_pictures_without_room_wait_and_small_ones_pass(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(folder, max_encoding_pixels=2048)
    still = encoding.encode_image
    held = Held(monkeypatch)
    body, png = {"seed": 0, "n": 4, "scale": 2}, {"Accept": "image/png"}  # 1024 of 1280 pixels for large answers
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/v1/generate", json=body, headers=png)
        assert held.begun.wait(20)
        second = pool.submit(client.post, "/v1/generate", json=body, headers=png)
        monkeypatch.setattr("service.encoding.encode_image", still)
        answers = [client.get(f"/v1/models/tiny/images/{seed}.png").status_code for seed in range(9)]
        assert answers == [200] * 9
        assert npy(client, seed=0).shape == (1, 8, 8, 1)
        assert not second.done()
        held.open.set()
        assert first.result().content == b"png"
        assert second.result().status_code == 200
    assert 'reason="queue_full"} 0.0' in client.get("/metrics").text


def test_answers_beyond_those_that_may_wait_are_503(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.inference.admission.MAX_WAITING", 0)
    client = serve(folder, max_encoding_pixels=2048)
    held = Held(monkeypatch)
    body, png = {"seed": 0, "n": 4, "scale": 2}, {"Accept": "image/png"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/generate", json=body, headers=png)
        assert held.begun.wait(20)
        answer = client.post("/v1/generate", json=body, headers=png)
        assert "waiting" in refusal(answer, 503, "queue_full")["message"]
        assert int(answer.headers["Retry-After"]) > 0
        assert 'atelier_rejected_total{reason="queue_full"} 1.0' in client.get("/metrics").text
        held.open.set()
        assert first.result().content == b"png"
    assert client.post("/v1/generate", json=body, headers=png).status_code == 200


def test_the_deadline_is_over_encoding_too_and_its_pixels_are_held_to_the_end(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(folder, max_encoding_pixels=1, deadline_s=0.2)
    held = Held(monkeypatch)
    answer = client.post("/v1/generate", json={}, headers={"Accept": "image/png"})
    refusal(answer, 503, "deadline_exceeded")
    refusal(client.post("/v1/generate", json={}), 503, "deadline_exceeded")
    assert 'atelier_rejected_total{reason="deadline"} 2.0' in client.get("/metrics").text
    held.open.set()
    wait_until(lambda: client.post("/v1/generate", json={}).status_code == 200)


@pytest.mark.parametrize("form", ["x-npy", "x-npz", "zip", "json"])
def test_an_answer_of_too_many_pixels_is_422_in_each_form(serve: Serve, folder: Path, form: str) -> None:
    client = serve(folder, max_encoding_pixels=640)
    accept = {"Accept": f"application/{form}"}
    assert client.post("/v1/generate", json={"seed": 0, "n": 10}, headers=accept).status_code == 200
    error = refusal(client.post("/v1/generate", json={"seed": 0, "n": 11}, headers=accept), 422, "answer_too_large")
    assert "request 10 at a time" in error["message"]


def mixed(client: TestClient, terms: list[dict[str, Any]], **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/mix", json={"terms": terms, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_mix_tells_its_latent_and_shows_its_terms(client: TestClient) -> None:
    reported = mixed(client, [{"seed": 3}, {"seed": 5, "weight": 2}])
    terms = seeds_to_latents([3, 5], 8)[0]
    wanted = z.weighted_sum(terms, [1, 2], "normal", True)
    np.testing.assert_array_equal(np.float32(reported["data"][0]["latent"]), wanted)
    images = npy(client, latents=[reported["data"][0]["latent"], *terms.astype(float).tolist()])
    for entry, image in zip([*reported["data"], *reported["terms"]], images, strict=True):
        np.testing.assert_array_equal(pixels(base64.b64decode(entry["b64_json"])), image[:, :, 0])
    assert [(t["seed"], t["weight"]) for t in reported["terms"]] == [(3, 1.0), (5, 2.0)]
    body = {"terms": [{"seed": 3}, {"seed": 5, "weight": 2}]}
    np.testing.assert_array_equal(array(client.post("/v1/mix", json=body, headers=NPY)), images)
    alone = client.post("/v1/mix", json=body, headers={"Accept": "image/png"})
    np.testing.assert_array_equal(pixels(alone.content), images[0, :, :, 0])
    assert alone.headers["Atelier-Images"] == "1"
    packed = client.post("/v1/mix", json=body, headers={"Accept": "application/zip"})
    assert zipfile.ZipFile(io.BytesIO(packed.content)).namelist() == ["mix.png", "term-00.png", "term-01.png"]


def test_a_mix_of_one_term_is_its_image_whatever_the_weight(client: TestClient) -> None:
    for body in ({"terms": [{"seed": 3, "weight": 0.3}]}, {"terms": [{"seed": 3}, {"seed": 3, "weight": 4}]}):
        images = array(client.post("/v1/mix", json=body, headers=NPY))
        np.testing.assert_array_equal(images[0], npy(client, seed=3)[0])


def test_a_mix_has_the_label_given_or_that_of_its_heaviest_term(client: TestClient) -> None:
    terms = [{"seed": 0, "label": 2}, {"seed": 1, "label": 1, "weight": -3}]
    reported = mixed(client, terms, model="coloured")
    assert (reported["data"][0]["label"], [t["label"] for t in reported["terms"]]) == (1, [2, 1])
    reported = mixed(client, [*terms, {"latent": [0.5] * 8}], model="coloured", labels=[0])
    assert (reported["data"][0]["label"], [t["label"] for t in reported["terms"]]) == (0, [2, 1, 0])
    np.testing.assert_array_equal(
        pixels(base64.b64decode(reported["terms"][0]["b64_json"])), npy(client, model="coloured", seed=0, labels=[2])[0]
    )


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"terms": []}, "invalid_field", "terms"),
        ({"terms": [{"seed": 0}] * 65}, "invalid_field", "terms"),
        ({"terms": [{}]}, "invalid_field", "terms.0"),
        ({"terms": [{"seed": 0, "latent": [0.0] * 8}]}, "invalid_field", "terms.0"),
        ({"terms": [{"seed": 0, "weight": 101}]}, "invalid_field", "terms.0.weight"),
        ({"terms": [{"latent": [1.0]}]}, "wrong_latent_width", "terms.0"),
        ({"terms": [{"seed": 0}, {"seed": 0, "weight": -1}]}, "terms_cancel", "terms"),
        ({"terms": [{"seed": 0}, {"seed": 0, "weight": -1}], "model": "boxed"}, "terms_cancel", "terms"),
        ({"terms": [{"seed": 0, "weight": 0}]}, "terms_cancel", "terms"),
        ({"terms": [{"seed": 0, "label": 1}]}, "model_has_no_labels", "terms.0.label"),
        ({"terms": [{"seed": 0}], "labels": [1]}, "model_has_no_labels", "labels"),
        ({"terms": [{"seed": 0}], "labels": [3], "model": "coloured"}, "unknown_label", "labels"),
        ({"terms": [{"seed": 0, "label": 3}], "model": "coloured"}, "unknown_label", "terms.0.label"),
        ({"terms": [{"latent": [0.0] * 8}], "model": "coloured"}, "labels_required", "terms.0.label"),
        ({"terms": [{"latent": [0.0] * 8}], "truncation": 1}, "invalid_field", "truncation"),
        ({"terms": [{"seed": 0}], "truncation": 1, "model": "boxed"}, "truncation_of_uniform", "truncation"),
    ],
)
def test_bad_mixes(client: TestClient, body: Any, code: str, param: str) -> None:
    assert refusal(client.post("/v1/mix", json=body), 422, code)["param"] == param


def test_scores_and_configs_that_json_cannot_write_leave_the_listing_well(serve: Serve, folder: Path) -> None:
    write_tiny_generator(folder / "bad.onnx", name="bad", config='{"a": Infinity}')
    write_tiny_generator(folder / "odd.onnx", name="odd", **{"evaluation.x": "1e999"})
    listing = serve(folder).get("/v1/models").json()
    assert [m["name"] for m in listing["data"]] == ["boxed", "coloured", "odd", "tiny"]
    assert "config" in listing["failed"][0]["reason"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_client_that_hangs_up_is_a_499_and_no_failure(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, whole: bool
) -> None:
    client = serve(folder)
    held = Held(monkeypatch)
    messages = iter([{"type": "http.request", "body": b"{}", "more_body": not whole}])
    sent: list[Any] = []

    async def receive() -> Any:
        if (message := next(messages, None)) is not None:
            return message
        while whole and not held.begun.is_set():
            await asyncio.sleep(0.001)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/generate", "raw_path": b"/v1/generate", "query_string": b"", "root_path": "",
        "headers": [(b"accept", b"image/png"), (b"content-type", b"application/json")],
        "client": ("test", 1), "server": ("test", 80),
    }  # fmt: skip
    assert client.portal
    client.portal.call(client.app, scope, receive, send)
    held.open.set()
    assert [message.get("status") for message in sent] == [499, None]  # to nobody, and nothing in it
    assert not sent[1]["body"]
    assert caplog.text == ""
    text = client.get("/metrics").text
    assert 'atelier_requests_total{method="POST",route="/v1/generate",status="499"} 1.0' in text
    assert 'status="500"' not in text
