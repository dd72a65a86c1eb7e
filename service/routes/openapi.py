"""What /openapi.json says of routes that read their bodies by hand."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from pydantic import BaseModel

from artifacts.latents import NUM_SEEDS
from service.middleware.auth import Keys, is_open
from service.routes.negotiation import GENERATE_FORMS, INTERPOLATE_FORMS, JSON, MIX_FORMS
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
                "code": {"type": "string", "description": "A stable word for programs"},
                "message": {"type": "string", "description": "One line for people; names the fix"},
                "param": {"type": ["string", "null"], "description": "The field at fault"},
            },
        }
    },
}
_SEED = {"type": ["integer", "null"]}
_LABEL = {"type": "integer"}
_PICTURE = {"type": "string", "description": "A picture of `output_format`, base64", "contentEncoding": "base64"}
_FACTS = {
    "created": {"type": "integer", "description": "Unix time"},
    "model": {"type": "string"},
    "digest": {"type": "string"},
    "output_format": {"type": "string", "enum": ["png", "webp", "jpeg"]},
}
# `format` is what generators of clients look at; `contentMediaType` is OpenAPI 3.1's
BINARY = {"type": "string", "format": "binary"}
TEXT = {"type": "string"}


def _listed(**properties: Any) -> dict[str, Any]:
    required = [key for key in properties if key != "label"]
    return {"type": "array", "items": {"type": "object", "required": required, "properties": properties}}


def _document(**properties: Any) -> dict[str, Any]:
    properties = _FACTS | properties
    return {"type": "object", "required": list(properties), "properties": properties}


GENERATE = dict.fromkeys(GENERATE_FORMS) | {
    JSON: _document(data=_listed(seed=_SEED, label=_LABEL, b64_json=_PICTURE)),
}
INTERPOLATE = dict.fromkeys(INTERPOLATE_FORMS) | {
    JSON: _document(
        fps={"type": "number"},
        loop={"type": "boolean"},
        data=_listed(frame={"type": "integer"}, label=_LABEL, b64_json=_PICTURE),
    ),
}
MIX = dict.fromkeys(MIX_FORMS) | {
    JSON: _document(
        data=_listed(latent={"type": "array", "items": {"type": "number"}}, label=_LABEL, b64_json=_PICTURE),
        terms=_listed(seed=_SEED, weight={"type": "number"}, label=_LABEL, b64_json=_PICTURE),
    ),
}


def _query(schema: type[BaseModel]) -> list[dict[str, Any]]:
    """The fields of a query as parameters; none of them is required, and null is not a word of a URL."""
    parameters = []
    for name, told in schema.model_json_schema()["properties"].items():
        bounds = told.get("anyOf", [told])[0]
        kept = {k: v for k, v in bounds.items() if k not in ("title", "default", "description")}
        description = {"description": told["description"]} if "description" in told else {}
        parameters.append({"name": name, "in": "query", **description, "schema": kept})
    return parameters


IMAGE_PARAMETERS: dict[str, Any] = {
    "parameters": [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
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


_bodies: dict[str, type[BaseModel]] = {}  # of the routes, by name, as `body` was told of them


def body(schema: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route with this JSON body; the schema is added to the document's."""
    _bodies[schema.__name__] = schema
    ref = {"$ref": _REF.format(model=schema.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": ref}}}}


IMAGE_HEADERS = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in (
        ("Atelier-Model", "The model that made the images"),
        ("Atelier-Digest", "Its digest"),
        ("Atelier-Images", "How many images the answer holds"),
        ("Atelier-Seeds", "Their seeds in order, rising runs joined: 0-63,70. Absent for latents, and when too long"),
        ("Atelier-Labels", "Of a conditional model, their class indices: 3,0,7. Absent when too long"),
    )
}
RESOURCE_HEADERS = {
    "ETag": {"description": "Strong", "schema": {"type": "string"}},
    "Cache-Control": {"description": "immutable with ?digest=, else no-cache", "schema": {"type": "string"}},
}
NOT_MODIFIED = {304: {"description": "If-None-Match names the image's ETag", "headers": RESOURCE_HEADERS}}

POSTED = (400, 403, 404, 406, 413, 415, 422, 503)  # what a route that reads a body and chooses a form may refuse with


def answers(
    forms: dict[str, Any],
    *errors: int,
    headers: dict[str, Any] | None = None,
    others: dict[int, Any] | None = None,
) -> dict[str, Any]:
    """Keyword arguments of a route: its forms of a 200, and the statuses that carry the error envelope."""
    error = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}
    ok = {form: {"schema": schema or _default_schema(form)} for form, schema in forms.items()}
    return {
        "response_model": None,
        "response_class": Response,  # FastAPI's default would add JSON to the forms
        "responses": {200: {"description": "The answer", "content": ok, "headers": headers or {}}}
        | {status: {"description": "Refused", "content": error} for status in (*errors, 500)}
        | (others or {}),
    }


def _default_schema(form: str) -> dict[str, Any]:
    """Return the schema of an answer in a form that is described no further."""
    if form == JSON:
        return {}
    return TEXT if form.startswith("text/") else BINARY | {"contentMediaType": form}


def _guard(document: dict[str, Any], keys: bool) -> None:
    """Tell what stands before the routes: the rate limit, and the key if one is asked for."""
    refused = {"description": "Refused", "content": {JSON: {"schema": {"$ref": _REF.format(model="Error")}}}}
    for path, operations in document["paths"].items():
        for operation in operations.values() if not is_open(path) else ():
            operation["responses"]["429"] = refused
            if keys:
                operation["responses"]["401"] = refused
                operation["security"] = [{"key": []}]
    if keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}


def _own_refusals(document: dict[str, Any]) -> None:
    """FastAPI tells of a 422 of its own form wherever a path has a parameter; ours are none but the error envelope."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def install(app: FastAPI) -> None:
    """Make `app.openapi()` hold the schemas that the routes refer to."""

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
            _own_refusals(result)
            _guard(result, bool(Keys(app.state.settings)))
            app.openapi_schema = result
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
