"""Every metric that `--metrics` names: what it needs, what its result is called, and how it is computed.

The name of a result is its protocol: the metric, the features, and N, as `names` puts them together. N is in the name
because most of these depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

# What a metric may need of the images, of the reference, and for memorisation of the training set.
Need = Literal[
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


@dataclass(frozen=True)
class Options:
    """The settings that are part of a protocol. The defaults are the field's, and torch-fidelity's."""

    kid_subsets: int = 100
    kid_subset_size: int = 1000
    splits: int = 10
    precision_recall_k: int = 3
    density_coverage_k: int = 5
    infinity_points: int = 15
    near_copy_quantile: float = 0.01
    seed: int = 2020


@dataclass
class Evidence:
    """What a pass over the images, and one over the reference, left to compute from; None: not kept.

    Features float [N, d], memory-mapped or not, in seed order; logits float [N, classes]; labels int [N];
    mu float64 [d], sigma float64 [d, d]. `train_features` are of the images that the generator was trained on,
    `held_out_features` of real images that it was not.
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
    options: Options = field(default_factory=Options)

    def has(self, need: Need) -> bool:
        if need == "statistics":
            return self.mu is not None and self.sigma is not None
        if need == "reference_statistics":
            return self.reference_mu is not None and self.reference_sigma is not None
        return getattr(self, need) is not None

    @cached_property
    def balls(self) -> dict[str, float]:
        """Precision, recall, density and coverage: one search over neighbours serves the four."""
        from evaluation.metrics.prdc import precision_recall_density_coverage

        return precision_recall_density_coverage(
            _given(self.features),
            _given(self.reference_features),
            precision_recall_k=self.options.precision_recall_k,
            density_coverage_k=self.options.density_coverage_k,
        )


