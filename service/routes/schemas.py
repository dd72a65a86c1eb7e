"""Request bodies, with their bounds as types. `inference.inputs` checks what depends on the model or the settings."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, WithJsonSchema, model_validator

from artifacts.latents import NUM_SEEDS


def _integral(value: Any) -> Any:
    """Accept 12.0 as the integer 12 (JSON has one kind of number), but neither "12" nor true."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, (str, bool)):
        raise ValueError("must be an integer")
    return value


Integral = BeforeValidator(_integral)
Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=NUM_SEEDS), Integral]
Label = Annotated[int, Field(ge=0, lt=2**31), Integral]

# Each list is bounded and stops at its first error: a body of 4 MiB holds a million values, and an error for each would
# cost seconds and gigabytes. The limits of the settings are lower; `inference.inputs` checks them.
MAX_IMAGES = 65536
MAX_KEYFRAMES = 4096
MAX_LATENT = 2**20

Latent = Annotated[
    list[Annotated[Float, Field(ge=-1e6, le=1e6)]], Field(min_length=1, max_length=MAX_LATENT, fail_fast=True)
]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=MAX_IMAGES, fail_fast=True)]
Latents = Annotated[list[Latent], Field(min_length=1, max_length=MAX_IMAGES, fail_fast=True)]
Labels = Annotated[list[Label], Field(min_length=1, max_length=MAX_IMAGES, fail_fast=True)]
Truncation = Annotated[Float, Field(gt=0, le=100)]
ModelName = Annotated[str, Field(min_length=1, max_length=100)]

MAX_TERMS = 64  # of a mix

Scale = Annotated[int, Field(ge=1, le=16), Integral]
Quality = Annotated[int, Field(ge=1, le=100), Integral]


class OutputOptions(BaseModel):
    """What images look like; arrays (npy, npz) are always as generated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: Scale = Field(1, description="Integer factor by which images are enlarged, pixel by pixel")
    columns: Annotated[int, Field(ge=1, le=65536), Integral] | None = Field(
        None, description="Images per row of a grid. Default: as square as possible; 16 frames per row of a strip"
    )
    padding: Annotated[int, Field(ge=0, le=64), Integral] = Field(
        0, description="Black (of RGBA, transparent) pixels between the images of a grid or strip, after enlarging"
    )
    quality: Quality | None = Field(
        None, description="JPEG quality, 90 by default; with it, WebP is lossy, and lossless without"
    )
    output_format: Literal["png", "webp", "jpeg"] = Field(
        "png", description="Format of the images in JSON and zip; jpeg draws RGBA over white"
    )


class ModelRef(BaseModel):
    """A request to one model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName | None = Field(None, description="Name from /v1/models. Default: the default model")


class ImageSpec(ModelRef):
    """Which images: `seed` and `n`, or `seeds`, or `latents`. Without any of them a seed is drawn and returned."""

    n: Annotated[int, Field(ge=1), Integral] | None = Field(
        None, description="Number of images: seeds seed … seed+n-1. Default: 1"
    )
    seed: Seed | None = Field(None, description="First seed")
    seeds: Seeds | None = Field(None, description="One seed per image")
    latents: Latents | None = Field(None, description="One latent of z_dim numbers per image, instead of seeds")
    labels: Labels | None = Field(
        None, description="Class indices of a conditional model: one for all images, or one per image"
    )
    truncation: Truncation | None = Field(
        None, description="Draw normal latents from [-t, t] only: smaller values give more typical, less varied images"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "ImageSpec":
        given = [key for key in ("seed", "seeds", "latents") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"give only one of seed, seeds and latents, not {' and '.join(given)}")
        for key in ("seeds", "latents"):
            values = getattr(self, key)
            if values is not None and self.n not in (None, len(values)):
                raise ValueError(f"n is {self.n}, but {key} has {len(values)}; omit n")
        if self.seed is not None and self.seed + (self.n or 1) > NUM_SEEDS:
            raise ValueError(f"seed + n exceeds 2^53; the last seed is {NUM_SEEDS - 1}")
        if self.latents is not None and self.truncation is not None:
            raise ValueError("truncation applies to latents drawn from seeds; omit it with latents")
        return self


class GenerateRequest(OutputOptions, ImageSpec):
    """Which images, and what they look like."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"seed": 0, "n": 16}]})


class Keyframe(BaseModel):
    """A point of latent space: a seed or a latent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: Seed | None = None
    latent: Latent | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Keyframe":
        if (self.seed is None) == (self.latent is None):
            raise ValueError("give either a seed or a latent")
        return self


def _keyframe(value: Any) -> Any:
    """Accept a number as a seed, and a list as a latent."""
    if isinstance(value, list):
        return {"latent": value}
    return value if isinstance(value, (dict, Keyframe)) else {"seed": value}


_KEYFRAME_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": NUM_SEEDS - 1, "title": "seed"},
        {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MAX_LATENT, "title": "latent"},
        {
            "type": "object",
            "properties": {
                "seed": {"type": "integer", "minimum": 0, "maximum": NUM_SEEDS - 1},
                "latent": {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MAX_LATENT},
            },
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
        },
    ]
}
KeyframeField = Annotated[Keyframe, BeforeValidator(_keyframe), WithJsonSchema(_KEYFRAME_SCHEMA)]


