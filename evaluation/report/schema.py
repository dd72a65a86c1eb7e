"""The result document `report.json`: its fields, checked when it is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from evaluation.metrics.registry import FORMER_METRICS

FORMAT_VERSION = 2
NAME = "report.json"


# A metric by its present name, whichever is stored.
MetricName = Annotated[str, AfterValidator(lambda name: FORMER_METRICS.get(name, name))]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Interval(_Part):
    """Interval of the mean over disjoint ranges of seeds; the score is that mean."""

    low: float
    high: float
    mean: float
    level: float
    values: list[float]
    method: str


class Result(_Part):
    """One metric's value, and everything that it depends on."""

    name: str
    metric: MetricName
    title: str
    value: float
    std: float | None = None
    interval: Interval | None = None
    n: int
    n_reference: int
    extractor: str
    extractor_digest: str
    resize: str
    reference: str | None
    split: str | None
    resolution: int | str | None
    better: Literal["lower", "higher"]
    details: dict[str, Any] = Field(default_factory=dict)


class _Results(_Part):
    results: list[Result]

    def find(self, metric: str) -> Result | None:
        """Return the result of a metric, None if there is none."""
        return next((result for result in self.results if result.metric == metric), None)


class Baseline(_Results):
    """The same metrics of real images."""

    image_set: str
    against: str
    n: int


class Threshold(_Part):
    """Whether the first result is within `--fail-above`."""

    fail_above: float
    name: str
    passed: bool


class Checkpoint(_Results):
    """The scores of one checkpoint of a run."""

    checkpoint: str
    step: int | None = None
    images_seen: int | None = None
    warnings: list[str] = Field(default_factory=list)

    @property
    def seen(self) -> int | None:
        """Images seen, or the step where they are not known."""
        return self.images_seen or self.step


class _Resized(_Part):
    sides: list[int] = Field(alias="from", min_length=2, max_length=2)
    by: str


class Source(_Part):
    """Where the images came from."""

    kind: Any = None
    url: Any = None
    path: Any = None
    name: Any = None
    shape: list[int] | None = Field(default=None, min_length=3, max_length=3)
    resized: _Resized | None = None


class ExtractorInfo(_Part):
    """The extractor."""

    name: Any = None
    network: Any = None
    metric: Any = None
    dim: Any = None
    resize: Any = None
    digest: Any = None
    accuracy: float | None = None


class ImageSetInfo(_Part):
    """The image set of the real images."""

    name: str | None = None
    split: str | None = None
    fingerprint: str | None = None
    resolution: Any = None


class _Imported(_Part):
    sha256: str | None = None


class ReferenceInfo(_Part):
    """The reference statistics."""

    n: int | None = None
    sha256: str | None = None
    statistics_sha256: str | None = None
    image_set: ImageSetInfo = Field(default_factory=ImageSetInfo)
    imported: _Imported | None = None


class _Shard(_Part):
    seconds: float


class Timing(_Part):
    """Times and rates of the pass over the images."""

    seconds: float | None = None
    images_per_s: float | None = None
    generating_images_per_s: float | None = None
    extracting_images_per_s: float | None = None
    shards: list[_Shard] | None = None


class Report(_Results):
    """`report.json`, format version 2, kind `score`. Reports of earlier versions have no digest."""

    report_digest: str | None = None
    scores: dict[str, float] | None = None
    results: list[Result] = Field(min_length=1)
    baseline: Baseline | None = None
    threshold: Threshold | None = None
    n: int
    seeds: dict[Literal["first", "last"], int] | None = None
    labels: Any = None
    truncation: float | None = None
    warnings: list[str] = Field(default_factory=list)
    source: Source
    service: dict[str, Any] | None = None
    model: str | None = None
    digest: str | None = None
    images_seen: int | None = None
    extractor: ExtractorInfo
    reference: ReferenceInfo
    pictures: dict[str, str] | None = None
    timing: Timing
    versions: dict[str, str]
    created: str
    command: str
    checkpoints: list[Checkpoint] = Field(default_factory=list)

    @property
    def title(self) -> str:
        """The model's name, or the source of the images."""
        return self.model or str(self.source.name or self.source.path or self.source.kind)

    def real_value(self, result: Result) -> float | None:
        """Return the same score of real images: the baseline's, or the held-out images' share of near-copies."""
        if result.metric == "memorization":
            return result.details.get("held_out_share")
        real = None if self.baseline is None else self.baseline.find(result.metric)
        return None if real is None else real.value

    def all_results(self) -> Iterator[Result]:
        """Yield the results of the report, of its baseline and of its checkpoints."""
        for part in (self, self.baseline, *self.checkpoints):
            yield from () if part is None else part.results


class _ClassRow(_Part):
    label: int
    value: float
    n: int
    n_reference: int


class _PerClassDetails(_Part):
    classes: list[_ClassRow]


class _Pair(_Part):
    sample: int
    distance: float


class _MemorizationDetails(_Part):
    threshold: float
    median: float
    held_out_share: float
    held_out_median: float
    median_ratio: float | None = None
    nearest: list[_Pair] = Field(default_factory=list)


class _Curve(_Part):
    n: list[PositiveInt]
    value: list[float]


class _ExtrapolationDetails(_Part):
    curve: _Curve | None = None
    first_range: float | None = None


# The parts of a metric's details that the views read.
DETAILS: dict[str, type[BaseModel]] = {
    "per_class": _PerClassDetails,
    "memorization": _MemorizationDetails,
    "fid_infinity": _ExtrapolationDetails,
}