@dataclass(frozen=True)
class Outcome:
    """A metric's value, its spread where it has one, and what belongs to it (JSON values).

    The spread is over subsets or splits; of an extrapolation, it is the standard error of the value.
    """

    value: float
    std: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One name of `--metrics`."""

    name: str
    title: str
    better: Literal["lower", "higher"]
    needs: frozenset[Need]
    compute: Callable[[Evidence], Outcome] = field(repr=False)
    # Of its results: in Inception's features, and in others (of which `{}` is the name).
    stem: str
    stem_elsewhere: str

    def __call__(self, evidence: Evidence) -> Outcome:
        """Raises ValueError, in one line, for evidence that is lacking, too small or not finite."""
        lacking = sorted(need for need in self.needs if not evidence.has(need))
        if lacking:
            raise ValueError(f"{self.name} needs {', '.join(lacking).replace('_', ' ')}")
        return self.compute(evidence)


def parse_metrics(text: str | Iterable[str]) -> list[Metric]:
    """`fid,kid` (or names) → the metrics, in that order, each once. ValueError names those there are."""
    names = text.split(",") if isinstance(text, str) else list(text)
    asked = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    strange = [name for name in asked if name not in METRICS]
    if strange or not asked:
        raise ValueError(f"there is no metric {', '.join(strange) or '(none given)'}; there are {', '.join(METRICS)}")
    return [METRICS[name] for name in asked]


def needs_of(metrics: Iterable[Metric]) -> frozenset[Need]:
    """Everything that the metrics need together; a pass keeps features only when one of them does."""
    return frozenset().union(*(metric.needs for metric in metrics))


def _given(array: np.ndarray | None) -> np.ndarray:
    assert array is not None  # Metric.__call__ has seen to it
    return array


def _fid(evidence: Evidence) -> Outcome:
    from evaluation.metrics.frechet import frechet_distance

    reference = _given(evidence.reference_mu), _given(evidence.reference_sigma)
    return Outcome(frechet_distance(_given(evidence.mu), _given(evidence.sigma), *reference))


def _kid(evidence: Evidence) -> Outcome:
    from evaluation.metrics.kid import kernel_distance

    options = evidence.options
    settings = {"subsets": options.kid_subsets, "subset_size": options.kid_subset_size, "seed": options.seed}
    spread = kernel_distance(_given(evidence.features), _given(evidence.reference_features), **settings)
    return Outcome(spread.mean, spread.std, settings)


def _inception_score(evidence: Evidence) -> Outcome:
    from evaluation.metrics.inception_score import inception_score

    settings = {"splits": evidence.options.splits, "seed": evidence.options.seed}
    spread = inception_score(_given(evidence.logits), **settings)
    return Outcome(spread.mean, spread.std, settings)


def _precision(evidence: Evidence) -> Outcome:
    return Outcome(evidence.balls["precision"], details={"k": evidence.options.precision_recall_k})


def _recall(evidence: Evidence) -> Outcome:
    return Outcome(evidence.balls["recall"], details={"k": evidence.options.precision_recall_k})


def _density(evidence: Evidence) -> Outcome:
    return Outcome(evidence.balls["density"], details={"k": evidence.options.density_coverage_k})


def _coverage(evidence: Evidence) -> Outcome:
    return Outcome(evidence.balls["coverage"], details={"k": evidence.options.density_coverage_k})


def _fid_infinity(evidence: Evidence) -> Outcome:
    from evaluation.metrics.fid_infinity import fid_infinity

    reference = _given(evidence.reference_mu), _given(evidence.reference_sigma)
    options = evidence.options
    found = fid_infinity(_given(evidence.features), *reference, points=options.infinity_points, seed=options.seed)
    curve = {"n": list(found.ns), "value": list(found.values)}
    details = {"curve": curve, "seed": options.seed, "standard_error": found.standard_error}
    return Outcome(found.value, found.standard_error, details)


def _per_class(evidence: Evidence) -> Outcome:
    from evaluation.metrics.per_class import per_class_frechet

    found = per_class_frechet(
        _given(evidence.features),
        _given(evidence.labels),
        _given(evidence.reference_features),
        _given(evidence.reference_labels),
    )
    classes = [{"label": label} | distance._asdict() for label, distance in found.items()]
    return Outcome(sum(one.value for one in found.values()) / len(found), details={"classes": classes})


def _memorisation(evidence: Evidence) -> Outcome:
    from evaluation.metrics.memorization import near_copy_share, nearest

    train = _given(evidence.train_features)
    distances, indices = nearest(_given(evidence.features), train)
    held_out, _ = nearest(_given(evidence.held_out_features), train)
    quantile = evidence.options.near_copy_quantile
    found = near_copy_share(distances[:, 0], held_out[:, 0], quantile=quantile)
    nearest_first = distances[:, 0].argsort(kind="stable")[:64]
    pairs = [{"sample": int(i), "train": int(indices[i, 0]), "distance": float(distances[i, 0])} for i in nearest_first]
    # Well below 1: the samples lie nearer to training images than real images do. None of a set that repeats itself.
    ratio = found.median / found.held_out_median if found.held_out_median else None
    more = {"median_ratio": ratio, "quantile": quantile, "nearest": pairs}
    return Outcome(found.share, details=found._asdict() | more)


def outcome_of(module: str) -> Callable[[Evidence], Outcome]:
    """The function `outcome` of a metric's own `module` beside this one, imported when it is first computed."""
    return lambda evidence: import_module(f"evaluation.metrics.{module}").outcome(evidence)


_STATISTICS: frozenset[Need] = frozenset({"statistics", "reference_statistics"})
_PAIR: frozenset[Need] = frozenset({"features", "reference_features"})
_LABELLED: frozenset[Need] = _PAIR | {"labels", "reference_labels"}
_CURVE: frozenset[Need] = frozenset({"features", "reference_statistics"})
_SEARCH: frozenset[Need] = frozenset({"features", "train_features", "held_out_features"})
_COPIES = "Share of near-copies of training images"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("fid", "Fréchet distance", "lower", _STATISTICS, _fid, "fid", "fd_{}"),
        Metric("kid", "Kernel distance", "lower", _PAIR, _kid, "kid", "kd_{}"),
        Metric("is", "Inception Score", "higher", frozenset({"logits"}), _inception_score, "is", "cs_{}"),
        Metric("precision", "Precision", "higher", _PAIR, _precision, "precision", "precision_{}"),
        Metric("recall", "Recall", "higher", _PAIR, _recall, "recall", "recall_{}"),
        Metric("density", "Density", "higher", _PAIR, _density, "density", "density_{}"),
        Metric("coverage", "Coverage", "higher", _PAIR, _coverage, "coverage", "coverage_{}"),
        Metric(
            "fid_infinity",
            "Fréchet distance at N → ∞",
            "lower",
            _CURVE,
            _fid_infinity,
            "fid_infinity",
            "fd_{}_infinity",
        ),
        Metric(
            "per_class", "Fréchet distance by class", "lower", _LABELLED, _per_class, "fid_per_class", "fd_{}_per_class"
        ),
        Metric("memorisation", _COPIES, "lower", _SEARCH, _memorisation, "near_copies", "near_copies_{}"),
    )
}
