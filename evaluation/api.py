"""The Python interface: `score` and `fid`, which the package `evaluation` exports."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.images.resolution import parse_resolution
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.metrics import Metric, MetricOptions
from evaluation.output_files import shorten_path
from evaluation.references.data_paths import DataPaths
from evaluation.report.document import summary_lines
from evaluation.scoring import run_job
from evaluation.scoring.distance import distance_between
from evaluation.scoring.job import ScoreOptions, find_extractor, metrics_named
from evaluation.scoring.report import output_paths
from evaluation.sources import ImagesLike, SamplingOptions, resolve


class Score(float):
    """The value of a metric, a float, with what it depends on.

    Attributes:
        name: The result's name, such as fid10k: metric, features and number of images.
        metric: The metric's name.
        std: The spread over subsets or splits, None for a metric without one.
        interval: The 95% interval (low, high) over disjoint ranges of seeds, None without `intervals`.
        baseline: The same figure of real images, None without one.
        n: Number of images.
        n_reference: Number of real images.
        provenance: Extractor, its digest and resize, reference, split, resolution and the metric's details.
    """

    name: str
    metric: str
    std: float | None
    interval: tuple[float, float] | None
    baseline: float | None
    n: int
    n_reference: int
    provenance: dict[str, Any]

    def __new__(cls, result: dict[str, Any], baseline: float | None) -> Score:
        """Make a score of a report's result and of the same figure of real images."""
        score = super().__new__(cls, result["value"])
        score.name, score.metric, score.std = result["name"], result["metric"], result["std"]
        score.baseline = baseline
        score.interval = (result["interval"]["low"], result["interval"]["high"]) if result["interval"] else None
        score.n, score.n_reference = result["n"], result["n_reference"]
        keys = ("title", "better", "extractor", "extractor_digest", "resize", "reference", "split", "resolution")
        score.provenance = {key: result[key] for key in (*keys, "details")}
        return score

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the value with the attributes; `__new__` takes a report's result instead."""
        return _restore_score, (float(self),), vars(self)


def _restore_score(value: float) -> Score:
    """Return a score without attributes, which `copy` and `pickle` then set."""
    return float.__new__(Score, value)


