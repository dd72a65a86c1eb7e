"""What is served: the models and the limits of a request."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from service.routes import openapi
from service.routes.headers import atelier_of
from service.routes.negotiation import JSON
from service.routes.schemas import MAX_TERMS

router = APIRouter()


@router.get("/v1/models", **openapi.answers({JSON: None}, 503))
@router.head("/v1/models", include_in_schema=False, response_model=None)
async def models(request: Request) -> JSONResponse:
    """The models that are served, the files that are not and why, and the limits of a request."""
    atelier = atelier_of(request)
    repository, s = atelier.repository, atelier.settings
    return JSONResponse(
        {
            **repository.describe(),
            "limits": {
                "max_images": s.max_images,
                "max_frames": s.max_frames,
                "max_keyframes": s.max_keyframes,
                "max_terms": MAX_TERMS,
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
@router.head("/v1/models/{name}", include_in_schema=False, response_model=None)
async def model(request: Request, name: str) -> JSONResponse:
    """One model's metadata, digest and scores."""
    repository = atelier_of(request).repository
    generator = repository.get(name)
    return JSONResponse(
        {**generator.describe(), "default": generator.metadata.name == repository.default},
        headers={"Cache-Control": "no-store"},
    )
