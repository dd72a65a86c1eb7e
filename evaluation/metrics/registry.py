"""The metrics that `--metrics` names: what each needs, and how it is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from artifacts.plugins import import_object, is_plugin

if TYPE_CHECKING:
    import numpy as np

# What a metric may need: of the images, of the reference, and of training and held-out images.
InputKind = Literal[
    "statistics",
    "features",
    "logits",
    "labels",
    "reference_statistics",
    "reference_features",
    "reference_labels",
    "train_features",
    "held_out_features",
]

# A name that ends in one of these would read as another metric: `fd_classifier_infinity10k`.
SUFFIXES = ("infinity", "per_class")
# Names for which `fd_NAME` or NAME already has a meaning.
RESERVED = frozenset(
    {
        *("classifier", "clean_fid", "efficientnet_lite0_160", "efficientnet_lite0_224", "fid", "inception"),
        *("inception_unverified", "random_convolutions", *SUFFIXES),
    }
)
MAX_NAME = 64
# Metrics of earlier versions, accepted for one release.
FORMER_METRICS = {"memorisation": "memorization"}
_NUM_PAIRS = 64


@dataclass(frozen=True)
class MetricOptions:
    """Settings that are part of a protocol. The defaults are the field's, and torch-fidelity's."""

    kid_subsets: int = 100
    kid_subset_size: int = 1000
    splits: int = 10
    precision_recall_k: int = 3
    density_coverage_k: int = 5
    infinity_points: int = 15
    near_copy_quantile: float = 0.01
    seed: int = 2020


@dataclass
class MetricInputs:
    """Arrays that metrics are computed from; None where an array was not kept.

    Attributes:
        mu: Mean of the images' features, float64 [d].
        sigma: Their covariance, float64 [d, d].
        features: Features in seed order, float [N, d], in memory or mapped from disk.
        logits: float [N, classes].
        labels: int [N].
        reference_mu: Mean of the real images' features, float64 [d].
        reference_sigma: Their covariance, float64 [d, d].
        reference_features: float [M, d].
        reference_labels: int [M].
        train_features: Features of the images that the generator was trained on, float [M, d].
        held_out_features: Features of real images that it was not trained on, float [M, d].
        options: Settings of the metrics.
    """

    mu: np.ndarray | None = None
    sigma: np.ndarray | None = None
    features: np.ndarray | None = None
    logits: np.ndarray | None = None
    labels: np.ndarray | None = None
    reference_mu: np.ndarray | None = None
    reference_sigma: np.ndarray | None = None
    reference_features: np.ndarray | None = None
    reference_labels: np.ndarray | None = None
    train_features: np.ndarray | None = None
    held_out_features: np.ndarray | None = None
    options: MetricOptions = field(default_factory=MetricOptions)

    def has(self, kind: InputKind) -> bool:
        """Return whether this input was kept."""
        start = kind.removesuffix("statistics")
        names = (f"{start}mu", f"{start}sigma") if start != kind else (kind,)
        return all(getattr(self, name) is not None for name in names)

    def get(self, name: str) -> np.ndarray:
        """Return an array by the name of its attribute; ValueError if it was not kept."""
        array: np.ndarray | None = getattr(self, name)
        if array is None:
            raise ValueError(f"there are no {name.replace('_', ' ')}")
        return array

    @cached_property
    def prdc(self) -> dict[str, float]:
        """Precision, recall, density and coverage, from one search over neighbors."""
        from evaluation.metrics.prdc import precision_recall_density_coverage

        return precision_recall_density_coverage(
            self.get("features"),
            self.get("reference_features"),
            precision_recall_k=self.options.precision_recall_k,
            density_coverage_k=self.options.density_coverage_k,
        )


@dataclass(frozen=True)
class MetricValue:
    """Value of a metric.

    Attributes:
        value: The score.
        std: Spread over subsets or splits where the metric has one; of an extrapolation, its standard error.
        details: Further JSON values that belong to the score.
    """

    value: float
    std: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A metric that `--metrics` can name.

    Attributes:
        name: Its name, or `package.module:ATTRIBUTE` for a metric from a user module.
        title: Its title in reports.
        better: Whether lower or higher values are better.
        needs: The inputs that it is computed from.
        compute: Computes it as a `MetricValue`, in which NumPy's types are converted to Python's; raises ValueError
            for inputs that are too small or not finite.
        inception_name: Start of its result's name in Inception's features; default: `name`.
        template: Start of its result's name in other features, whose name replaces `{}`; default: `name` and `_{}`.
    """

    name: str
    title: str
    better: Literal["lower", "higher"]
    needs: frozenset[InputKind]
    compute: Callable[[MetricInputs], MetricValue] = field(repr=False)
    inception_name: str = ""
    template: str = ""

    def __post_init__(self) -> None:
        """Fill in the names that follow from `name`; ValueError for a `better` or `needs` that does not exist."""
        if self.better not in ("lower", "higher"):
            raise ValueError(f"the metric {self.name} has better={self.better!r}, not 'lower' or 'higher'")
        known = get_args(InputKind)
        if isinstance(self.needs, str) or not isinstance(self.needs, Iterable):
            raise ValueError(f"the metric {self.name} has needs={self.needs!r}, not a set of {', '.join(known)}")
        needs = list(self.needs)
        if unknown := [kind for kind in needs if kind not in known]:
            raise ValueError(f"the metric {self.name} needs {unknown[0]!r}, which is not one of {', '.join(known)}")
        object.__setattr__(self, "needs", frozenset(needs))
        object.__setattr__(self, "inception_name", self.inception_name or self.name)
        object.__setattr__(self, "template", self.template or f"{self.name}_{{}}")

    @property
    def uses_covariance(self) -> bool:
        """Whether it needs a covariance of features, which takes more images than features: the Fréchet distances."""
        return bool(self.needs & {"statistics", "reference_statistics"}) or self.name == "per_class"

    def __call__(self, inputs: MetricInputs) -> MetricValue:
        """Return the metric's value in Python's types.

        Raises:
            ValueError: In one line, for missing, too small or non-finite inputs, or if `compute` does not return a
                `MetricValue` that a report can hold.
        """
        if missing := sorted(kind for kind in self.needs if not inputs.has(kind)):
            raise ValueError(f"{self.name} needs {', '.join(missing).replace('_', ' ')}")
        outcome = self.compute(inputs)
        if not isinstance(outcome, MetricValue):
            raise ValueError(f"it returned {type(outcome).__name__}, not evaluation.metrics.MetricValue")
        details = _python_types(outcome.details)
        if not isinstance(details, dict):
            raise ValueError(f"its details are {type(details).__name__}, not a dict")
        value, std = _number("value", outcome.value), None if outcome.std is None else _number("std", outcome.std)
        try:
            # A value that is not finite is reported as such, not for what it leaves in the details.
            json.dumps(details, allow_nan=not math.isfinite(value + (std or 0)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"its details are not JSON: {error}") from error
        return MetricValue(value, std, details)


def _python_types(value: Any) -> Any:
    """Return a value with NumPy's scalars and arrays as Python's numbers and lists, in dicts and lists too."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {_python_types(key): _python_types(one) for key, one in value.items()}
    return [_python_types(one) for one in value] if isinstance(value, list | tuple) else value


def _number(name: str, value: Any) -> float:
    """Return a number, or an array of one, as a float; ValueError for anything else."""
    found = _python_types(value)
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, int | float):
        raise ValueError(f"its {name} is {type(value).__name__}, not a number")
    return float(found)


def resolve(name: str) -> Metric:
    """Return a metric by name.

    Args:
        name: A key of `METRICS`, or `package.module:ATTRIBUTE`, a `Metric` of a module that Python can import.

    Returns:
        The metric. One from a user module is called `package.module:ATTRIBUTE`.

    Raises:
        ValueError: If there is no such metric, or its module cannot be imported.
    """
    name = FORMER_METRICS.get(name, name)
    if name in METRICS:
        return METRICS[name]
    if not is_plugin(name):
        raise ValueError(
            f"there is no metric {name}; there are {', '.join(METRICS)}, and package.module:NAME for one of your own"
        )
    metric = import_object(name)
    if not isinstance(metric, Metric):
        raise ValueError(f"{name} is a {type(metric).__name__}, not an evaluation.metrics.Metric")
    return replace(metric, name=name)


def parse_metrics(text: str | Metric | Iterable[str | Metric]) -> list[Metric]:
    """Return the metrics of `fid,kid` (or of names or metrics), each once; ValueError lists the known names."""
    given = text.split(",") if isinstance(text, str) else [text] if isinstance(text, Metric) else text
    given = list(given) if isinstance(given, Iterable) else [given]
    for one in given:
        if not isinstance(one, str | Metric):
            raise ValueError(f"metrics are names or evaluation.metrics.Metric objects, not {type(one).__name__}")
    names = (one.strip() if isinstance(one, str) else one for one in given)
    metrics = [resolve(one) if isinstance(one, str) else one for one in names if one]
    if not metrics:
        raise ValueError(f"there is no metric (none given); there are {', '.join(METRICS)}")
    return list({metric.name: metric for metric in metrics}.values())


def required_inputs(metrics: Iterable[Metric]) -> frozenset[InputKind]:
    """Return all inputs that the metrics need; features are kept only if one of them needs them."""
    return frozenset[InputKind]().union(*(metric.needs for metric in metrics))


def rows_to_keep(metrics: Iterable[Metric]) -> frozenset[str]:
    """Return the rows of the images that must be kept for these metrics."""
    return frozenset(required_inputs(metrics) & {"features", "logits", "labels"})


def _fid(inputs: MetricInputs) -> MetricValue:
    from evaluation.metrics.frechet import frechet_distance

    return MetricValue(frechet_distance(*map(inputs.get, ("mu", "sigma", "reference_mu", "reference_sigma"))))


def _kid(inputs: MetricInputs) -> MetricValue:
    from evaluation.metrics.kid import kid

    options = inputs.options
    settings = {"subsets": options.kid_subsets, "subset_size": options.kid_subset_size, "seed": options.seed}
    found = kid(inputs.get("features"), inputs.get("reference_features"), **settings)
    return MetricValue(found.mean, found.std, settings)


def _inception_score(inputs: MetricInputs) -> MetricValue:
    from evaluation.metrics.inception_score import inception_score

    settings = {"splits": inputs.options.splits, "seed": inputs.options.seed}
    found = inception_score(inputs.get("logits"), **settings)
    return MetricValue(found.mean, found.std, settings)


def _prdc(key: str, k: str) -> Callable[[MetricInputs], MetricValue]:
    return lambda inputs: MetricValue(inputs.prdc[key], details={"k": getattr(inputs.options, k)})


def _fid_infinity(inputs: MetricInputs) -> MetricValue:
    from evaluation.metrics.fid_infinity import fid_infinity

    options = inputs.options
    arrays = map(inputs.get, ("features", "reference_mu", "reference_sigma"))
    found = fid_infinity(*arrays, points=options.infinity_points, seed=options.seed)
    curve = {"n": list(found.ns), "value": list(found.values)}
    details = {"curve": curve, "seed": options.seed, "standard_error": found.standard_error}
    return MetricValue(found.value, found.standard_error, details)


def _per_class(inputs: MetricInputs) -> MetricValue:
    from evaluation.metrics.frechet import per_class_frechet

    found = per_class_frechet(*map(inputs.get, ("features", "labels", "reference_features", "reference_labels")))
    classes = [{"label": label} | distance._asdict() for label, distance in found.items()]
    return MetricValue(sum(one.value for one in found.values()) / len(found), details={"classes": classes})


def _memorization(inputs: MetricInputs) -> MetricValue:
    from evaluation.metrics.neighbors import near_copy_share, nearest

    train = inputs.get("train_features")
    distances, indices = nearest(inputs.get("features"), train)
    held_out, _ = nearest(inputs.get("held_out_features"), train)
    quantile = inputs.options.near_copy_quantile
    found = near_copy_share(distances[:, 0], held_out[:, 0], quantile=quantile)
    ascending = distances[:, 0].argsort(kind="stable")[:_NUM_PAIRS]
    pairs = [{"sample": int(i), "train": int(indices[i, 0]), "distance": float(distances[i, 0])} for i in ascending]
    # Well below 1 if samples are nearer to training images than real images are. None if held-out images are copies.
    ratio = found.median / found.held_out_median if found.held_out_median else None
    details = {"median_ratio": ratio, "quantile": quantile, "nearest": pairs}
    return MetricValue(found.share, details=found._asdict() | details)


_STATISTICS: frozenset[InputKind] = frozenset({"statistics", "reference_statistics"})
_FEATURES: frozenset[InputKind] = frozenset({"features", "reference_features"})
_LABELS: frozenset[InputKind] = _FEATURES | {"labels", "reference_labels"}
_CURVE: frozenset[InputKind] = frozenset({"features", "reference_statistics"})
_SEARCH: frozenset[InputKind] = frozenset({"features", "train_features", "held_out_features"})
_LOGITS: frozenset[InputKind] = frozenset({"logits"})

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("fid", "Fréchet distance", "lower", _STATISTICS, _fid, template="fd_{}"),
        Metric("kid", "Kernel distance", "lower", _FEATURES, _kid, template="kd_{}"),
        Metric("is", "Inception Score", "higher", _LOGITS, _inception_score, template="cs_{}"),
        Metric("precision", "Precision", "higher", _FEATURES, _prdc("precision", "precision_recall_k")),
        Metric("recall", "Recall", "higher", _FEATURES, _prdc("recall", "precision_recall_k")),
        Metric("density", "Density", "higher", _FEATURES, _prdc("density", "density_coverage_k")),
        Metric("coverage", "Coverage", "higher", _FEATURES, _prdc("coverage", "density_coverage_k")),
        Metric("fid_infinity", "Fréchet distance at N → ∞", "lower", _CURVE, _fid_infinity, template="fd_{}_infinity"),
        Metric(
            "per_class",
            "Fréchet distance by class",
            "lower",
            _LABELS,
            _per_class,
            inception_name="fid_per_class",
            template="fd_{}_per_class",
        ),
        Metric(
            "memorization",
            "Share of near-copies of training images",
            "lower",
            _SEARCH,
            _memorization,
            inception_name="near_copies",
            template="near_copies_{}",
        ),
    )
}
