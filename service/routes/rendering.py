"""Answer formats: one renderer per format, which checks the size of an answer and encodes its images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from service import encoding
from service.encoding import GridLayout, Images
from service.errors import unprocessable
from service.inference.inputs import InferenceInputs
from service.routes.negotiation import GIF, JPEG, JSON, NPY, NPZ, PNG, WEBP, ZIP
from service.routes.schemas import InterpolateRequest, OutputOptions
from service.settings import Settings

BYTES_PER_PIXEL = 4  # of an answer; one with more bytes counts as more pixels


@dataclass(frozen=True)
class Answer:
    """What a route answers with, in whichever format.

    Attributes:
        inputs: The images, which are not generated yet.
        options: What images look like.
        columns: Columns of a grid if the request has none.
        names: File names in a zip, one per image.
        entries: JSON fields, one dict per image.
        fields: Further JSON fields of the document.
        rest_key: JSON key of the list of all images but the first; None for one list.
        animation: Frames per second and looping, if the answer can be an animation.
    """

    inputs: InferenceInputs
    options: OutputOptions
    columns: int
    names: Sequence[str]
    entries: Sequence[dict[str, Any]]
    fields: dict[str, Any] = field(default_factory=dict)
    rest_key: str | None = None
    animation: InterpolateRequest | None = None


@dataclass(frozen=True)
class Rendering:
    """How to make the body of an answer.

    Attributes:
        pixels: Size for admission.
        encode: Makes the body of the images.
        inline: Whether encoding takes less time than waking a thread.
    """

    pixels: int
    encode: Callable[[Images], bytes]
    inline: bool = False


def render(media_type: str, answer: Answer, settings: Settings) -> Rendering:
    """Return the rendering of an answer in a format.

    Raises:
        ApiError: 422 if the answer would be too large.
    """
    if answer.animation and media_type in (GIF, WEBP):
        return _render_animation(media_type, answer, settings)
    return _RENDERERS[media_type](media_type, answer, settings)


def _render_npy(media_type: str, answer: Answer, settings: Settings) -> Rendering:
    pixels = array_pixels(answer.inputs, settings)
    inline = pixels * answer.inputs.generator.metadata.channels <= encoding.INLINE_BYTES
    return Rendering(pixels, encoding.encode_npy, inline)


def _render_npz(media_type: str, answer: Answer, settings: Settings) -> Rendering:
    inputs, m = answer.inputs, answer.inputs.generator.metadata
    seeds = inputs.seeds if inputs.seeds and len(inputs.seeds) == len(inputs) else None
    arrays = {"latents": inputs.latents, "labels": inputs.labels, "seeds": seeds, "model": m.name, "digest": m.digest}
    return Rendering(array_pixels(inputs, settings), lambda images: encoding.encode_npz(images, **arrays))


def _render_grid(media_type: str, answer: Answer, settings: Settings) -> Rendering:
    """All images in one picture; a single image is a grid of one."""
    n, m, options = len(answer.inputs), answer.inputs.generator.metadata, answer.options
    columns = min(n, options.columns or answer.columns)
    padding = options.padding if n > 1 else 0
    grid = GridLayout(n, m.height * options.scale, m.width * options.scale, columns, padding)

    def encode(images: Images) -> bytes:
        picture = grid.assemble(encoding.enlarge(images, options.scale))
        return encoding.encode_image(picture, _format(media_type), options.quality)

    return Rendering(picture_pixels(answer.inputs, options, media_type, settings, grid), encode)


def _render_animation(media_type: str, answer: Answer, settings: Settings) -> Rendering:
    options, animation = answer.options, answer.animation
    assert animation is not None

    def encode(images: Images) -> bytes:
        frames = encoding.enlarge(images, options.scale)
        return encoding.encode_animation(frames, _format(media_type), animation.fps, animation.loop, options.quality)

    return Rendering(picture_pixels(answer.inputs, options, media_type, settings), encode)


def _render_zip(media_type: str, answer: Answer, settings: Settings) -> Rendering:
    options, names = answer.options, answer.names
    if len(set(names)) < len(names):  # a seed that was requested twice; a zip cannot hold one name twice
        names = [f"{i:04}-{name}" for i, name in enumerate(names)]

    def encode(images: Images) -> bytes:
        enlarged = encoding.enlarge(images, options.scale)
        return encoding.encode_zip(enlarged, names, options.output_format, options.quality)

    return Rendering(picture_pixels(answer.inputs, options, f"image/{options.output_format}", settings), encode)


def _render_json(media_type: str, answer: Answer, settings: Settings) -> Rendering:
    inputs, options, entries = answer.inputs, answer.options, answer.entries
    if inputs.labels is not None:
        entries = [{**entry, "label": int(label)} for entry, label in zip(entries, inputs.labels, strict=True)]

    def encode(images: Images) -> bytes:
        fields = {**response_fields(inputs), "output_format": options.output_format, **answer.fields}
        enlarged = encoding.enlarge(images, options.scale)
        return encoding.encode_json(enlarged, fields, entries, options.output_format, options.quality, answer.rest_key)

    return Rendering(picture_pixels(inputs, options, f"image/{options.output_format}", settings), encode)


_RENDERERS: dict[str, Callable[[str, Answer, Settings], Rendering]] = {
    NPY: _render_npy,
    NPZ: _render_npz,
    ZIP: _render_zip,
    JSON: _render_json,
    **dict.fromkeys((PNG, WEBP, JPEG), _render_grid),
    GIF: _render_animation,
}


def response_fields(inputs: InferenceInputs) -> dict[str, Any]:
    """Return the JSON fields of every document with images."""
    m = inputs.generator.metadata
    return {"created": int(datetime.now(UTC).timestamp()), "model": m.name, "digest": m.digest}


def array_pixels(inputs: InferenceInputs, settings: Settings, bytes_per_value: int = 1) -> int:
    """Return the size, in pixels, of an answer with the images as they are (npy, npz, numbers in JSON).

    Args:
        inputs: The rows.
        settings: `max_encoding_pixels` limits the answer, in pixels and in four bytes per pixel.
        bytes_per_value: Bytes of the answer per channel of a pixel.

    Raises:
        ApiError: 422 if the answer would be too large.
    """
    m = inputs.generator.metadata
    pixels = len(inputs) * m.height * m.width
    pixels = max(pixels, pixels * m.channels * bytes_per_value // BYTES_PER_PIXEL)
    _check_size(inputs, pixels, settings)
    return pixels


def picture_pixels(
    inputs: InferenceInputs, options: OutputOptions, media_type: str, settings: Settings, grid: GridLayout | None = None
) -> int:
    """Return the pixels of the images as pictures of a media type, one each or all in a grid.

    Raises:
        ApiError: 422 if there are too many pixels, or if a picture is larger than its format allows.
    """
    n, m = len(inputs), inputs.generator.metadata
    height, width = grid.size if grid else (m.height * options.scale, m.width * options.scale)
    pixels = height * width * (1 if grid else n)
    if (options.scale > 1 or options.padding) and pixels > settings.max_scaled_pixels:
        message = f"{n} images at scale {options.scale} have {pixels} pixels; {settings.max_scaled_pixels} are allowed"
        raise unprocessable("scale_too_large", f"{message}: lower scale", "scale")
    _check_size(inputs, pixels, settings)
    if max(height, width) > encoding.MAX_SIDE[media_type]:
        limit = f"more than {media_type} can hold ({encoding.MAX_SIDE[media_type]} per side)"
        param = "columns" if grid and grid.n > 1 else "scale"
        message = f"a picture of {width} x {height} pixels is {limit}: change {param}, or use image/png"
        raise unprocessable("picture_too_large", message, param)
    return pixels


def _check_size(inputs: InferenceInputs, pixels: int, settings: Settings) -> None:
    """Raise ApiError 422 if several images together are more than one answer may hold."""
    n, limit = len(inputs), settings.max_encoding_pixels
    if n > 1 and pixels > limit:
        fewer = max(1, n * limit // pixels)
        message = f"{n} images count as {pixels} pixels; {limit} are allowed per answer: request {fewer} at a time"
        raise unprocessable("answer_too_large", message)


def _format(media_type: str) -> str:
    return media_type.removeprefix("image/")
