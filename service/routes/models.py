"""The served models, and the limits of a request."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from service.routes import get_engine, openapi
from service.routes.negotiation import JSON
from service.routes.schemas import MAX_TERMS

router = APIRouter()

LIMITS = (
    *("max_images", "max_frames", "max_keyframes", "max_body_bytes", "max_queue_rows"),
    *("max_scaled_pixels", "max_encoding_pixels", "deadline_s"),
)


@router.get("/v1/models", **openapi.responses({JSON: None}, 503))
@router.head("/v1/models", include_in_schema=False, response_model=None)
async def models(request: Request) -> JSONResponse:
    """List the served models, the files that are not served and why, and the limits of a request."""
    engine = get_engine(request)
    limits = {name: getattr(engine.settings, name) for name in LIMITS} | {"max_terms": MAX_TERMS}
    return JSONResponse({**engine.repository.describe(), "limits": limits})


@router.get("/v1/models/{name}", openapi_extra=openapi.MODEL_PARAMETERS, **openapi.responses({JSON: None}, 404, 503))
@router.head("/v1/models/{name}", include_in_schema=False, response_model=None)
async def model(request: Request) -> JSONResponse:
    """Return one model's metadata, digest and scores."""
    repository = get_engine(request).repository
    generator = repository.get(request.path_params["name"])
    return JSONResponse({**generator.describe(), "default": generator.name == repository.default})
