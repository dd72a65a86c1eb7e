"""From a valid body to rows for the batcher: the checks that need the model or the settings."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifacts.latents import NUM_SEEDS, seeds_to_latents
from service.errors import ApiError, invalid
from service.inference import interpolation as z
from service.models.repository import Generator, Repository
from service.routes.schemas import InterpolateRequest, Keyframe, Look, MixRequest, Wanted
from service.settings import Settings
from service.sheets import MAX_SIDE, Sheet

BYTES_PER_PIXEL = 4  # of an answer; one with more counts as more pixels


@dataclass(frozen=True)
class Plan:
    """Rows to run: latents float32 [N, z_dim], labels int64 [N] or None; `seeds` if seeds made them.

    For an interpolation the rows are frames, and `seeds` those of its keyframes.
    """

    generator: Generator
    latents: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    seeds: tuple[int, ...] | None

    def first(self) -> "Plan":
        """The first row alone."""
        labels = None if self.labels is None else self.labels[:1]
        return Plan(self.generator, self.latents[:1], labels, self.seeds and self.seeds[:1])


def generation(body: Wanted, repository: Repository, settings: Settings) -> Plan:
    """ApiError: unknown model, too many images, or fields that do not fit this model."""
    generator = repository.get(body.model)
    n = len(body.seeds or body.latents or ()) or body.n or 1
    if n > settings.max_images:
        field = "seeds" if body.seeds else "latents" if body.latents else "n"
        told = n if n < 10**12 else "so many"
        message = f"{told} images are more than the {settings.max_images} a request may ask for; split it"
        raise invalid("too_many_images", message, field)
    if body.latents is not None:
        latents = _given_latents(body.latents, generator, "latents")
        return Plan(generator, latents, _labels(body.labels, n, generator, None), None)
    if body.seeds is not None:
        seeds = tuple(body.seeds)
    else:
        first = secrets.randbelow(NUM_SEEDS - n) if body.seed is None else body.seed
        seeds = tuple(range(first, first + n))
    latents, drawn = _drawn(seeds, generator, body.truncation)
    return Plan(generator, latents, _labels(body.labels, n, generator, drawn), seeds)


def interpolation(body: InterpolateRequest, repository: Repository, settings: Settings) -> Plan:
    """ApiError: as `generation`, and too many keyframes or frames."""
    generator = repository.get(body.model)
    count = len(body.keyframes)
    if count > settings.max_keyframes:
        message = f"{count} keyframes are more than the {settings.max_keyframes} allowed"
        raise invalid("too_many_keyframes", message, "keyframes")
    frames = z.frame_count(count, body.steps, body.loop)
    if frames > settings.max_frames:
        told = frames if frames < 10**12 else "too many"
        message = f"these keyframes and steps make {told} frames; {settings.max_frames} are allowed: lower steps"
        raise invalid("too_many_frames", message, "steps")
    seeds = tuple(k.seed for k in body.keyframes if k.seed is not None)
    keys, drawn = _points(body.keyframes, generator, body.truncation, "keyframes")
    key_labels = _labels(body.labels, count, generator, drawn)
    mode: z.Mode = body.mode or ("slerp" if generator.metadata.z_distribution == "normal" else "lerp")
    rows, nearest = z.path(keys, body.steps, mode, body.easing, body.loop)
    return Plan(
        generator,
        rows,
        None if key_labels is None else key_labels[nearest],
        seeds if len(seeds) == count else None,
    )


def mixture(body: MixRequest, repository: Repository) -> Plan:
    """Rows: the sum first, then each term. ApiError: as `generation`, and terms that cancel."""
    generator = repository.get(body.model)
    m = generator.metadata
    terms, labels = _points(body.terms, generator, body.truncation, "terms")
    weights = [term.weight for term in body.terms]
    given = [term.label for term in body.terms]
    if labels is not None:
        default = _labels(body.labels, 1, generator, np.array([-1])) if body.labels else None
        for i, label in enumerate(given):
            if label is not None and label >= m.num_classes:
                message = f"labels of {m.name} are 0 to {m.num_classes - 1}, not {label}"
                raise invalid("unknown_label", message, f"terms.{i}.label")
            if label is not None:
                labels[i] = label
            elif labels[i] < 0:
                if default is None:
                    message = f"{m.name} is conditional: a term that is a latent needs a label, or the sum needs labels"
                    raise invalid("labels_required", message, f"terms.{i}.label")
                labels[i] = default[0]
        heaviest = int(np.argmax(np.abs(weights)))
        labels = np.concatenate([labels[heaviest : heaviest + 1] if default is None else default, labels])
    elif body.labels is not None or any(label is not None for label in given):
        param = "labels" if body.labels else f"terms.{next(i for i, v in enumerate(given) if v is not None)}.label"
        raise invalid("model_has_no_labels", f"{m.name} is not conditional; leave labels out", param)
    try:
        total = z.weighted_sum(terms, weights, m.z_distribution, body.normalize)
    except ValueError as error:
        message = f"{error}: change the weights, or say normalize: false"
        raise invalid("terms_cancel", message, "terms") from None
    return Plan(generator, np.concatenate([total[None], terms]), labels, None)


def _points(
    points: Sequence[Keyframe], generator: Generator, truncation: float | None, param: str
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Their latents [K, z_dim], and for a conditional model the labels that the seeds draw, −1 for a latent."""
    latents = np.empty((len(points), generator.metadata.z_dim), np.float32)
    labels: NDArray[np.int64] | None = np.full(len(points), -1, np.int64) if generator.metadata.num_classes else None
    seeds = [p.seed for p in points if p.seed is not None]
    from_seed = np.array([p.seed is not None for p in points])
    if seeds:
        latents[from_seed], drawn = _drawn(seeds, generator, truncation)
        if labels is not None and drawn is not None:
            labels[from_seed] = drawn
    elif truncation is not None:
        message = f"truncation is of latents drawn from seeds; none of {param} is a seed"
        raise invalid("invalid_field", message, "truncation")
    for i, point in enumerate(points):
        if point.latent is not None:
            latents[i] = _given_latents([point.latent], generator, f"{param}.{i}")[0]
    return latents, labels


