"""Content negotiation and validation: Accept, Content-Type, JSON bodies, queries and ETags."""

import asyncio
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service.errors import ApiError

Body = TypeVar("Body", bound=BaseModel)

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # that some programs write before JSON (RFC 8259, section 8.1)
_JSON_TYPE = re.compile(r"application/json|[\w.+-]+/[\w.+-]+\+json", re.ASCII)

JSON, PNG, GIF, WEBP, JPEG = "application/json", "image/png", "image/gif", "image/webp", "image/jpeg"
NPY, NPZ, ZIP = "application/x-npy", "application/x-npz", "application/zip"
GENERATE_MEDIA_TYPES = MIX_MEDIA_TYPES = (JSON, PNG, WEBP, JPEG, NPY, NPZ, ZIP)
INTERPOLATE_MEDIA_TYPES = (JSON, GIF, WEBP, PNG, JPEG, NPY, NPZ, ZIP)

# Pydantic parses a whole body before it looks at any of it, and holds the GIL meanwhile. A number takes 2 bytes
# of a body and 30 to 60 of memory, a list 3 bytes and 200, a key of an object 5 bytes and 400.
MAX_VALUES = 2**18
BYTES_PER_VALUE = 16  # a longer body may have more values: latents have about 20 bytes per number
MAX_LISTS = 2**16 + 2**10
MAX_KEYS = 2**14
MAX_ACCEPTED = 100  # media types that are read of an Accept header
LARGE_BODY = 2**16  # bytes; larger bodies are parsed on a thread

_parsing = ThreadPoolExecutor(1, "parsing")  # one body at a time: its values take more memory than its bytes


@lru_cache(maxsize=256)
def choose_media_type(accept: str, media_types: tuple[str, ...]) -> str:
    """Return the media type that an Accept header prefers (RFC 9110 §12.5.1); ties go to the first.

    Raises:
        ApiError: 406 if none is acceptable.
    """
    if not accept.strip(" \t,"):
        return media_types[0]
    qualities: dict[str, float] = {}
    for part in accept.lower().split(",", MAX_ACCEPTED)[:MAX_ACCEPTED]:
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = min(1.0, max(0.0, float(value)))
                except ValueError:
                    quality = 0.0
        qualities[kind] = quality

    def quality_of(media_type: str) -> float:
        for kind in (media_type, media_type.split("/")[0] + "/*", "*/*"):
            if kind in qualities:
                return qualities[kind]
        return 0.0

    best = max(media_types, key=quality_of)
    if quality_of(best) <= 0:
        message = f"Accept has no available format; available are: {', '.join(media_types)}"
        raise ApiError(406, "not_acceptable", message, headers={"Vary": "Accept"})
    return best


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


def etag_matches(if_none_match: str, etag: str) -> bool:
    """Return whether If-None-Match (a list of tags, or *) has a tag, compared weakly (RFC 9110 §13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags
