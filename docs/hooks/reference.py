"""The reference pages that are made from the code: command line, HTTP, settings."""

from __future__ import annotations

import functools
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import typer
from typer.cli import get_docs_for_click

Schema = dict[str, Any]

CLI = """# Command line

Made from the commands' code. `python -m trainer` is the same as `trainer`. Exit codes: 0 success, 1 a check or
threshold failed, 2 a user error (one line on stderr), 130 interrupted.
"""
HTTP = """# HTTP schema (generated)

Made from the service's [openapi.json](../openapi.json), which a running service returns at `/openapi.json`.
[HTTP API](http-api.md) explains it with examples. Unknown fields are rejected. GET routes also answer
HEAD.
"""
SETTINGS = """# Settings

Made from the code.

## The service

`python -m service settings` lists them with their values ([how they are read](../operations/operations.md#settings)).

{service}
## Other environment variables

{others}
## A training's config

`trainer train --set section.field=value`, repeated as needed; `--dry-run` prints the resulting config. Invalid,
unknown or contradicting values are rejected before training starts. Defaults apply where a preset sets nothing.

{config}"""
EXAMPLES = re.compile(r"\x08\nExamples:\n((?: .*\n)+)")  # written by artifacts.typer_group.examples
OTHERS = {  # read by their names in the code, which a test looks for
    "DATA_ROOT": "Folder of downloaded datasets: `--data-root` of `trainer` and `evaluation`",
    "PORT": "Port of `python -m service serve`; 3000 if not set",
    "ATELIER_CACHE": "Decoded images and reference statistics; `~/.cache/gan-atelier` if not set",
    "ATELIER_WEIGHTS": "Inception's downloaded weights; `~/.cache/gan-atelier/weights` if not set",
    "ATELIER_OFFLINE": "`1` prevents downloads of datasets and weights",
    "ATELIER_API_KEY": "The key that `evaluation` sends to a service",
    "TRAINER_TIMEOUT_S": "Seconds after which an unresponsive process ends a distributed training; 600 if not set",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar within a cell does not end the cell."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def cli() -> str:
    """Return the page of all commands."""
    from evaluation.cli import app as evaluation
    from service.cli import app as service
    from trainer.cli import app as trainer

    parts = [CLI]
    for name, app in (("trainer", trainer), ("evaluation", evaluation), ("python -m service", service)):
        command = typer.main.get_command(app)
        docs = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name=name), name=name)
        parts.append(EXAMPLES.sub(_examples_block, f"\n{docs}".replace("\n#", "\n##")))
    return "\n".join(parts)


def _examples_block(match: re.Match[str]) -> str:
    """Return the examples at the end of a command's help as a code block."""
    return f"**Examples**:\n\n```sh\n{textwrap.dedent(match[1])}```\n"


@functools.cache
def openapi() -> Schema:
    """Return /openapi.json of a service without settings, whatever this machine's environment."""
    from service.app import create_app
    from service.settings import Settings

    return create_app(Settings.model_construct()).openapi()


def openapi_json() -> str:
    return json.dumps(openapi(), indent=2, ensure_ascii=False) + "\n"


def resolved(schema: Schema) -> Schema:
    """Return a schema, or the one that its `$ref` names."""
    return openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def http() -> str:
    """Return the page of all HTTP operations."""
    parts = [HTTP]
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            parts.append(f"## {method.upper()} {path}\n\n{operation['description']}\n")
            if parameters := operation.get("parameters"):
                rows = [(p["name"], p["schema"], p.get("required"), p.get("description", "")) for p in parameters]
                parts.append(fields_table(rows))
            for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
                schema = resolved(content["schema"])
                parts.append(f"**Body**, `{media_type}`: {schema.get('description', '')}\n")
                parts.append(fields_table(fields(schema)))
                parts += [f"```json\n{json.dumps(example)}\n```\n" for example in schema.get("examples", ())]
            parts.append("**Responses**\n\n" + table(("status", ""), responses(operation["responses"])))
    error = fields_table(fields(resolved({"$ref": "Error"})["properties"]["error"]))
    parts.append(f'## Errors\n\nEvery error is JSON, `{{"error": {{…}}}}` ([codes](http-api.md#errors)).\n\n{error}')
    return "\n".join(parts)


