"""Which form an answer takes (Accept), which a body must have (Content-Type), and what was wrong with it."""

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

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_TYPE = re.compile(r"application/json|[\w.+-]+/[\w.+-]+\+json", re.ASCII)

JSON, PNG, GIF, WEBP, JPEG = "application/json", "image/png", "image/gif", "image/webp", "image/jpeg"
NPY, NPZ, ZIP = "application/x-npy", "application/x-npz", "application/zip"
GENERATE_FORMS = MIX_FORMS = (JSON, PNG, WEBP, JPEG, NPY, NPZ, ZIP)
INTERPOLATE_FORMS = (JSON, GIF, WEBP, PNG, JPEG, NPY, NPZ, ZIP)

# Pydantic parses a whole body before it looks at any of it, and holds the interpreter's lock meanwhile. A number takes
# 2 bytes of a body and 30 to 60 of memory, a list 3 bytes and 200, a key of an object 5 bytes and 400.
MAX_VALUES = 2**18
BYTES_PER_VALUE = 16  # a body that is longer may have more values: latents have about 20 bytes per number
MAX_LISTS = 2**16 + 2**10
MAX_KEYS = 2**14
MAX_ACCEPTED = 100  # media types of an Accept header that are read
LARGE_BODY = 2**16  # bytes; parsed on a thread

_parsing = ThreadPoolExecutor(1, "parsing")  # one body at a time: its values take more memory than its bytes


@lru_cache(maxsize=256)
def choose(accept: str, forms: tuple[str, ...]) -> str:
    """The form that an Accept header likes best (RFC 9110 §12.5.1); ties go to the first of `forms`.

    ApiError 406: none of them is acceptable.
    """
    if not accept.strip(" \t,"):
        return forms[0]
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

    def quality_of(form: str) -> float:
        for kind in (form, form.split("/")[0] + "/*", "*/*"):
            if kind in qualities:
                return qualities[kind]
        return 0.0

    best = max(forms, key=quality_of)
    if quality_of(best) <= 0:
        message = f"Accept names none of the forms there are: {', '.join(forms)}"
        raise ApiError(406, "not_acceptable", message, headers={"Vary": "Accept"})
    return best


async def read(request: Request, schema: type[Body]) -> Body:
    """The body as `schema`. ApiError: 415 not JSON, 400 malformed, 422 not what the schema says.

    A body without Content-Type is refused too: every web page can send one, with no leave of the service.
    """
    content_type = header(request, "content-type").partition(";")[0].strip().lower()
    if not _JSON_TYPE.fullmatch(content_type):
        given = f"not {content_type[:100]}" if content_type else "with that Content-Type"
        raise ApiError(415, "unsupported_media_type", f"send the body as {JSON}, {given}", "Content-Type")
    body = without_mark(await request.body())
    if len(body) <= LARGE_BODY:
        return parsed(body, schema)
    return await asyncio.get_running_loop().run_in_executor(_parsing, parsed, body, schema)


def parsed(body: bytes, schema: type[Body]) -> Body:
    """Validate a body of JSON, in time and memory proportional to its length.

    Args:
        body: The bytes of a request.
        schema: The model to validate them with.

    Returns:
        The validated model.

    Raises:
        ApiError: 400 if the body is not JSON in UTF-8, 422 if it holds too many values or not what the schema requires.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise ApiError(400, "malformed_json", f"the body is not UTF-8: byte {error.start}") from None
    _count_values(body)
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise explained(error) from None


def header(request: Request, name: str) -> str:
    """Return a header's value; of one in several lines all of them, as one list (RFC 9110, section 5.3)."""
    return ", ".join(request.headers.getlist(name))


def without_mark(body: bytes) -> bytes:
    """Return a body without the byte order mark that some programs write before JSON (RFC 8259, section 8.1)."""
    return body.removeprefix(BYTE_ORDER_MARK)


def _count_values(body: bytes) -> None:
    """Raise ApiError 422 for more values or keys than any request needs, by counting bytes, before they are parsed.

    Bytes within texts count as well, but no valid request has long texts.
    """
    most = max(MAX_VALUES, len(body) // BYTES_PER_VALUE)
    lists = body.count(b"[") if len(body) > MAX_LISTS else 0
    for what, limit, count in (
        ("values", most, lambda: lists + body.count(b",") + body.count(b"{")),
        ("lists", MAX_LISTS, lambda: lists),
        ("keys of objects", MAX_KEYS, lambda: body.count(b":")),
    ):
        if len(body) > limit and count() > limit:
            raise ApiError(422, "too_many_values", f"the body holds more than {limit} {what}; split the request")


def checked(schema: type[Body], values: Mapping[str, Any]) -> Body:
    """Values from elsewhere than a body as `schema`. ApiError 422."""
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise explained(error) from None


def explained(error: ValidationError) -> ApiError:
    """The first thing wrong, in one line, naming its field."""
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    param = ".".join(str(part) for part in first["loc"])[:200] or None
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return ApiError(400, "malformed_json", f"the body is not JSON: {message.partition(': ')[2] or message}")
    if first["type"] == "extra_forbidden":
        return ApiError(422, "unknown_field", f"there is no field {param!r}; /openapi.json lists them", param)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    where = f"{param}: " if param else ""
    return ApiError(422, "invalid_field", f"{where}{message[:1].lower()}{message[1:]}{more}", param)


def read_query(request: Request, schema: type[Body]) -> Body:
    """The query as `schema`. ApiError 422, also when a name comes twice."""
    items = request.query_params.multi_items()
    if len({name for name, _ in items}) < len(items):
        raise ApiError(422, "invalid_field", "a query parameter is given twice")
    return checked(schema, dict(items))


def etag_matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110 §13.1.2: a list of tags, weakly compared, or *."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags
