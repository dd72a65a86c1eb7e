"""The routes. Bodies are read and answers written by hand: an answer costs little beside its images."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from service import negotiation, openapi
from service.errors import ApiError, error_response
from service.gate import Gate
from service.negotiation import GIF, JSON, NPY, PNG, WEBP, ZIP
from service.schemas import GenerateRequest, ImageQuery, InterpolateRequest
from service.settings import Settings, settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from service.atelier import Atelier
    from service.plans import Plan

PAGE = Path(__file__).parent / "studio" / "index.html"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src 'self' blob: data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
MAX_SEEDS_HEADER = 4096  # bytes; clients limit a header line to 8 KiB

router = APIRouter()


@lru_cache(maxsize=1)
def service_version() -> str:
    try:
        return version("gan-atelier")
    except PackageNotFoundError:
        return "0"


def create_app(config: Settings | None = None) -> FastAPI:
    """The whole HTTP service as an ASGI app; its lifespan loads the models while /livez answers already."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        from service.atelier import Atelier  # numpy, scipy, Pillow: here, so that a supervisor stays small

        app.state.atelier = atelier = await asyncio.to_thread(Atelier, app.state.settings)
        loading = asyncio.create_task(asyncio.to_thread(atelier.load))
        yield
        loading.cancel()
        atelier.stop()

    app = FastAPI(
        title="GAN Atelier",
        version=service_version(),
        description="Images from trained generators: one seed is one image.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.settings = config or settings()
    app.include_router(router)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(
        Gate, metrics=lambda: app.state.atelier.metrics, max_body_bytes=app.state.settings.max_body_bytes
    )
    openapi.install(app)
    return app


async def _api_error(request: Request, error: Any) -> Response:
    return error_response(error)


async def _http_error(request: Request, error: Any) -> Response:
    """The router's own refusals: no such route, method not allowed."""
    code = {404: "route_not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = {
        404: "there is no such route; /openapi.json lists them",
        405: f"{request.method[:20]} is not allowed here; the Allow header tells what is",
    }.get(error.status_code, str(error.detail)[:200])
    return error_response(ApiError(error.status_code, code, message, headers=dict(error.headers or {})))


def _atelier(request: Request) -> "Atelier":
    return request.app.state.atelier


def _headers(plan: "Plan") -> dict[str, str]:
    """What is told of the images beside the body, whatever its form."""
    from service.encode import ranges

    m = plan.generator.metadata
    headers = {
        "Cache-Control": "no-store",
        "Atelier-Model": m.name,
        "Atelier-Digest": m.digest,
        "Atelier-Images": str(len(plan.latents)),
        "Vary": "Accept",
    }
    if plan.seeds is not None and len(seeds := ranges(plan.seeds)) <= MAX_SEEDS_HEADER:
        headers["Atelier-Seeds"] = seeds
    if plan.labels is not None and len(labels := ",".join(map(str, plan.labels))) <= MAX_SEEDS_HEADER:
        headers["Atelier-Labels"] = labels
    return headers


def _facts(plan: "Plan") -> dict[str, Any]:
    from datetime import UTC, datetime

    m = plan.generator.metadata
    return {"created": int(datetime.now(UTC).timestamp()), "model": m.name, "digest": m.digest}


@router.post("/v1/generate", openapi_extra=openapi.body(GenerateRequest), **openapi.answers(openapi.GENERATE))
async def generate(request: Request) -> Response:
    """Images of seeds or latents. `Accept` chooses the form."""
    from service import encode, plans

    atelier = _atelier(request)
    form = negotiation.choose(request.headers.get("accept", ""), negotiation.GENERATE_FORMS)
    body = await negotiation.read(request, GenerateRequest)
    plan = plans.generation(body, atelier.repository, atelier.settings)
    if form == NPY:
        images = await atelier.images(plan, request.receive)
        return Response(encode.npy(images), media_type=NPY, headers=_headers(plan))
    pixels = plans.picture_pixels(plan, body.scale, atelier.settings)

    def encoded(images: "NDArray[np.uint8]") -> bytes:
        images = encode.enlarged(images, body.scale)
        if form == PNG:
            return encode.png(images)
        if form == ZIP:
            names = [f"seed-{s}" for s in plan.seeds] if plan.seeds else [f"image-{i:04}" for i in range(len(images))]
            return encode.archive(images, _unique(names))
        entries: list[dict[str, Any]] = [{"seed": s} for s in plan.seeds or [None] * len(images)]
        if plan.labels is not None:
            entries = [{**e, "label": int(label)} for e, label in zip(entries, plan.labels, strict=True)]
        return encode.document(images, _facts(plan), entries)

    content = await atelier.pictures(plan, pixels, encoded, request.receive)
    return Response(content, media_type=form, headers=_headers(plan))


def _unique(names: list[str]) -> list[str]:
    """A seed asked for twice gets a second name, as a zip cannot hold one name twice."""
    return names if len(set(names)) == len(names) else [f"{i:04}-{name}" for i, name in enumerate(names)]


@router.post("/v1/interpolate", openapi_extra=openapi.body(InterpolateRequest), **openapi.answers(openapi.INTERPOLATE))
async def interpolate(request: Request) -> Response:
    """Frames along a path through latent space. `Accept` chooses frames, animation or strip."""
    from service import encode, plans

    atelier = _atelier(request)
    form = negotiation.choose(request.headers.get("accept", ""), negotiation.INTERPOLATE_FORMS)
    body = await negotiation.read(request, InterpolateRequest)
    plan = plans.interpolation(body, atelier.repository, atelier.settings)
    if form == NPY:
        images = await atelier.images(plan, request.receive)
        return Response(encode.npy(images), media_type=NPY, headers=_headers(plan))
    pixels = plans.picture_pixels(plan, body.scale, atelier.settings)

    def encoded(images: "NDArray[np.uint8]") -> bytes:
        images = encode.enlarged(images, body.scale)
        if form in (GIF, WEBP):
            return encode.animation(images, form[6:], body.fps, body.loop)
        if form == PNG:
            return encode.strip(images)
        if form == ZIP:
            return encode.archive(images, [f"frame-{i:04}" for i in range(len(images))])
        facts = {**_facts(plan), "fps": body.fps, "loop": body.loop}
        return encode.document(images, facts, [{"frame": i} for i in range(len(images))])

    content = await atelier.pictures(plan, pixels, encoded, request.receive)
    return Response(content, media_type=form, headers=_headers(plan))


@router.get("/v1/models", **openapi.answers({JSON: None}, 503))
async def models(request: Request) -> JSONResponse:
    """The models that are served, the files that are not and why, and the limits of a request."""
    atelier = _atelier(request)
    repository, s = atelier.repository, atelier.settings
    return JSONResponse(
        {
            "default": repository.default,
            "data": [{**g.describe(), "default": g.metadata.name == repository.default} for g in repository.all()],
            "failed": [{"file": file, "reason": reason} for file, reason in sorted(repository.failed.items())],
            "not_ready": repository.not_ready,
            "limits": {
                "max_images": s.max_images,
                "max_frames": s.max_frames,
                "max_keyframes": s.max_keyframes,
                "max_body_bytes": s.max_body_bytes,
                "max_queue_rows": s.max_queue_rows,
                "max_scaled_pixels": s.max_scaled_pixels,
                "max_encoding_pixels": s.max_encoding_pixels,
                "deadline_s": s.deadline_s,
            },
        },
        headers={"Cache-Control": "no-store"},
    )


@router.get("/v1/models/{name}", **openapi.answers({JSON: None}, 404, 503))
async def model(request: Request, name: str) -> JSONResponse:
    """One model's metadata, digest and scores."""
    repository = _atelier(request).repository
    generator = repository.get(name)
    return JSONResponse(
        {**generator.describe(), "default": generator.metadata.name == repository.default},
        headers={"Cache-Control": "no-store"},
    )


@router.head("/v1/models/{name}/images/{seed}.{form}", include_in_schema=False, response_model=None)
@router.get(
    "/v1/models/{name}/images/{seed}.{form}",
    openapi_extra=openapi.IMAGE_PARAMETERS,
    **openapi.answers({PNG: None, WEBP: None}, 404, 422, 503),
)
async def image(request: Request) -> Response:
    """One seed's image as a resource (.png or .webp), with a strong ETag."""
    from service import encode, plans

    atelier = _atelier(request)
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
    if _matches(request.headers.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    await request.body()
    pixels = plans.picture_pixels(plan, 1, atelier.settings)
    content = await atelier.pictures(plan, pixels, lambda images: encode.still(images[0], form), request.receive)
    headers |= {k: v for k, v in _headers(plan).items() if k not in ("Cache-Control", "Vary")}
    if request.method == "HEAD":
        return Response(media_type=f"image/{form}", headers={**headers, "Content-Length": str(len(content))})
    return Response(content, media_type=f"image/{form}", headers=headers)


def _etag(*parts: Any) -> str:
    """Strong: names everything that decides the bytes, the libraries that compute and compress them too."""
    import onnxruntime
    import PIL

    text = repr((*parts, service_version(), onnxruntime.__version__, PIL.__version__))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def _matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110 §13.1.2: a list of tags, weakly compared, or *."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags


@router.get("/livez", **openapi.answers({JSON: None}))
async def livez() -> JSONResponse:
    """The process answers."""
    return JSONResponse({"status": "alive"}, headers={"Cache-Control": "no-store"})


@router.get("/readyz", **openapi.answers({JSON: None}, 503))
async def readyz(request: Request) -> JSONResponse:
    """Models are loaded and warm; until then 503 and the reason."""
    _atelier(request).require_ready()
    return JSONResponse({"status": "ready"}, headers={"Cache-Control": "no-store"})


@router.get("/metrics", **openapi.answers({"text/plain": None}))
async def metrics(request: Request) -> Response:
    """Prometheus."""
    text, content_type = await asyncio.to_thread(_atelier(request).metrics.exposition)
    return Response(text, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The page for people."""
    return Response(PAGE.read_bytes(), media_type="text/html; charset=utf-8", headers=PAGE_HEADERS)
