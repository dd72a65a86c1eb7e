"""From a valid body to rows for the batcher: the checks that need the model or the settings."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service import latents as z
from service.errors import ApiError, invalid
from service.models import Generator, Repository
from service.schemas import GenerateRequest, InterpolateRequest
from service.settings import Settings


@dataclass(frozen=True)
class Plan:
    """Rows to run: latents float32 [N, z_dim], labels int64 [N] or None; `seeds` if seeds made them.

    For an interpolation the rows are frames, and `seeds` those of its keyframes.
    """

    generator: Generator
    latents: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    seeds: tuple[int, ...] | None


def generation(body: GenerateRequest, repository: Repository, settings: Settings) -> Plan:
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
        first = secrets.randbelow(z.SEEDS - n) if body.seed is None else body.seed
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
    keys = np.empty((count, generator.metadata.z_dim), np.float32)
    drawn: NDArray[np.int64] | None = np.full(count, -1, np.int64) if generator.metadata.num_classes else None
    from_seed = np.array([k.seed is not None for k in body.keyframes])
    if seeds:
        keys[from_seed], labels = _drawn(seeds, generator, body.truncation)
        if drawn is not None and labels is not None:
            drawn[from_seed] = labels
    elif body.truncation is not None:
        raise invalid("invalid_field", "truncation is of latents drawn from seeds; no keyframe is a seed", "truncation")
    for i, keyframe in enumerate(body.keyframes):
        if keyframe.latent is not None:
            keys[i] = _given_latents([keyframe.latent], generator, f"keyframes.{i}")[0]
    key_labels = _labels(body.labels, count, generator, drawn)
    mode: z.Mode = body.mode or ("slerp" if generator.metadata.z_distribution == "normal" else "lerp")
    rows, nearest = z.path(keys, body.steps, mode, body.easing, body.loop)
    return Plan(
        generator,
        rows,
        None if key_labels is None else key_labels[nearest],
        seeds if len(seeds) == count else None,
    )


def picture_pixels(plan: Plan, scale: int, settings: Settings) -> int:
    """Pixels of the plan's images as pictures at `scale`. ApiError: enlarged, they are too many."""
    n, m = len(plan.latents), plan.generator.metadata
    pixels = n * m.height * m.width * scale**2
    if scale > 1 and pixels > settings.max_scaled_pixels:
        allowed = settings.max_scaled_pixels
        message = f"{n} images at scale {scale} have {pixels} pixels; {allowed} are allowed: lower scale"
        raise invalid("scale_too_large", message, "scale")
    return pixels


def _drawn(
    seeds: Sequence[int], generator: Generator, truncation: float | None
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    m = generator.metadata
    if truncation is not None and m.z_distribution != "normal":
        message = f"{m.name} has uniform latents; truncation is of normal ones: leave it out"
        raise invalid("truncation_of_uniform", message, "truncation")
    return z.seeds_to_latents(seeds, m.z_dim, m.z_distribution, truncation, m.num_classes)


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
