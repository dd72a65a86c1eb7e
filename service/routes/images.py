"""POST answers with images: generate, interpolate, mix. `Accept` chooses the form."""

import math
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.routes import negotiation, openapi
from service.routes.headers import atelier_of, facts_of, headers_of
from service.routes.negotiation import GIF, JPEG, JSON, NPY, NPZ, PNG, WEBP, ZIP, Body
from service.routes.raw_route import Bare
from service.routes.schemas import GenerateRequest, InterpolateRequest, Look, MixRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from service.inference.engine import Atelier
    from service.inference.inputs import Plan

router = APIRouter(route_class=Bare)

STRIP_COLUMNS = 16


@router.post(
    "/v1/generate",
    openapi_extra=openapi.body(GenerateRequest),
    **openapi.answers(openapi.GENERATE, *openapi.POSTED, headers=openapi.IMAGE_HEADERS),
)
async def generate(request: Request) -> Response:
    """Images of seeds or latents."""
    from service.inference import inputs

    atelier, form, body = await _asked(request, GenerateRequest, negotiation.GENERATE_FORMS)
    plan = inputs.generation(body, atelier.repository, atelier.settings)
    n = len(plan.latents)
    return await _answer(
        request,
        form,
        plan,
        body,
        columns=math.ceil(math.sqrt(n)),
        names=[f"seed-{s}" for s in plan.seeds] if plan.seeds else [f"image-{i:04}" for i in range(n)],
        entries=[{"seed": s} for s in plan.seeds or [None] * n],
    )


@router.post(
    "/v1/interpolate",
    openapi_extra=openapi.body(InterpolateRequest),
    **openapi.answers(openapi.INTERPOLATE, *openapi.POSTED, headers=openapi.IMAGE_HEADERS),
)
async def interpolate(request: Request) -> Response:
    """Frames along a path through latent space: each, an animation, or a strip."""
    from service.inference import inputs

    atelier, form, body = await _asked(request, InterpolateRequest, negotiation.INTERPOLATE_FORMS)
    plan = inputs.interpolation(body, atelier.repository, atelier.settings)
    n = len(plan.latents)
    return await _answer(
        request,
        form,
        plan,
        body,
        columns=STRIP_COLUMNS,
        names=[f"frame-{i:04}" for i in range(n)],
        entries=[{"frame": i} for i in range(n)],
        animated=body if form in (GIF, WEBP) else None,
        facts={"fps": body.fps, "loop": body.loop},
    )


@router.post(
    "/v1/mix",
    openapi_extra=openapi.body(MixRequest),
    **openapi.answers(openapi.MIX, *openapi.POSTED, headers=openapi.IMAGE_HEADERS),
)
async def mix(request: Request) -> Response:
    """The image of a weighted sum of latents; where the form holds several images, each term's after it."""
    from service.inference import inputs

    atelier, form, body = await _asked(request, MixRequest, negotiation.MIX_FORMS)
    plan = inputs.mixture(body, atelier.repository)
    if form in (PNG, WEBP, JPEG):
        plan = plan.first()
    terms = [{"seed": term.seed, "weight": term.weight} for term in body.terms]
    return await _answer(
        request,
        form,
        plan,
        body,
        columns=1,
        names=["mix", *(f"term-{i:02}" for i in range(len(terms)))],
        entries=[{"latent": [float(str(x)) for x in plan.latents[0]]}, *terms],  # the shortest digits that read back
        rest="terms",
    )


async def _asked(request: Request, schema: type[Body], forms: tuple[str, ...]) -> tuple["Atelier", str, Body]:
    """The service, the form that `Accept` chooses, and the body."""
    form = negotiation.choose(negotiation.header(request, "accept"), forms)
    return atelier_of(request), form, await negotiation.read(request, schema)


async def _answer(
    request: Request,
    form: str,
    plan: "Plan",
    look: Look,
    *,
    columns: int,
    names: list[str],
    entries: list[dict[str, Any]],
    animated: InterpolateRequest | None = None,
    facts: dict[str, Any] | None = None,
    rest: str | None = None,
) -> Response:
    """A plan's images in the form asked for.

    columns: of a grid when the request names none; names: in a zip, an image each; entries: in JSON, an image each;
    facts: in JSON, beside model and digest; rest: in JSON, the list of all images but the first.
    """
    from service import encoding
    from service.inference import inputs
    from service.sheets import Sheet, enlarged

    atelier, m, n = atelier_of(request), plan.generator.metadata, len(plan.latents)
    if form == NPY:
        pixels = inputs.array_pixels(plan, atelier.settings)
        inline = pixels * m.channels <= encoding.INLINE_BYTES
        content = await atelier.answer(plan, pixels, encoding.npy, request.receive, inline)
        return Response(content, media_type=NPY, headers=headers_of(plan))
    sheet = None
    if form in (PNG, WEBP, JPEG) and not animated:
        scale, columns = look.scale, min(n, look.columns or columns)
        sheet = Sheet(n, m.height * scale, m.width * scale, columns, look.padding if n > 1 else 0)
    if form == NPZ:
        pixels = inputs.array_pixels(plan, atelier.settings)
    else:
        held = f"image/{look.output_format}" if form in (JSON, ZIP) else form
        pixels = inputs.picture_pixels(plan, look, held, sheet, atelier.settings)

    def encoded(images: "NDArray[np.uint8]") -> bytes:
        if form == NPZ:
            seeds = plan.seeds if plan.seeds and len(plan.seeds) == n else None
            beside = {"latents": plan.latents, "labels": plan.labels, "seeds": seeds}
            return encoding.npz(images, **beside, model=m.name, digest=m.digest)
        images = enlarged(images, look.scale)
        if animated:
            return encoding.animation(images, form[6:], animated.fps, animated.loop, look.quality)
        if sheet:
            return encoding.still(sheet.of(images), form[6:], look.quality)
        if form == ZIP:
            return encoding.archive(images, _unique(names), look.output_format, look.quality)
        document = {**facts_of(plan), "output_format": look.output_format, **(facts or {})}
        listed = entries
        if plan.labels is not None:
            listed = [{**entry, "label": int(label)} for entry, label in zip(entries, plan.labels, strict=True)]
        return encoding.document(images, document, listed, look.output_format, look.quality, rest)

    content = await atelier.answer(plan, pixels, encoded, request.receive)
    return Response(content, media_type=form, headers=headers_of(plan))


def _unique(names: list[str]) -> list[str]:
    """A seed asked for twice gets a second name, as a zip cannot hold one name twice."""
    return names if len(set(names)) == len(names) else [f"{i:04}-{name}" for i, name in enumerate(names)]