def responses(of: Schema) -> Iterator[tuple[str, str]]:
    errors = []
    for status, response in of.items():
        content = response.get("content", {})
        if any(one["schema"].get("$ref", "").endswith("Error") for one in content.values()):
            errors.append(status)
            continue
        yield status, ": ".join(filter(None, (response["description"], ", ".join(f"`{name}`" for name in content))))
        yield from ((f"{status}, `{name}`", one["description"]) for name, one in response.get("headers", {}).items())
    if errors:
        yield ", ".join(sorted(errors)), "[Errors](#errors)"


def fields(schema: Schema, prefix: str = "") -> Iterator[tuple[str, Schema, bool, str]]:
    """Yield (name, schema, required, description) of each field; those of nested objects as `terms[].seed`."""
    for name, field in schema["properties"].items():
        yield f"{prefix}{name}", field, name in schema.get("required", ()), field.get("description", "")
        value = resolved(field)
        nested = resolved(value.get("items", {})) if "items" in value else value
        if "properties" in nested:
            yield from fields(nested, f"{prefix}{name}{'[]' if 'items' in value else ''}.")


def fields_table(rows: Iterable[tuple[str, Schema, bool | None, str]]) -> str:
    cells = []
    for name, schema, required, description in rows:
        default = "" if schema.get("default") is None else f"`{json.dumps(schema['default'])}`"
        cells.append((f"`{name}`", words(schema), "required" if required else default, description))
    return table(("field", "value", "default", "description"), cells)


def words(schema: Schema) -> str:
    """Describe a JSON schema: `integer, ≥ 1, ≤ 16`; `list of number`; `png or webp`."""
    schema = resolved(schema)
    if "anyOf" in schema:
        return " or ".join(words(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kinds = schema.get("type", "anything")
    kind = " or ".join(kinds) if isinstance(kinds, list) else kinds
    if kind == "array":
        kind = "list of " + " and ".join(map(words, schema.get("prefixItems", [schema.get("items", {})])))
    # Pydantic writes `ge` and `lt` in place of JSON Schema's words behind some validators.
    signs = {"minimum": "≥", "ge": "≥", "exclusiveMinimum": ">", "maximum": "≤", "le": "≤", "exclusiveMaximum": "<"}
    signs |= {"gt": ">", "lt": "<"}
    found = [
        kind,
        *(f"{sign}\N{NO-BREAK SPACE}{number(schema[name])}" for name, sign in signs.items() if name in schema),
    ]
    for of, unit in (("Items", "items"), ("Length", "characters")):
        low, high = schema.get(f"min{of}"), schema.get(f"max{of}")
        if (low or high) and "prefixItems" not in schema:
            found.append(f"{low or 0} {'or more' if high is None else f'to {high:,}'} {unit}")
    return ", ".join([*found, *([f"`{schema['pattern']}`"] if "pattern" in schema else [])])


def number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def settings() -> str:
    """Return the page of the service's settings and the fields of a training's config."""
    from service.settings import markdown_table
    from trainer.config.schema import Config

    schema, parts = Config.model_json_schema(mode="serialization"), []
    for name, section in schema["properties"].items():
        if "$ref" in section:
            found = schema["$defs"][section["$ref"].rpartition("/")[2]]
            parts.append(f"### {name}\n\n{found['description']}\n\n{fields_table(fields(found, f'{name}.'))}")
    others = table(("environment", ""), [(f"`{name}`", does) for name, does in OTHERS.items()])
    return SETTINGS.format(service=markdown_table(), others=others, config="\n".join(parts))
