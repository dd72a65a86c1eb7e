"""The page of the HTTP interface, made of the service's own OpenAPI document."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator

from schema_words import Schema, words
from tables import table

INTRODUCTION = """# HTTP

Made from the service's own OpenAPI document, [openapi.json](../openapi.json), which a running one answers at
`/openapi.json`. What it is like to use, with examples that a test runs, is in [The service over HTTP](../http.md).
Fields that are not listed are refused. What answers GET answers HEAD.
"""


@functools.cache
def document() -> Schema:
    """What /openapi.json answers where no setting is made, whatever this machine's environment says."""
    from service.app import create_app
    from service.settings import Settings

    return create_app(Settings.model_construct()).openapi()


def as_json() -> str:
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def page() -> str:
    """The whole page as Markdown: a heading for each method and path, then the schemas that they share."""
    parts = [INTRODUCTION]
    for path, operations in document()["paths"].items():
        parts += [_operation(f"{method.upper()} {path}", told) for method, told in operations.items()]
    error = schemas()["Error"]["properties"]["error"]
    parts.append(
        '## Errors\n\nEvery refusal is `application/json`, `{"error": {…}}`; the statuses and codes are listed in'
    )
    parts.append(f"[errors](../http.md#errors).\n\n{_fields(error)}")
    return "\n".join(parts)


def _operation(title: str, told: Schema) -> str:
    parts = [f"## {title}\n\n{told['description']}\n"]
    if told.get("parameters"):
        rows = [
            (
                f"`{p['name']}`",
                p["in"],
                words(p["schema"], schemas()),
                _needed(p.get("required", False)),
                p.get("description", ""),
            )
            for p in told["parameters"]
        ]
        parts.append(table(("parameter", "in", "value", "", ""), rows))
    for form, content in told.get("requestBody", {}).get("content", {}).items():
        schema = resolved(content["schema"])
        parts.append(f"**Body**, `{form}`: {schema.get('description', '')}\n\n{_fields(schema)}")
        parts += [f"```json\n{json.dumps(example)}\n```\n" for example in schema.get("examples", ())]
    rows, refused, details = [], [], []
    for status, answer in told["responses"].items():
        forms = answer.get("content", {})
        if any(content["schema"].get("$ref", "").endswith("Error") for content in forms.values()):
            refused.append(status)
            continue
        rows.append(
            (status, ": ".join(filter(None, (answer["description"], ", ".join(f"`{form}`" for form in forms)))))
        )
        rows += [
            (f"{status}, header `{name}`", header["description"]) for name, header in answer.get("headers", {}).items()
        ]
        details += [
            f"**{status}**, `{form}`\n\n{_fields(content['schema'])}"
            for form, content in forms.items()
            if content["schema"].get("properties")
        ]
    rows += [(", ".join(sorted(refused)), "Refused: [errors](#errors)")] if refused else []
    return "\n".join([*parts, "**Answers**\n", table(("status", ""), rows), *details])


def schemas() -> dict[str, Schema]:
    """Those that a `$ref` may name."""
    return document()["components"]["schemas"]


def resolved(schema: Schema) -> Schema:
    """A schema, or the one that its `$ref` names."""
    return schemas()[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _fields(schema: Schema) -> str:
    return table(("field", "value", "default", ""), list(_rows(schema, "")))


def _rows(schema: Schema, inside: str) -> Iterator[tuple[str, ...]]:
    """A row a field; those of objects in it below it, as `terms[].seed`."""
    required = schema.get("required", ())
    for name, told in schema["properties"].items():
        value = resolved(told)
        default = "" if told.get("default") is None else f"`{json.dumps(told['default'])}`"
        yield (
            f"`{inside}{name}`",
            words(told, schemas()),
            _needed(name in required) or default,
            told.get("description", ""),
        )
        items = resolved(value.get("items", {}))
        below, suffix = (items, "[].") if "properties" in items else (value, ".")
        if "properties" in below:
            yield from _rows(below, f"{inside}{name}{suffix}")


def _needed(required: bool) -> str:
    return "required" if required else ""
