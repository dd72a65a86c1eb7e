"""Turn a valid request body into rows for inference: the checks that need the model or the settings."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifacts.latents import NUM_SEEDS, seeds_to_latents
from service.errors import ApiError, unprocessable
from service.inference import interpolation
from service.models.repository import Repository
from service.models.served_model import ServedModel
from service.routes.schemas import ImageSpec, InterpolateRequest, Keyframe, MixRequest
from service.settings import Settings

Latents = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class InferenceInputs:
    """Rows to run.

    Attributes:
        generator: The model.
        latents: float32 [N, z_dim].
        labels: int64 [N]; None if the model is not conditional.
        seeds: Seeds of the rows, or of the keyframes of an interpolation; None if a latent was given.
    """

    generator: ServedModel
    latents: Latents
    labels: Labels | None
    seeds: tuple[int, ...] | None

    def __len__(self) -> int:
        return len(self.latents)

    def first(self) -> "InferenceInputs":
        """Return the first row only."""
        labels = None if self.labels is None else self.labels[:1]
        return InferenceInputs(self.generator, self.latents[:1], labels, self.seeds and self.seeds[:1])


def resolve_generate(body: ImageSpec, repository: Repository, settings: Settings) -> InferenceInputs:
    """Return one row per seed or latent.

    Raises:
        ApiError: If the model is unknown, there are too many images, or a field does not fit the model.
    """
    generator = repository.get(body.model)
    n = len(body.seeds or body.latents or ()) or body.n or 1
    if n > settings.max_images:
        field = "seeds" if body.seeds else "latents" if body.latents else "n"
        message = f"{_count(n)} images are more than the {settings.max_images} allowed per request; split it"
        raise unprocessable("too_many_images", message, field)
    if body.latents is not None:
        latents = _given_latents(body.latents, generator, "latents")
        return InferenceInputs(generator, latents, _labels(body.labels, n, generator, None), None)
    if body.seeds is not None:
        seeds = tuple(body.seeds)
    else:
        first = secrets.randbelow(NUM_SEEDS - n) if body.seed is None else body.seed
        seeds = tuple(range(first, first + n))
    latents, drawn = _draw(seeds, generator, body.truncation)
    return InferenceInputs(generator, latents, _labels(body.labels, n, generator, drawn), seeds)


def resolve_interpolate(body: InterpolateRequest, repository: Repository, settings: Settings) -> InferenceInputs:
    """Return one row per frame.

    Raises:
        ApiError: As `resolve_generate`, and if there are too many keyframes or frames.
    """
    generator = repository.get(body.model)
    count = len(body.keyframes)
    if count > settings.max_keyframes:
        message = f"{count} keyframes are more than the {settings.max_keyframes} allowed"
        raise unprocessable("too_many_keyframes", message, "keyframes")
    frames = interpolation.frame_count(count, body.steps, body.loop)
    if frames > settings.max_frames:
        message = f"these keyframes and steps make {_count(frames)} frames; {settings.max_frames} are allowed"
        raise unprocessable("too_many_frames", f"{message}: lower steps", "steps")
    seeds = tuple(k.seed for k in body.keyframes if k.seed is not None)
    keys, drawn = _keyframe_latents(body.keyframes, generator, body.truncation, "keyframes")
    key_labels = _labels(body.labels, count, generator, drawn)
    mode: interpolation.Mode = body.mode or ("slerp" if generator.metadata.z_distribution == "normal" else "lerp")
    rows, nearest = interpolation.interpolate(keys, body.steps, mode, body.easing, body.loop)
    labels = None if key_labels is None else key_labels[nearest]
    return InferenceInputs(generator, rows, labels, seeds if len(seeds) == count else None)


def resolve_mix(body: MixRequest, repository: Repository) -> InferenceInputs:
    """Return the row of the sum, and then one row per term.

    Raises:
        ApiError: As `resolve_generate`, and if the terms cancel.
    """
    generator = repository.get(body.model)
    terms, drawn = _keyframe_latents(body.terms, generator, body.truncation, "terms")
    labels = _mix_labels(body, generator, drawn)
    weights = [term.weight for term in body.terms]
    try:
        total = interpolation.weighted_sum(terms, weights, generator.metadata.z_distribution, body.normalize)
    except ValueError as error:
        message = f"{error}: change the weights, or set normalize to false"
        raise unprocessable("terms_cancel", message, "terms") from None
    return InferenceInputs(generator, np.concatenate([total[None], terms]), labels, None)


def _mix_labels(body: MixRequest, generator: ServedModel, drawn: Labels | None) -> Labels | None:
    """Return the labels of the sum and of each term: its own, the one that its seed draws, or the sum's."""
    m = generator.metadata
    given = [term.label for term in body.terms]
    if drawn is None:
        if body.labels is None and all(label is None for label in given):
            return None
        param = "labels" if body.labels else f"terms.{next(i for i, v in enumerate(given) if v is not None)}.label"
        raise _no_labels(generator, param)
    labels = drawn.copy()
    default = _labels(body.labels, 1, generator, None) if body.labels else None
    for i, label in enumerate(given):
        if label is not None and label >= m.num_classes:
            raise _unknown_label(generator, label, f"terms.{i}.label")
        if label is not None:
            labels[i] = label
        elif labels[i] < 0:
            if default is None:
                message = f"{m.name} is conditional: a term that is a latent needs a label, or the sum needs labels"
                raise unprocessable("labels_required", message, f"terms.{i}.label")
            labels[i] = default[0]
    heaviest = int(np.argmax(np.abs([term.weight for term in body.terms])))
    return np.concatenate([labels[heaviest : heaviest + 1] if default is None else default, labels])


