"""/v1/mix: weighted sums of latents."""

import base64
import io
import zipfile
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from artifacts.latents import seeds_to_latents
from service.inference import interpolation as z
from tests.support.service.responses import NPY, array, npy, pixels, refusal


def mixed(client: TestClient, terms: list[dict[str, Any]], **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/mix", json={"terms": terms, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_mix_returns_its_latent_and_terms(client: TestClient) -> None:
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


def test_mix_of_one_term_is_its_image(client: TestClient) -> None:
    for body in ({"terms": [{"seed": 3, "weight": 0.3}]}, {"terms": [{"seed": 3}, {"seed": 3, "weight": 4}]}):
        images = array(client.post("/v1/mix", json=body, headers=NPY))
        np.testing.assert_array_equal(images[0], npy(client, seed=3)[0])


def test_mix_label_is_given_or_of_the_heaviest_term(client: TestClient) -> None:
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
def test_mix_invalid_body_is_rejected(client: TestClient, body: Any, code: str, param: str) -> None:
    assert refusal(client.post("/v1/mix", json=body), 422, code)["param"] == param
