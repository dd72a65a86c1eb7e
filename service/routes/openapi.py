"""The OpenAPI document: bodies, formats and errors of routes that parse their bodies by hand."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from pydantic import BaseModel

from artifacts.latents import NUM_SEEDS
from service.middleware.auth import ApiKeys, is_open
from service.routes.negotiation import GENERATE_MEDIA_TYPES, INTERPOLATE_MEDIA_TYPES, JSON, MIX_MEDIA_TYPES
from service.routes.schemas import ImageQuery

_REF = "#/components/schemas/{model}"

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "code", "message", "param"],
            "properties": {
                "type": {
                    "type": "string",
                    "enum": ["invalid_request_error", "unavailable_error", "server_error"],
                },
                "code": {"type": "string", "description": "Stable word for programs"},
                "message": {"type": "string", "description": "One line: what is wrong and what to do"},
                "param": {"type": ["string", "null"], "description": "The field that is wrong"},
            },
        }
    },
}
_REFUSED = {"description": "Refused", "content": {JSON: {"schema": {"$ref": _REF.format(model="Error")}}}}
_SEED = {"type": ["integer", "null"]}
_LABEL = {"type": "integer"}
_IMAGE = {"type": "string", "description": "The image in `output_format`, base64", "contentEncoding": "base64"}
_DOCUMENT_FIELDS = {
    "created": {"type": "integer", "description": "Unix time"},
    "model": {"type": "string"},
    "digest": {"type": "string"},
    "output_format": {"type": "string", "enum": ["png", "webp", "jpeg"]},
}
# Client generators read `format`; `contentMediaType` is OpenAPI 3.1.
BINARY = {"type": "string", "format": "binary"}
TEXT = {"type": "string"}


_ANSWER = "The answer. RGBA images keep their transparency; JPEG and GIF, which have none, draw them over white"


def _list_of(**properties: Any) -> dict[str, Any]:
    required = [key for key in properties if key != "label"]
    return {"type": "array", "items": {"type": "object", "required": required, "properties": properties}}


def _document(**properties: Any) -> dict[str, Any]:
    properties = _DOCUMENT_FIELDS | properties
    return {"type": "object", "required": list(properties), "properties": properties}


GENERATE = dict.fromkeys(GENERATE_MEDIA_TYPES) | {
    JSON: _document(data=_list_of(seed=_SEED, label=_LABEL, b64_json=_IMAGE)),
}
INTERPOLATE = dict.fromkeys(INTERPOLATE_MEDIA_TYPES) | {
    JSON: _document(
        fps={"type": "number"},
        loop={"type": "boolean"},
        data=_list_of(frame={"type": "integer"}, label=_LABEL, b64_json=_IMAGE),
    ),
}
MIX = dict.fromkeys(MIX_MEDIA_TYPES) | {
    JSON: _document(
        data=_list_of(latent={"type": "array", "items": {"type": "number"}}, label=_LABEL, b64_json=_IMAGE),
        terms=_list_of(seed=_SEED, weight={"type": "number"}, label=_LABEL, b64_json=_IMAGE),
    ),
}


def _query(schema: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the fields of a query as parameters: none is required, and a URL has no null."""
    parameters = []
    for name, field in schema.model_json_schema()["properties"].items():
        bounds = field.get("anyOf", [field])[0]
        kept = {k: v for k, v in bounds.items() if k not in ("title", "default", "description")}
        description = {"description": field["description"]} if "description" in field else {}
        parameters.append({"name": name, "in": "query", **description, "schema": kept})
    return parameters


_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
MODEL_PARAMETERS: dict[str, Any] = {"parameters": [_NAME]}
IMAGE_PARAMETERS: dict[str, Any] = {
    "parameters": [
        _NAME,
        {
            "name": "seed",
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 0, "maximum": NUM_SEEDS - 1},
        },
        {"name": "form", "in": "path", "required": True, "schema": {"type": "string", "enum": ["png", "webp", "jpg"]}},
        *_query(ImageQuery),
        {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
    ]
}


_bodies: dict[str, type[BaseModel]] = {}  # schemas of the routes' bodies, by name; `request_body` adds to them


def request_body(schema: type[BaseModel]) -> dict[str, Any]:
    """Return `openapi_extra` of a route with this JSON body, whose schema the document will have."""
    _bodies[schema.__name__] = schema
    ref = {"$ref": _REF.format(model=schema.__name__)}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": ref}}}}


IMAGE_HEADERS = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in (
        ("Atelier-Model", "Name of the model"),
        ("Atelier-Digest", "Its digest"),
        ("Atelier-Images", "Number of images in the answer"),
        ("Atelier-Seeds", "Their seeds in order, rising runs joined: 0-63,70. Absent for latents, and if too long"),
        ("Atelier-Labels", "Class indices, if the model is conditional: 3,0,7. Absent if too long"),
    )
}
RESOURCE_HEADERS = {
    "ETag": {"description": "Strong", "schema": {"type": "string"}},
    "Cache-Control": {"description": "immutable with ?digest=, else no-cache", "schema": {"type": "string"}},
}
NOT_MODIFIED = {304: {"description": "If-None-Match names the image's ETag", "headers": RESOURCE_HEADERS}}

POST_ERRORS = (400, 403, 404, 406, 413, 415, 422, 503)  # statuses of a route that reads a body and negotiates a format


def responses(
    media_types: dict[str, Any],
    *errors: int,
    headers: dict[str, Any] | None = None,
    others: dict[int, Any] | None = None,
) -> dict[str, Any]:
    """Return keyword arguments of a route.

    Args:
        media_types: Media types of a 200, each with its schema or None.
        *errors: Statuses that have the error envelope.
        headers: Headers of a 200.
        others: Further responses by status.
    """
    ok = {kind: {"schema": schema or _default_schema(kind)} for kind, schema in media_types.items()}
    return {
        "response_model": None,
        "response_class": Response,  # FastAPI's default would add JSON
        "responses": {200: {"description": _ANSWER, "content": ok, "headers": headers or {}}}
        | dict.fromkeys((*errors, 500), _REFUSED)
        | (others or {}),
    }


def _default_schema(media_type: str) -> dict[str, Any]:
    if media_type == JSON:
        return {}
    return TEXT if media_type.startswith("text/") else BINARY | {"contentMediaType": media_type}


def _add_middleware_errors(document: dict[str, Any], keys: bool) -> None:
    """Add the responses of the rate limit, and of the API key if one is required."""
    for path, operations in document["paths"].items():
        for operation in operations.values() if not is_open(path) else ():
            operation["responses"]["429"] = _REFUSED
            if keys:
                operation["responses"]["401"] = _REFUSED
                operation["security"] = [{"key": []}]
    if keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}


def install(app: FastAPI) -> None:
    """Make `app.openapi()` return a document with the schemas that the routes refer to."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            result = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                servers=[{"url": ".", "description": "Where this document is, so a proxy may add a prefix"}],
            )
            schemas = result.setdefault("components", {}).setdefault("schemas", {})
            schemas["Error"] = ERROR
            for model in _bodies.values():
                schema = model.model_json_schema(ref_template=_REF)
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            _add_middleware_errors(result, bool(ApiKeys(app.state.settings)))
            app.openapi_schema = result
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