class Scores(Mapping[str, Score]):
    """The scores of a set of images by name, such as `scores["fid10k"]`; `to_dict()` returns the whole report."""

    def __init__(self, report: dict[str, Any]) -> None:
        self._report = report
        baseline = report["baseline"] or {"results": []}
        real = {result["metric"]: result["value"] for result in baseline["results"]}
        self._scores = {result["name"]: Score(result, real.get(result["metric"])) for result in report["results"]}

    def __getitem__(self, name: str) -> Score:
        try:
            return self._scores[name]
        except KeyError:
            raise KeyError(f"there is no score {name!r}; there are {', '.join(self._scores)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def __repr__(self) -> str:
        return "\n".join(["Scores:", *(f"  {line}" for line in summary_lines(self._report))])

    @property
    def warnings(self) -> list[str]:
        """What a reader of the scores should know."""
        return list(self._report["warnings"])

    def to_dict(self) -> dict[str, Any]:
        """Return the report document, as `evaluation score` writes it to report.json."""
        return copy.deepcopy(self._report)


def score(
    images: ImagesLike,
    reference: ImagesLike,
    metrics: str | Metric | Iterable[str | Metric] = ("fid",),
    *,
    extractor: str | Path | Extractor | None = None,
    num_images: int | None = None,
    seed: int = 0,
    intervals: bool = False,
    baseline: bool = True,
    model: str | None = None,
    truncation: float | None = None,
    labels: str = "drawn",
    resolution: int | str | tuple[int, int] | None = None,
    kid_subset_size: int = 1000,
    force: bool = False,
    output: str | Path | None = None,
    data_root: str | Path = "data",
    cache_root: str | Path | None = None,
) -> Scores:
    """Score images against real ones.

    Args:
        images: A uint8 array [N, H, W, C], a list of equally sized arrays, an `imagesets.ImageSet`, a folder, a .zip,
            .npy, .npz, generator .onnx or checkpoint .pt file, a dataset such as mnist, the URL of a service, or a
            function that returns such an array for a number of images or, if its parameter is called `seeds`, for an
            int64 array of seeds.
        reference: Real images: a dataset such as mnist@test, an array, folder or file; or statistics in a .npz.
        metrics: Names, `my_package.metrics:MY_METRIC` for your own, or `Metric` objects; one, or several.
        extractor: The extractor file; None: the one that made the statistics, or Inception if its weights are cached,
            or else EfficientNet-Lite0 for color images.
        num_images: N; None: all images of a set, or 10,000 of a generator.
        seed: The first seed, or what decides the subset of a set.
        intervals: Score five disjoint ranges of N images, for a 95% interval of Fréchet distances.
        baseline: Score real images too, train against test, for comparison.
        model: The model of a service.
        truncation: Truncate normal latents of a generator at this.
        labels: For a conditional generator: "drawn" by the seeds, "balanced", or one class.
        resolution: Compare at this side in pixels, at HEIGHTxWIDTH, or at the "reference"'s own; None: the images' own.
        kid_subset_size: Images per subset of the kernel distance.
        force: Use a classifier below twice chance accuracy.
        output: The folder of the report to write, or a .json file; the same call resumes there.
        data_root: Where the datasets are, or are downloaded to.
        cache_root: The image cache; None: $ATELIER_CACHE or ~/.cache.

    Returns:
        The scores by name. Warnings are in `Scores.warnings`, and are raised with `warnings.warn`.

    Raises:
        EvaluationError: If the images cannot be scored; the message says what to do.
        ImageSetError: If an image set cannot be loaded.
    """
    num_images = None if num_images is None else _whole_number("num_images", num_images, 2)
    seed = _whole_number("seed", seed, 0)
    kid_subset_size = _whole_number("kid_subset_size", kid_subset_size, 2)
    paths = _data_paths(data_root, cache_root)
    real = resolve(reference).require_real_images()
    resolve(images)  # a name that does not exist is reported before an absent extractor
    loaded = find_extractor(extractor, paths, real)
    options = ScoreOptions(
        metrics_named(metrics),
        num_images=num_images,
        first_seed=seed,
        intervals=intervals,
        baseline=baseline,
        metric_options=MetricOptions(kid_subset_size=kid_subset_size),
        force=force,
        resolution=_resolution_text(resolution),
        model=model,
        sampling=SamplingOptions(truncation, labels),
        paths=paths,
        on_warning=_warn,
    )
    with output_paths(None if output is None else Path(output)) as files:
        report = run_job.score(images, reference, loaded, options, files)
        if files.images is not None:
            from evaluation.report.render import write_views

            write_views(files.document)
    return Scores(report)


def fid(
    a: ImagesLike,
    b: ImagesLike,
    *,
    extractor: str | Path | Extractor | None = None,
    num_images: int | None = None,
    resolution: int | str | tuple[int, int] | None = None,
    force: bool = False,
    data_root: str | Path = "data",
    cache_root: str | Path | None = None,
) -> float:
    """Return the Fréchet distance between two sets of images.

    It is FID with Inception as the extractor, and otherwise the distance in the features of another network.

    Args:
        a: Images, as for `score`, or a file of statistics.
        b: The same.
        extractor: The extractor file; None: the one that made the statistics, or Inception if its weights are cached,
            or else EfficientNet-Lite0 for color images.
        num_images: At most so many images of each; None: all, or 10,000 of a generator.
        resolution: Compare at this side in pixels, at HEIGHTxWIDTH, or at that of `b` ("reference"); None: the images'
            own.
        force: Use a classifier below twice chance accuracy.
        data_root: Where the datasets are, or are downloaded to.
        cache_root: The image cache; None: $ATELIER_CACHE or ~/.cache.

    Raises:
        EvaluationError: If the two cannot be compared; the message says what to do.
        ImageSetError: If an image set cannot be loaded.
    """
    num_images = None if num_images is None else _whole_number("num_images", num_images, 2)
    return distance_between(
        a,
        b,
        extractor=extractor,
        num_images=num_images,
        resolution=_resolution_text(resolution),
        paths=_data_paths(data_root, cache_root),
        force=force,
        on_warning=_warn,
    ).value


def _data_paths(data_root: str | Path, cache_root: str | Path | None) -> DataPaths:
    return DataPaths(Path(data_root), None if cache_root is None else Path(cache_root))


def _resolution_text(resolution: object) -> str | None:
    """Return an argument as `--resolution` has it; what is none is reported there."""
    if resolution is None or isinstance(resolution, str):
        return resolution
    try:
        return str(parse_resolution(resolution))
    except ValueError:
        return str(resolution)


def _whole_number(name: str, value: object, least: int) -> int:
    """Return an argument as an int; EvaluationError if it is no whole number from `least` on."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least:
        return int(value)
    raise EvaluationError(f"{name} is a whole number, {least} or more, not {shorten_path(repr(value))}")


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)
