"""Content negotiation: Accept headers, media types and ETags."""

from functools import lru_cache

from service.errors import ApiError

JSON, PNG, GIF, WEBP, JPEG = "application/json", "image/png", "image/gif", "image/webp", "image/jpeg"
NPY, NPZ, ZIP = "application/x-npy", "application/x-npz", "application/zip"
GENERATE_MEDIA_TYPES = MIX_MEDIA_TYPES = (JSON, PNG, WEBP, JPEG, NPY, NPZ, ZIP)
INTERPOLATE_MEDIA_TYPES = (JSON, GIF, WEBP, PNG, JPEG, NPY, NPZ, ZIP)

MAX_ACCEPTED = 100  # media types that are read of an Accept header


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


def etag_matches(if_none_match: str, etag: str) -> bool:
    """Return whether If-None-Match (a list of tags, or *) has a tag, compared weakly (RFC 9110 §13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags
