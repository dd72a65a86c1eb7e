"""POST answers with images: generate, interpolate."""

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service import negotiation, openapi
from service.negotiation import GIF, NPY, PNG, WEBP, ZIP
from service.routes.told import atelier_of, facts_of, headers_of
from service.schemas import GenerateRequest, InterpolateRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

router = APIRouter()


@router.post("/v1/generate", openapi_extra=openapi.body(GenerateRequest), **openapi.answers(openapi.GENERATE))
async def generate(request: Request) -> Response:
    """Images of seeds or latents. `Accept` chooses the form."""
    from service import encode, plans

    atelier = atelier_of(request)
    form = negotiation.choose(request.headers.get("accept", ""), negotiation.GENERATE_FORMS)
    body = await negotiation.read(request, GenerateRequest)
    plan = plans.generation(body, atelier.repository, atelier.settings)
    if form == NPY:
        images = await atelier.images(plan, request.receive)
        return Response(encode.npy(images), media_type=NPY, headers=headers_of(plan))
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
        return encode.document(images, facts_of(plan), entries)

    content = await atelier.pictures(plan, pixels, encoded, request.receive)
    return Response(content, media_type=form, headers=headers_of(plan))


def _unique(names: list[str]) -> list[str]:
    """A seed asked for twice gets a second name, as a zip cannot hold one name twice."""
    return names if len(set(names)) == len(names) else [f"{i:04}-{name}" for i, name in enumerate(names)]


@router.post("/v1/interpolate", openapi_extra=openapi.body(InterpolateRequest), **openapi.answers(openapi.INTERPOLATE))
async def interpolate(request: Request) -> Response:
    """Frames along a path through latent space. `Accept` chooses frames, animation or strip."""
    from service import encode, plans

    atelier = atelier_of(request)
    form = negotiation.choose(request.headers.get("accept", ""), negotiation.INTERPOLATE_FORMS)
    body = await negotiation.read(request, InterpolateRequest)
    plan = plans.interpolation(body, atelier.repository, atelier.settings)
    if form == NPY:
        images = await atelier.images(plan, request.receive)
        return Response(encode.npy(images), media_type=NPY, headers=headers_of(plan))
    pixels = plans.picture_pixels(plan, body.scale, atelier.settings)

    def encoded(images: "NDArray[np.uint8]") -> bytes:
        images = encode.enlarged(images, body.scale)
        if form in (GIF, WEBP):
            return encode.animation(images, form[6:], body.fps, body.loop)
        if form == PNG:
            return encode.strip(images)
        if form == ZIP:
            return encode.archive(images, [f"frame-{i:04}" for i in range(len(images))])
        facts = {**facts_of(plan), "fps": body.fps, "loop": body.loop}
        return encode.document(images, facts, [{"frame": i} for i in range(len(images))])

    content = await atelier.pictures(plan, pixels, encoded, request.receive)
    return Response(content, media_type=form, headers=headers_of(plan))
