"""Read and check responses of the service."""

import io
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

NPY = {"Accept": "application/x-npy"}
JSON = {"Content-Type": "application/json"}


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


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