class InterpolateRequest(OutputOptions, ModelRef):
    """A path through latent space: `steps` frames from each keyframe to the next, including both."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"keyframes": [0, 1, 2], "steps": 16}]})

    keyframes: Annotated[list[KeyframeField], Field(min_length=2, max_length=MAX_KEYFRAMES, fail_fast=True)] = Field(
        description="Two or more, each a seed, a latent, {seed} or {latent}"
    )
    steps: Annotated[int, Field(ge=2), Integral] = Field(
        16,
        description="Frames per segment, including both its keyframes; a shared keyframe appears once, so "
        "K keyframes give (K-1)(steps-1)+1 frames, K(steps-1) with loop",
    )
    mode: Literal["slerp", "lerp"] | None = Field(
        None, description="Default: slerp for normal latents, lerp for uniform ones"
    )
    easing: Literal["linear", "ease_in", "ease_out", "ease_in_out"] = "linear"
    loop: Annotated[bool, Strict()] = Field(
        False, description="Return to the first keyframe, and repeat an animation forever"
    )
    fps: Annotated[Float, Field(ge=1, le=50)] = Field(12.0, description="Frames per second of an animation")
    labels: Labels | None = Field(
        None, description="Class indices of a conditional model: one for all keyframes, or one per keyframe"
    )
    truncation: Truncation | None = None


class Term(Keyframe):
    """A seed or a latent, its weight in the sum, and its label if the model is conditional."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["seed"]}, {"required": ["latent"]}]})

    weight: Annotated[Float, Field(ge=-100, le=100)] = 1.0
    label: Label | None = Field(
        None, description="Class index. Default: the one that the seed draws; for a latent, that in `labels`"
    )


class MixRequest(OutputOptions, ModelRef):
    """Vector arithmetic: the image of a weighted sum of latents, and the image of each term."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"terms": [{"seed": 0}, {"seed": 1, "weight": -1}, {"seed": 2}]}]}
    )

    terms: Annotated[list[Term], Field(min_length=1, max_length=MAX_TERMS, fail_fast=True)]
    normalize: Annotated[bool, Strict()] = Field(
        True,
        description="Rescale the sum to the distribution of a single latent: normal latents to the norm of the "
        "terms, uniform ones to their weighted mean. false: do not rescale",
    )
    labels: Annotated[list[Label], Field(min_length=1, max_length=1, fail_fast=True)] | None = Field(
        None, description="Class index of the sum. Default: that of the term with the largest absolute weight"
    )
    truncation: Truncation | None = Field(None, description="Truncation of the terms that are seeds")


class ImageQuery(BaseModel):
    """Query of the image resource, whose values are numbers in text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    truncation: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None
    label: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    scale: Annotated[int, Field(ge=1, le=16)] = Field(
        1, description="Integer factor by which the image is enlarged, pixel by pixel"
    )
    quality: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="Quality of .jpg, 90 by default; with it, .webp is lossy, and lossless without"
    )
    digest: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | None = Field(
        None, description="The model's digest or its beginning; the image may then be cached forever"
    )
