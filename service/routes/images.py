"""Routes that answer with images: generate, interpolate, mix, and one image as a resource."""

import hashlib
import math
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.types import Receive

from artifacts import version
from service.encoding import INLINE_BYTES, JSON_BYTES_PER_VALUE, encode_json_arrays
from service.errors import ApiError
from service.inference.engine import InferenceEngine
from service.inference.inputs import require_digest, resolve_generate, resolve_interpolate, resolve_mix
from service.routes import RawRoute, get_engine, get_worker, negotiation, openapi, request_parsing, response_headers
from service.routes.negotiation import JPEG, NPY, PNG, WEBP
from service.routes.rendering import Answer, array_pixels, render
from service.routes.request_parsing import Body
from service.routes.schemas import GenerateRequest, ImageQuery, ImageSpec, InterpolateRequest, MixRequest

router = APIRouter(route_class=RawRoute)

NATIVE_ROUTE = "/v1/native/generate"
STRIP_COLUMNS = 16
SUFFIXES = {"png": PNG, "webp": WEBP, "jpg": JPEG}


@router.post(
    "/v1/generate",
    openapi_extra=openapi.request_body(GenerateRequest),
    **openapi.responses(openapi.GENERATE, *openapi.POST_ERRORS, headers=openapi.IMAGE_HEADERS),
)
async def generate(request: Request) -> Response:
    """Generate images from seeds or latents."""
    engine, media_type, body = await _read(request, GenerateRequest, negotiation.GENERATE_MEDIA_TYPES)
    inputs = resolve_generate(body, engine.repository, engine.settings)
    n = len(inputs)
    answer = Answer(
        media_type,
        inputs,
        body,
        columns=math.ceil(math.sqrt(n)),
        names=[f"seed-{s}" for s in inputs.seeds] if inputs.seeds else [f"image-{i:04}" for i in range(n)],
        entries=[{"seed": s} for s in inputs.seeds or [None] * n],
    )
    return await _respond(request, answer)


@router.post(
    "/v1/interpolate",
    openapi_extra=openapi.request_body(InterpolateRequest),
    **openapi.responses(openapi.INTERPOLATE, *openapi.POST_ERRORS, headers=openapi.IMAGE_HEADERS),
)
async def interpolate(request: Request) -> Response:
    """Generate frames along a path through latent space: as images, an animation or a strip."""
    engine, media_type, body = await _read(request, InterpolateRequest, negotiation.INTERPOLATE_MEDIA_TYPES)
    inputs = resolve_interpolate(body, engine.repository, engine.settings)
    n = len(inputs)
    answer = Answer(
        media_type,
        inputs,
        body,
        columns=STRIP_COLUMNS,
        names=[f"frame-{i:04}" for i in range(n)],
        entries=[{"frame": i} for i in range(n)],
        fields={"fps": body.fps, "loop": body.loop},
    )
    return await _respond(request, answer)


@router.post(
    "/v1/mix",
    openapi_extra=openapi.request_body(MixRequest),
    **openapi.responses(openapi.MIX, *openapi.POST_ERRORS, headers=openapi.IMAGE_HEADERS),
)
async def mix(request: Request) -> Response:
    """Generate the image of a weighted sum of latents; formats that hold several images have each term's after it."""
    engine, media_type, body = await _read(request, MixRequest, negotiation.MIX_MEDIA_TYPES)
    inputs = resolve_mix(body, engine.repository)
    if media_type in (PNG, WEBP, JPEG):
        inputs = inputs.first()
    terms = [{"seed": term.seed, "weight": term.weight} for term in body.terms]
    answer = Answer(
        media_type,
        inputs,
        body,
        columns=1,
        names=["mix", *(f"term-{i:02}" for i in range(len(terms)))],
        # The shortest digits that read back as the same float32.
        entries=[{"latent": [float(str(x)) for x in inputs.latents[0]]}, *terms],
        rest_key="terms",
    )
    return await _respond(request, answer)


@router.post(NATIVE_ROUTE, include_in_schema=False)
async def native_generate(request: Request) -> Response:
    """Answer BentoML's own client."""
    return await respond_native(
        get_engine(request), await request_parsing.read_body(request, ImageSpec), request.receive
    )


