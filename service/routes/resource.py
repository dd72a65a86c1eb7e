"""One seed's image as a resource that any HTTP cache may keep."""

import hashlib
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service import negotiation, openapi
from service.errors import ApiError
from service.negotiation import PNG, WEBP
from service.routes.told import atelier_of, headers_of
from service.schemas import GenerateRequest, ImageQuery
from service.version import service_version

router = APIRouter()


@router.head("/v1/models/{name}/images/{seed}.{form}", include_in_schema=False, response_model=None)
@router.get(
    "/v1/models/{name}/images/{seed}.{form}",
    openapi_extra=openapi.IMAGE_PARAMETERS,
    **openapi.answers({PNG: None, WEBP: None}, 404, 422, 503),
)
async def image(request: Request) -> Response:
    """One seed's image as a resource (.png or .webp), with a strong ETag."""
    from service import encode, plans

    atelier = atelier_of(request)
    name, seed, form = (request.path_params[key] for key in ("name", "seed", "form"))
    if form not in ("png", "webp"):
        raise ApiError(404, "route_not_found", "an image is .png or .webp")
    if not (seed.isascii() and seed.isdigit() and len(seed) <= 16 and str(int(seed)) == seed):
        raise ApiError(422, "invalid_field", "seed: a seed is an integer from 0 to 2^53 - 1", "seed")
    query = negotiation.read_query(request, ImageQuery)
    body = negotiation.checked(
        GenerateRequest,
        {
            "model": name,
            "seed": int(seed),
            "truncation": query.truncation,
            "labels": None if query.label is None else [query.label],
        },
    )
    try:
        plan = plans.generation(body, atelier.repository, atelier.settings)
    except ApiError as error:
        error.param = "label" if error.param == "labels" else error.param  # its name in the query
        raise
    plans.digest_matches(plan.generator, query.digest)
    headers = {
        "ETag": _etag(plan.generator.metadata.digest, seed, form, query.truncation, query.label),
        "Cache-Control": "public, max-age=31536000, immutable" if query.digest else "public, no-cache",
    }
    if negotiation.etag_matches(request.headers.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    await request.body()
    pixels = plans.picture_pixels(plan, body, f"image/{form}", None, atelier.settings)
    content = await atelier.pictures(plan, pixels, lambda images: encode.still(images[0], form), request.receive)
    headers |= {k: v for k, v in headers_of(plan).items() if k not in ("Cache-Control", "Vary")}
    if request.method == "HEAD":
        return Response(media_type=f"image/{form}", headers={**headers, "Content-Length": str(len(content))})
    return Response(content, media_type=f"image/{form}", headers=headers)


def _etag(*parts: Any) -> str:
    """Strong: names everything that decides the bytes, the libraries that compute and compress them too."""
    import onnxruntime
    import PIL

    text = repr((*parts, service_version(), onnxruntime.__version__, PIL.__version__))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
