"""Claims about who may ask, how often, and from where."""

import inspect
from pathlib import Path

import pytest

from service.middleware import auth as keys
from service.middleware.auth import ApiKeys
from service.settings import Settings, SettingsError
from tests.support.service.responses import bearer


def test_auth_with_keys_leaves_only_probes_and_studio_open(serve, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("third\n\n  fourth  \n", encoding="utf-8")
    client = serve(folder, api_keys="hush-1, hush-2", api_keys_file=file)
    for path in ("/livez", "/readyz", "/"):
        assert client.get(path).status_code == 200
    for path in ("/v1/models", "/v1/status", "/metrics", "/openapi.json", "/v1/models/tiny/images/1.png"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        for key in ("hush-1", "hush-2", "third", "fourth"):
            assert client.get(path, headers=bearer(key)).status_code == 200
    for wrong in ("", "hush-", "hush-11", "HUSH-1", "hush-1, hush-2", "é"):
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {wrong}".encode()}).status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Basic hush-1"}).status_code == 401
    text = client.get("/metrics", headers=bearer("hush-1")).text
    assert 'atelier_rejected_total{reason="unauthorized"}' in text
    assert "hush" not in text


@pytest.mark.parametrize(("keys", "audience"), [("", "public"), ("k", "private")])
def test_auth_with_keys_images_are_private_others_not_stored(serve, folder: Path, keys: str, audience: str) -> None:
    client = serve(folder, api_keys=keys)
    key = bearer("k") if keys else {}
    path = "/v1/models/tiny/images/1.png"
    digest = client.get("/v1/models/tiny", headers=key).json()["digest"]
    for query, rest in (("", "no-cache"), (f"?digest={digest}", "max-age=31536000, immutable")):
        answer = client.get(path + query, headers=key)
        known = client.get(path + query, headers=key | {"If-None-Match": f"W/{answer.headers['ETag']}"})
        for body in (answer, known, client.head(path + query, headers=key)):
            assert body.headers["Cache-Control"] == f"{audience}, {rest}"
            assert body.headers.get("Vary") == ("Authorization" if keys else None)
        assert known.status_code == 304
    others = ["/v1/models", "/v1/models/tiny", "/v1/status", "/metrics", "/openapi.json", "/livez", "/readyz", "/no"]
    others += [f"{path}?scale=99", "/v1/models/no/images/1.png", "/v1/generate", "/studio/no.js"]
    for other in others:
        assert client.get(other, headers=key).headers["Cache-Control"] == "no-store", other
    assert client.post("/v1/generate", json={"n": 1}, headers=key).headers["Cache-Control"] == "no-store"
    assert client.get("/v1/models").status_code == (401 if keys else 200)


def test_auth_keys_are_compared_in_constant_time() -> None:
    settings = Settings(api_keys="hush")
    assert "hush" not in repr(settings)
    assert "hmac.compare_digest" in inspect.getsource(ApiKeys.authenticate)
    assert len(ApiKeys(settings).authenticate(b"Bearer hush") or "") == 8
    assert ApiKeys(settings).authenticate(b"Bearer hush!") is None
    assert not ApiKeys(Settings())


def test_auth_key_file_missing_or_empty_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n", encoding="utf-8")
    for path in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(SettingsError, match="ATELIER_API_KEYS_FILE") as error:
            ApiKeys(Settings(api_keys_file=path))
        assert "\n" not in str(error.value)


def test_auth_no_path_bypasses_the_keys() -> None:
    for path in ("//", "/livez/", "/studio", "/v1/models", "/studio/../v1/models", "/Livez"):
        assert not keys.is_open(path) or path.startswith("/studio/")


def test_auth_studio_paths_do_not_bypass_the_keys(serve, folder: Path) -> None:
    client = serve(folder, api_keys="k")
    for path in ("/studio/../v1/models", "/studio/%2e%2e/v1/models", "/studio/..%2fv1/models"):
        assert client.get(path).status_code in (401, 404)
