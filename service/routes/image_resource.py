"""One seed's image as a resource that any HTTP cache may keep."""

import hashlib
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from artifacts.version import version
from service.errors import ApiError
from service.routes import negotiation, openapi
from service.routes.headers import atelier_of, headers_of
from service.routes.negotiation import JPEG, PNG, WEBP
from service.routes.schemas import GenerateRequest, ImageQuery

router = APIRouter()


FORMS = {"png": PNG, "webp": WEBP, "jpg": JPEG}


@router.get(
    "/v1/models/{name}/images/{seed}.{form}",
    openapi_extra=openapi.IMAGE_PARAMETERS,
    **openapi.answers(
        dict.fromkeys(FORMS.values()),
        404,
        422,
        503,
        headers=openapi.IMAGE_HEADERS | openapi.RESOURCE_HEADERS,
        others=openapi.NOT_MODIFIED,
    ),
)
@router.head("/v1/models/{name}/images/{seed}.{form}", include_in_schema=False, response_model=None)
async def image(request: Request) -> Response:
    """One seed's image as a resource (.png, .webp or .jpg), with a strong ETag."""
    from service import encoding
    from service.inference import inputs
    from service.sheets import enlarged

    atelier = atelier_of(request)
    name, seed, suffix = (request.path_params[key] for key in ("name", "seed", "form"))
    if suffix not in FORMS:
        raise ApiError(404, "route_not_found", "an image is .png, .webp or .jpg")
    if not (seed.isascii() and seed.isdigit() and len(seed) <= 16 and str(int(seed)) == seed):
        raise ApiError(422, "invalid_field", "seed: a seed is an integer from 0 to 2^53 - 1", "seed")
    form, query = FORMS[suffix], negotiation.read_query(request, ImageQuery)
    body = negotiation.checked(
        GenerateRequest,
        {
            "model": name,
            "seed": int(seed),
            "truncation": query.truncation,
            "labels": None if query.label is None else [query.label],
            "scale": query.scale,
        },
    )
    try:
        plan = inputs.generation(body, atelier.repository, atelier.settings)
    except ApiError as error:
        error.param = "label" if error.param == "labels" else error.param  # its name in the query
        raise
    inputs.digest_matches(plan.generator, query.digest)
    pixels = inputs.picture_pixels(plan, body, form, None, atelier.settings)
    appearance = query.model_dump(exclude={"digest"})
    # with keys only the caches of those who have one may keep it; `public` lets every cache give it to everyone
    audience = "private" if atelier.keys else "public"
    headers = {
        "ETag": _etag(plan.generator.metadata.digest, plan.generator.provider, seed, form, *appearance.values()),
        "Cache-Control": f"{audience}, {'max-age=31536000, immutable' if query.digest else 'no-cache'}",
        **{k: v for k, v in headers_of(plan).items() if k not in ("Cache-Control", "Vary")},
        **({"Vary": "Authorization"} if atelier.keys else {}),
    }
    if negotiation.etag_matches(negotiation.header(request, "if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    await request.body()
    content = await atelier.answer(
        plan,
        pixels,
        lambda images: encoding.still(enlarged(images, query.scale)[0], form[6:], query.quality),
        request.receive,
    )
    if request.method == "HEAD":
        return Response(media_type=form, headers={**headers, "Content-Length": str(len(content))})
    return Response(content, media_type=form, headers=headers)


def _etag(*parts: Any) -> str:
    """Strong: names everything that decides the bytes, the libraries that compute and compress them too."""
    import onnxruntime
    import PIL

    text = repr((*parts, version(), onnxruntime.__version__, PIL.__version__))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