async def respond_native(engine: InferenceEngine, body: ImageSpec, receive: Receive | None = None) -> Response:
    """Return images as nested JSON numbers [N][H][W][C], with the headers of /v1/generate.

    Args:
        engine: The engine.
        body: The images to generate.
        receive: The request's channel, to notice when the client disconnects.
    """
    inputs = resolve_generate(body, engine.repository, engine.settings)
    pixels = array_pixels(inputs, engine.settings, JSON_BYTES_PER_VALUE)
    content = await engine.answer(inputs, pixels, encode_json_arrays, receive)
    return Response(content, media_type=negotiation.JSON, headers=response_headers(inputs))


async def _read(
    request: Request, schema: type[Body], media_types: tuple[str, ...]
) -> tuple[InferenceEngine, str, Body]:
    """Return the engine, the media type that `Accept` chooses, and the body."""
    media_type = negotiation.choose_media_type(request_parsing.get_header(request, "accept"), media_types)
    return get_engine(request), media_type, await request_parsing.read_body(request, schema)


async def _respond(request: Request, answer: Answer) -> Response:
    """Generate the images of an answer, and encode them."""
    engine, inputs = get_engine(request), answer.inputs
    pixels, encode = render(answer, engine.settings)
    inline = answer.media_type == NPY and pixels * inputs.generator.metadata.channels <= INLINE_BYTES
    content = await engine.answer(inputs, pixels, encode, request.receive, inline)
    return Response(content, media_type=answer.media_type, headers=response_headers(inputs))


@router.get(
    "/v1/models/{name}/images/{seed}.{form}",
    openapi_extra=openapi.IMAGE_PARAMETERS,
    **openapi.responses(
        dict.fromkeys(SUFFIXES.values()),
        404,
        422,
        503,
        headers=openapi.IMAGE_HEADERS | openapi.RESOURCE_HEADERS,
        others=openapi.NOT_MODIFIED,
    ),
)
@router.head("/v1/models/{name}/images/{seed}.{form}", include_in_schema=False, response_model=None)
async def image(request: Request) -> Response:
    """Return one seed's image as a resource (.png, .webp or .jpg) with a strong ETag, which any HTTP cache may keep."""
    engine, keys = get_engine(request), get_worker(request).keys
    media_type, query, body = _read_image_url(request)
    try:
        inputs = resolve_generate(body, engine.repository, engine.settings)
    except ApiError as error:
        error.param = "label" if error.param == "labels" else error.param  # its name in the query
        raise
    require_digest(inputs.generator, query.digest)
    pixels, encode = render(Answer(media_type, inputs, body), engine.settings)
    # With keys, `public` would allow a shared cache to give the image to clients without one.
    audience = "private" if keys else "public"
    appearance = query.model_dump(exclude={"digest"}).values()
    headers = {
        **response_headers(inputs),
        "ETag": _etag(
            inputs.generator.metadata.digest, inputs.generator.provider, str(body.seed), media_type, *appearance
        ),
        "Cache-Control": f"{audience}, {'max-age=31536000, immutable' if query.digest else 'no-cache'}",
    }
    del headers["Vary"]
    if keys:
        headers["Vary"] = "Authorization"
    if negotiation.etag_matches(request_parsing.get_header(request, "if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    await request.body()
    content = await engine.answer(inputs, pixels, encode, request.receive)
    if request.method == "HEAD":
        return Response(media_type=media_type, headers={**headers, "Content-Length": str(len(content))})
    return Response(content, media_type=media_type, headers=headers)


def _read_image_url(request: Request) -> tuple[str, ImageQuery, GenerateRequest]:
    """Return the media type, the query and the equivalent body of /v1/generate.

    Raises:
        ApiError: 404 or 422.
    """
    name, seed, suffix = (request.path_params[key] for key in ("name", "seed", "form"))
    if suffix not in SUFFIXES:
        raise ApiError(404, "route_not_found", "an image is .png, .webp or .jpg")
    if not (seed.isascii() and seed.isdigit() and len(seed) <= 16 and str(int(seed)) == seed):
        raise ApiError(422, "invalid_field", "seed: a seed is an integer from 0 to 2^53 - 1", "seed")
    query = request_parsing.read_query(request, ImageQuery)
    fields: dict[str, Any] = {
        "model": name,
        "seed": int(seed),
        "truncation": query.truncation,
        "labels": None if query.label is None else [query.label],
        "scale": query.scale,
        "quality": query.quality,
    }
    return SUFFIXES[suffix], query, request_parsing.validate(GenerateRequest, fields)


def _etag(*parts: Any) -> str:
    """Return a strong ETag of everything that decides the bytes, including the libraries that compute and compress."""
    import onnxruntime
    import PIL

    text = repr((*parts, version(), onnxruntime.__version__, PIL.__version__))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