def _keyframe_latents(
    keyframes: Sequence[Keyframe], generator: ServedModel, truncation: float | None, param: str
) -> tuple[Latents, Labels | None]:
    """Return latents [K, z_dim], and for a conditional model the labels that the seeds draw, −1 for a latent."""
    latents = np.empty((len(keyframes), generator.metadata.z_dim), np.float32)
    labels = np.full(len(keyframes), -1, np.int64) if generator.metadata.num_classes else None
    seeds = [k.seed for k in keyframes if k.seed is not None]
    from_seed = np.array([k.seed is not None for k in keyframes])
    if seeds:
        latents[from_seed], drawn = _draw(seeds, generator, truncation)
        if labels is not None and drawn is not None:
            labels[from_seed] = drawn
    elif truncation is not None:
        message = f"truncation applies to latents drawn from seeds, but {param} has no seed"
        raise unprocessable("invalid_field", message, "truncation")
    for i, keyframe in enumerate(keyframes):
        if keyframe.latent is not None:
            latents[i] = _given_latents([keyframe.latent], generator, f"{param}.{i}")[0]
    return latents, labels


def _draw(seeds: Sequence[int], generator: ServedModel, truncation: float | None) -> tuple[Latents, Labels | None]:
    m = generator.metadata
    if truncation is not None and m.z_distribution != "normal":
        message = f"{m.name} has uniform latents, but truncation applies to normal ones; omit it"
        raise unprocessable("truncation_of_uniform", message, "truncation")
    return seeds_to_latents(seeds, m.z_dim, m.z_distribution, truncation, m.num_classes)


def _given_latents(latents: Sequence[Sequence[float]], generator: ServedModel, param: str) -> Latents:
    z_dim = generator.metadata.z_dim
    for i, row in enumerate(latents):
        if len(row) != z_dim:
            field = f"{param}.{i}" if param == "latents" else param
            message = f"a latent of {generator.metadata.name} has {z_dim} numbers, but {field} has {len(row)}"
            raise unprocessable("wrong_latent_width", message, field)
    return np.array(latents, np.float32)


def _labels(given: Sequence[int] | None, n: int, generator: ServedModel, drawn: Labels | None) -> Labels | None:
    """Return the given labels (one, or one per row), else those that the seeds draw; None without classes."""
    m = generator.metadata
    if not m.num_classes:
        if given is not None:
            raise _no_labels(generator, "labels")
        return None
    if given is None:
        if drawn is None or (drawn < 0).any():
            raise unprocessable("labels_required", f"{m.name} is conditional: latents need labels", "labels")
        return drawn
    if len(given) not in (1, n):
        raise unprocessable("wrong_label_count", f"give 1 or {n} labels, not {len(given)}", "labels")
    if max(given) >= m.num_classes:
        raise _unknown_label(generator, max(given), "labels")
    return np.broadcast_to(np.array(given, np.int64), (n,))


def _no_labels(generator: ServedModel, param: str) -> ApiError:
    return unprocessable("model_has_no_labels", f"{generator.metadata.name} is not conditional; omit labels", param)


def _unknown_label(generator: ServedModel, label: int, param: str) -> ApiError:
    m = generator.metadata
    return unprocessable("unknown_label", f"labels of {m.name} are 0 to {m.num_classes - 1}, not {label}", param)


def _count(n: int) -> str:
    """Return a number for a message; a body may give one with thousands of digits."""
    return str(n) if n < 10**12 else "over 10^12"


def require_digest(generator: ServedModel, prefix: str | None) -> None:
    """Raise ApiError 404 if the model has changed since a link with this beginning of its digest was made."""
    if prefix is not None and not generator.metadata.digest.startswith(prefix):
        message = f"{generator.metadata.name} now has digest {generator.metadata.digest[:12]}, not {prefix[:12]}"
        raise ApiError(404, "digest_mismatch", message, "digest")
