"""What /openapi.json says is what programs that are generated from it meet."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tests.support.service.responses import JSON


def content(client: Any, path: str, method: str = "get") -> dict[str, Any]:
    """The media types of a route's 200."""
    return client.get("/openapi.json").json()["paths"][path][method]["responses"]["200"]["content"]


def test_openapi_image_resource_has_image_media_types(client: Any) -> None:
    listed = content(client, "/v1/models/{name}/images/{seed}.{form}")
    assert set(listed) == {"image/png", "image/webp", "image/jpeg"}
    for form, media in listed.items():
        assert media["schema"] == {"type": "string", "format": "binary", "contentMediaType": form}


def test_openapi_metrics_has_the_media_type_of_text(client: Any) -> None:
    assert content(client, "/metrics") == {"text/plain": {"schema": {"type": "string"}}}
    assert client.get("/metrics").headers["Content-Type"].partition(";")[0] == "text/plain"


def test_openapi_get_routes_answer_a_listed_media_type(client: Any) -> None:
    values = {"name": "tiny", "seed": "1", "form": "png"}
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        if "get" in operations:
            answer = client.get(path.format(**values))
            body = answer.headers["Content-Type"].partition(";")[0]
            assert body in operations["get"]["responses"][str(answer.status_code)]["content"], path


def test_openapi_posts_list_json_and_binary_formats(client: Any) -> None:
    listed = content(client, "/v1/generate", "post")
    assert listed["application/json"]["schema"]["type"] == "object"
    assert listed["application/x-npy"]["schema"]["format"] == "binary"
    operation = client.get("/openapi.json").json()["paths"]["/v1/generate"]["post"]
    assert list(operation["requestBody"]["content"]) == ["application/json"]
    assert {"403", "415"} <= set(operation["responses"])


def test_openapi_server_is_where_the_document_is(client: Any) -> None:
    """So a client that is made from it works below a proxy's prefix, too."""
    assert [server["url"] for server in client.get("/openapi.json").json()["servers"]] == ["."]


def test_openapi_enumerations_have_a_type(client: Any) -> None:
    def look(value: Any) -> None:
        if isinstance(value, dict):
            assert "enum" not in value or "type" in value, value
            value = list(value.values())
        for part in value if isinstance(value, list) else ():
            look(part)

    look(client.get("/openapi.json").json())


Serve = Callable[..., TestClient]


def test_openapi_names_bodies_and_errors(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"GenerateRequest", "InterpolateRequest", "Error"} <= set(schemas)
    assert schemas["GenerateRequest"]["additionalProperties"] is False
    body = document["paths"]["/v1/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/GenerateRequest"}


def test_openapi_bounds_are_json_schema_errors_are_ours(client: TestClient) -> None:
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


def test_openapi_requires_a_key_where_the_service_does(serve: Serve, folder: Path) -> None:
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
