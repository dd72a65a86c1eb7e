"""Reads and validates JSON bodies and queries, within bounds on their size and shape."""

import asyncio
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service.errors import ApiError
from service.routes.negotiation import JSON

Body = TypeVar("Body", bound=BaseModel)

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # that some programs write before JSON (RFC 8259, section 8.1)
_JSON_TYPE = re.compile(r"application/json|[\w.+-]+/[\w.+-]+\+json", re.ASCII)

# Pydantic parses a whole body before it looks at any of it, and holds the GIL meanwhile. A number takes 2 bytes
# of a body and 30 to 60 of memory, a list 3 bytes and 200, a key of an object 5 bytes and 400.
MAX_VALUES = 2**18
BYTES_PER_VALUE = 16  # a longer body may have more values: latents have about 20 bytes per number
MAX_LISTS = 2**16 + 2**10
MAX_KEYS = 2**14
LARGE_BODY = 2**16  # bytes; larger bodies are parsed on a thread

_parsing = ThreadPoolExecutor(1, "parsing")  # one body at a time: its values take more memory than its bytes


async def read_body(request: Request, schema: type[Body]) -> Body:
    """Read and validate a JSON body.

    A body without Content-Type is rejected too: every web page can send one without permission of the service.

    Raises:
        ApiError: 415 if it is not JSON, 400 if it is malformed, 422 if it does not match the schema.
    """
    content_type = get_header(request, "content-type").partition(";")[0].strip().lower()
    if not _JSON_TYPE.fullmatch(content_type):
        given = f"not {content_type[:100]}" if content_type else "with that Content-Type"
        raise ApiError(415, "unsupported_media_type", f"send the body as {JSON}, {given}", "Content-Type")
    body = (await request.body()).removeprefix(BYTE_ORDER_MARK)
    if len(body) <= LARGE_BODY:
        return parse_json(body, schema)
    return await asyncio.get_running_loop().run_in_executor(_parsing, parse_json, body, schema)


def parse_json(body: bytes, schema: type[Body]) -> Body:
    """Validate a JSON body, in time and memory proportional to its length.

    Raises:
        ApiError: 400 if the body is not JSON in UTF-8; 422 if it has too many values or does not match the schema.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise ApiError(400, "malformed_json", f"the body is not UTF-8: byte {error.start}") from None
    _limit_values(body)
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise explain(error) from None


def get_header(request: Request, name: str) -> str:
    """Return a header's value; several lines of one header are one list (RFC 9110, section 5.3)."""
    return ", ".join(request.headers.getlist(name))


def _limit_values(body: bytes) -> None:
    """Raise ApiError 422 for more values or keys than any request needs, counted before they are parsed.

    Characters within strings count as well, but no valid request has long strings.
    """
    most = max(MAX_VALUES, len(body) // BYTES_PER_VALUE)
    for what, limit, characters in (
        ("values", most, (b",", b"{", b"[")),
        ("lists", MAX_LISTS, (b"[",)),
        ("keys of objects", MAX_KEYS, (b":",)),
    ):
        if len(body) > limit and sum(map(body.count, characters)) > limit:
            raise ApiError(422, "too_many_values", f"the body has more than {limit} {what}; split the request")


def validate(schema: type[Body], values: Mapping[str, Any]) -> Body:
    """Validate values that are not from a body.

    Raises:
        ApiError: 422 if they do not match the schema.
    """
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise explain(error) from None


def explain(error: ValidationError) -> ApiError:
    """Return the first problem as one line that names its field."""
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    param = ".".join(str(part) for part in first["loc"])[:200] or None
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return ApiError(400, "malformed_json", f"the body is not JSON: {message.partition(': ')[2] or message}")
    if first["type"] == "extra_forbidden":
        return ApiError(422, "unknown_field", f"unknown field {param!r}; /openapi.json lists the fields", param)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    where = f"{param}: " if param else ""
    return ApiError(422, "invalid_field", f"{where}{message[:1].lower()}{message[1:]}{more}", param)


def read_query(request: Request, schema: type[Body]) -> Body:
    """Validate the query.

    Raises:
        ApiError: 422 if it does not match the schema, or has a name twice.
    """
    items = request.query_params.multi_items()
    if len({name for name, _ in items}) < len(items):
        raise ApiError(422, "invalid_field", "a query parameter is given twice")
    return validate(schema, dict(items))
