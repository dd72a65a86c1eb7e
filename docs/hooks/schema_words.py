"""A JSON Schema in words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Schema = dict[str, Any]

# Pydantic says `ge` and `lt` in place of JSON Schema's words behind some validators
SIGNS = {
    "≥": ("minimum", "ge"),
    ">": ("exclusiveMinimum", "gt"),
    "≤": ("maximum", "le"),
    "<": ("exclusiveMaximum", "lt"),
}
POWERS = {
    2**32: "2³²",
    2**31: "2³¹",
    2**31 - 1: "2³¹\N{NO-BREAK SPACE}−\N{NO-BREAK SPACE}1",
    2**53: "2⁵³",
    2**53 - 1: "2⁵³\N{NO-BREAK SPACE}−\N{NO-BREAK SPACE}1",
}


def words(schema: Schema, known: Mapping[str, Schema] = MappingProxyType({})) -> str:
    """`integer, ≥ 1, ≤ 16`; `list (2 or more) of number, > 0`; `png or webp`. `known`: what a `$ref` may name."""
    schema = known[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "anyOf" in schema:
        return " or ".join(words(part, known) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        return "list of " + " and ".join(words(part, known) for part in schema["prefixItems"])
    kinds = schema.get("type", "anything")
    kind = " or ".join(kinds) if isinstance(kinds, list) else kinds
    if kind == "array":
        items = schema.get("items", {})
        return f"list{_count(schema, 'Items')} of {words(items, known)}"
    if kind == "object" and "properties" in schema:
        return "object" + (
            f" with one of {', '.join(schema['properties'])}" if schema.get("maxProperties") == 1 else ""
        )
    pattern = f", `{schema['pattern']}`" if "pattern" in schema else ""
    return f"{kind}{_bounds(schema)}{_count(schema, 'Length')}{pattern}"


def _bounds(schema: Schema) -> str:
    """Of a number: `, ≥ 1, ≤ 16`, unbroken between a sign and its number."""
    told = [
        f"{sign}\N{NO-BREAK SPACE}{_number(schema[name])}"
        for sign, names in SIGNS.items()
        for name in names
        if name in schema
    ]
    return f", {', '.join(told)}" if told else ""


def _number(value: float) -> str:
    return POWERS.get(int(value)) or (f"{value:,.0f}" if value == int(value) else f"{value:g}")


def _count(schema: Schema, of: str) -> str:
    """Of a list's items or a text's characters: ` (2 or more)`."""
    low, high = schema.get(f"min{of}"), schema.get(f"max{of}")
    if low is None and high is None:
        return ""
    return f" ({low or 0} {'or more' if high is None else f'to {high}'}{' characters' if of == 'Length' else ''})"