def picture_pixels(plan: Plan, look: Look, form: str, sheet: Sheet | None, settings: Settings) -> int:
    """Pixels of the plan's images as pictures of media type `form`, one each or on a `sheet`.

    ApiError: enlarged or padded they are too many, or a picture is larger than its format can be.
    """
    n, m = len(plan.latents), plan.generator.metadata
    height, width = (m.height * look.scale, m.width * look.scale) if sheet is None else sheet.size
    pixels = height * width * (n if sheet is None else 1)
    if (look.scale > 1 or look.padding) and pixels > settings.max_scaled_pixels:
        message = f"{n} images at scale {look.scale} have {pixels} pixels; {settings.max_scaled_pixels} are allowed"
        raise invalid("scale_too_large", f"{message}: lower scale", "scale")
    _check_answer(plan, pixels, settings)
    if max(height, width) > MAX_SIDE[form]:
        told = f"a picture of {width} x {height} pixels is more than {form} can hold ({MAX_SIDE[form]} a side)"
        field = "scale" if sheet is None or sheet.n == 1 else "columns"
        raise invalid("picture_too_large", f"{told}: choose other {field}, or image/png", field)
    return pixels


def array_pixels(plan: Plan, settings: Settings, bytes_per_value: int = 1) -> int:
    """Return what an answer with the plan's images as they are (npy, npz, numbers in JSON) counts, in pixels.

    Args:
        plan: The rows.
        settings: `max_encoding_pixels` bounds the answer, in pixels and in four bytes per pixel.
        bytes_per_value: Bytes of the answer per channel of a pixel.

    Raises:
        ApiError: 422 if the answer would be too large.
    """
    m = plan.generator.metadata
    pixels = len(plan.latents) * m.height * m.width
    pixels = max(pixels, pixels * m.channels * bytes_per_value // BYTES_PER_PIXEL)
    _check_answer(plan, pixels, settings)
    return pixels


def _check_answer(plan: Plan, pixels: int, settings: Settings) -> None:
    """Raise ApiError 422 if several images together are more than one answer may hold."""
    n, most = len(plan.latents), settings.max_encoding_pixels
    if n > 1 and pixels > most:
        fewer = max(1, n * most // pixels)
        message = f"{n} images count as {pixels} pixels; {most} are allowed in one answer: request {fewer} at a time"
        raise invalid("answer_too_large", message)


def _drawn(
    seeds: Sequence[int], generator: Generator, truncation: float | None
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    m = generator.metadata
    if truncation is not None and m.z_distribution != "normal":
        message = f"{m.name} has uniform latents; truncation is of normal ones: leave it out"
        raise invalid("truncation_of_uniform", message, "truncation")
    return seeds_to_latents(seeds, m.z_dim, m.z_distribution, truncation, m.num_classes)


def _given_latents(latents: Sequence[Sequence[float]], generator: Generator, param: str) -> NDArray[np.float32]:
    z_dim = generator.metadata.z_dim
    for i, row in enumerate(latents):
        if len(row) != z_dim:
            at = f"{param}.{i}" if param == "latents" else param
            message = f"a latent of {generator.metadata.name} has {z_dim} numbers; {at} has {len(row)}"
            raise invalid("wrong_latent_width", message, at)
    return np.array(latents, np.float32)


def _labels(
    given: Sequence[int] | None, n: int, generator: Generator, drawn: NDArray[np.int64] | None
) -> NDArray[np.int64] | None:
    """The labels given (one, or one a row), else those that the seeds draw; None for no classes."""
    m = generator.metadata
    if not m.num_classes:
        if given is not None:
            raise invalid("model_has_no_labels", f"{m.name} is not conditional; leave labels out", "labels")
        return None
    if given is None:
        if drawn is None or (drawn < 0).any():
            raise invalid("labels_required", f"{m.name} is conditional: latents need labels", "labels")
        return drawn
    if len(given) not in (1, n):
        raise invalid("wrong_label_count", f"give 1 label or {n}; there are {len(given)}", "labels")
    if max(given) >= m.num_classes:
        raise invalid("unknown_label", f"labels of {m.name} are 0 to {m.num_classes - 1}, not {max(given)}", "labels")
    return np.broadcast_to(np.array(given, np.int64), (n,))


def digest_matches(generator: Generator, prefix: str | None) -> None:
    """ApiError 404: the model has changed since a link that names its digest was made."""
    if prefix is not None and not generator.metadata.digest.startswith(prefix):
        message = f"{generator.metadata.name} now has digest {generator.metadata.digest[:12]}, not {prefix[:12]}"
        raise ApiError(404, "digest_mismatch", message, "digest")
