"""Answer formats: the size of an answer, and one renderer per format that encodes its images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
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
    """What a route answers with.

    Attributes:
        media_type: Its format.
        inputs: The images, which are not generated yet.
        options: What images look like.
        columns: Columns of a grid if the request has none.
        names: File names in a zip, one per image.
        entries: JSON fields, one dict per image.
        fields: Further JSON fields of the document.
        rest_key: JSON key of the list of all images but the first; None for one list.
    """

    media_type: str
    inputs: InferenceInputs
    options: OutputOptions
    columns: int = 1
    names: Sequence[str] = ()
    entries: Sequence[dict[str, Any]] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    rest_key: str | None = None

    @property
    def is_animated(self) -> bool:
        """Whether the answer is an animation."""
        return isinstance(self.options, InterpolateRequest) and self.media_type in (GIF, WEBP)

    @property
    def image_format(self) -> str:
        """Format of the images: that of the answer if it is a picture, else of those in JSON or zip."""
        prefix, _, subtype = self.media_type.partition("/")
        return subtype if prefix == "image" else self.options.output_format

    @cached_property
    def grid(self) -> GridLayout | None:
        """The grid of all images, if the answer is one picture; a single image is a grid of one."""
        if self.media_type not in (PNG, WEBP, JPEG) or self.is_animated:
            return None
        n, m, options = len(self.inputs), self.inputs.generator.metadata, self.options
        columns = min(n, options.columns or self.columns)
        padding = options.padding if n > 1 else 0
        return GridLayout(n, m.height * options.scale, m.width * options.scale, columns, padding)


def render(answer: Answer, settings: Settings) -> tuple[int, Callable[[Images], bytes]]:
    """Return the size of an answer in pixels, and the function that encodes its images.

    Raises:
        ApiError: 422 if the answer would be too large.
    """
    if answer.media_type in (NPY, NPZ):
        pixels = array_pixels(answer.inputs, settings)
    else:
        pixels = picture_pixels(answer, settings)
    if answer.media_type == NPY:
        return pixels, encoding.encode_npy
    renderer = _render_animation if answer.is_animated else _RENDERERS[answer.media_type]
    return pixels, partial(renderer, answer)


def _render_npz(answer: Answer, images: Images) -> bytes:
    inputs, m = answer.inputs, answer.inputs.generator.metadata
    seeds = inputs.seeds if inputs.seeds and len(inputs.seeds) == len(inputs) else None
    arrays = {"latents": inputs.latents, "labels": inputs.labels, "seeds": seeds}
    return encoding.encode_npz(images, **arrays, model=m.name, digest=m.digest)


def _render_grid(answer: Answer, images: Images) -> bytes:
    assert answer.grid is not None
    picture = answer.grid.assemble(encoding.enlarge(images, answer.options.scale))
    return encoding.encode_image(picture, answer.image_format, answer.options.quality)


def _render_animation(answer: Answer, images: Images) -> bytes:
    options = answer.options
    assert isinstance(options, InterpolateRequest)
    frames = encoding.enlarge(images, options.scale)
    return encoding.encode_animation(frames, answer.image_format, options.fps, options.loop, options.quality)


def _render_zip(answer: Answer, images: Images) -> bytes:
    names = answer.names
    if len(set(names)) < len(names):  # a seed was requested twice, and a zip cannot hold one name twice
        names = [f"{i:04}-{name}" for i, name in enumerate(names)]
    images = encoding.enlarge(images, answer.options.scale)
    return encoding.encode_zip(images, names, answer.image_format, answer.options.quality)


def _render_json(answer: Answer, images: Images) -> bytes:
    inputs, options, entries = answer.inputs, answer.options, answer.entries
    m = inputs.generator.metadata
    fields = {"created": int(datetime.now(UTC).timestamp()), "model": m.name, "digest": m.digest}
    fields |= {"output_format": options.output_format, **answer.fields}
    if inputs.labels is not None:
        entries = [{**entry, "label": int(label)} for entry, label in zip(entries, inputs.labels, strict=True)]
    images = encoding.enlarge(images, options.scale)
    return encoding.encode_json(images, fields, entries, answer.image_format, options.quality, answer.rest_key)


_RENDERERS = {
    NPZ: _render_npz,
    ZIP: _render_zip,
    JSON: _render_json,
    **dict.fromkeys((PNG, WEBP, JPEG), _render_grid),
}


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


def picture_pixels(answer: Answer, settings: Settings) -> int:
    """Return the pixels of the images as pictures, one each or all in a grid.

    Raises:
        ApiError: 422 if there are too many pixels, or if a picture is larger than its format allows.
    """
    n, m, options, grid = len(answer.inputs), answer.inputs.generator.metadata, answer.options, answer.grid
    height, width = grid.size if grid else (m.height * options.scale, m.width * options.scale)
    pixels = height * width * (1 if grid else n)
    if (options.scale > 1 or options.padding) and pixels > settings.max_scaled_pixels:
        message = f"{n} images at scale {options.scale} have {pixels} pixels; {settings.max_scaled_pixels} are allowed"
        raise unprocessable("scale_too_large", f"{message}: lower scale", "scale")
    _check_size(answer.inputs, pixels, settings)
    media_type = f"image/{answer.image_format}"
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
