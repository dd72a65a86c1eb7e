"""What /openapi.json says is what programs that are generated from it meet."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def client(serve, folder: Path) -> Any:
    return serve(folder)


def content(client: Any, path: str, method: str = "get") -> dict[str, Any]:
    """The media types of a route's 200."""
    return client.get("/openapi.json").json()["paths"][path][method]["responses"]["200"]["content"]


def test_image_resource_has_the_media_types_of_pictures(client: Any) -> None:
    listed = content(client, "/v1/models/{name}/images/{seed}.{form}")
    assert set(listed) == {"image/png", "image/webp", "image/jpeg"}
    for form, media in listed.items():
        assert media["schema"] == {"type": "string", "format": "binary", "contentMediaType": form}


def test_metrics_has_the_media_type_of_text(client: Any) -> None:
    assert content(client, "/metrics") == {"text/plain": {"schema": {"type": "string"}}}
    assert client.get("/metrics").headers["Content-Type"].partition(";")[0] == "text/plain"


def test_every_get_route_answers_a_listed_media_type(client: Any) -> None:
    values = {"name": "tiny", "seed": "1", "form": "png"}
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        if "get" in operations:
            answer = client.get(path.format(**values))
            body = answer.headers["Content-Type"].partition(";")[0]
            assert body in operations["get"]["responses"][str(answer.status_code)]["content"], path


def test_posts_list_json_and_binary_forms(client: Any) -> None:
    listed = content(client, "/v1/generate", "post")
    assert listed["application/json"]["schema"]["type"] == "object"
    assert listed["application/x-npy"]["schema"]["format"] == "binary"
    operation = client.get("/openapi.json").json()["paths"]["/v1/generate"]["post"]
    assert list(operation["requestBody"]["content"]) == ["application/json"]
    assert {"403", "415"} <= set(operation["responses"])


def test_server_is_where_the_document_is(client: Any) -> None:
    """So a client that is made from it works below a proxy's prefix, too."""
    assert [server["url"] for server in client.get("/openapi.json").json()["servers"]] == ["."]


def test_every_enumeration_has_a_type(client: Any) -> None:
    def look(value: Any) -> None:
        if isinstance(value, dict):
            assert "enum" not in value or "type" in value, value
            value = list(value.values())
        for part in value if isinstance(value, list) else ():
            look(part)

    look(client.get("/openapi.json").json())
