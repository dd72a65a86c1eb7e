"""Names of results: the metric, the features and N, so that no two figures share one name.

`fid10k` is computed in the features of Inception's published weights, `clean_fid10k` in the same with clean-fid's
resize. In any other features the name carries theirs: `fd_classifier10k`. N follows directly, except where the
features' name ends in a digit, an underscore or a reserved word: then `_` separates them, as in `fd_dinov2_10k`. A
kernel distance also names the size of its subsets, `kid10k_subset1k`.
"""

from __future__ import annotations

import re

from evaluation.metrics.registry import METRICS, Options

# A name that ends in one of these would read as another metric: `fd_classifier_infinity10k`.
_SUFFIXES = ("infinity", "per_class")
# What `fd_NAME` or NAME means already.
RESERVED = frozenset({"classifier", "clean_fid", "fid", "inception", "inception_unverified", *_SUFFIXES})
MAX_NAME = 64


def result_name(metric: str, extractor_metric: str, n: int, options: Options = Options()) -> str:
    """Return the name of a result.

    Args:
        metric: A key of `METRICS`.
        extractor_metric: The extractor's `metric`: `fid`, `clean_fid` or `fd_NAME`.
        n: Number of images.
        options: The settings of the metrics, of which the kernel distance's subset size is part of its name.

    Returns:
        `fid10k`, `clean_fid10k`, `fd_classifier10k`, `fd_dinov2_10k`, `kid10k_subset1k`, …
    """
    stem = _stem(metric, extractor_metric)
    separator = "_" if _needs_separator(metric, stem) else ""
    suffix = f"_subset{short_count(options.kid_subset_size)}" if metric == "kid" else ""
    return f"{stem}{separator}{short_count(n)}{suffix}"


def former_name(metric: str, extractor_metric: str, n: int) -> str:
    """Return the name that earlier versions gave a result: without a separator and without the subset size."""
    return _stem(metric, extractor_metric) + short_count(n)


def renamed(name: str, metric: str, n: int, subset_size: int | None = None) -> str:
    """Return the present name of a result that has a former one.

    Args:
        name: The result's name, former or present.
        metric: The key of `METRICS` that it was computed by.
        n: Number of images.
        subset_size: Size of a kernel distance's subsets.

    Returns:
        The present name; `name` itself where it is not a former name of such a result.
    """
    if metric not in METRICS or (metric == "kid" and re.search(r"\dk?_subset\d+k?$", name)):
        return name
    known = METRICS[metric]
    before, _, after = known.stem_elsewhere.partition("{}")
    found = re.fullmatch(f"{re.escape(before)}(.+){re.escape(after + short_count(n))}", name, re.DOTALL)
    features = {former_name(metric, one, n): one for one in ("fid", "clean_fid")}.get(name, found and f"fd_{found[1]}")
    if features is None or (metric == "kid" and subset_size is None):
        return name
    # `fd_dinov2_10k` is a present name, and no former one of an extractor called `dinov2_`.
    if features.endswith("_") and _needs_separator(metric, _stem(metric, features[:-1])):
        return name
    options = Options() if subset_size is None else Options(kid_subset_size=subset_size)
    return result_name(metric, features, n, options)


def short_count(n: int) -> str:
    """Return a number of images as it appears in a name: 10,000 → `10k`, 1,234 → `1234`."""
    return f"{n // 1000}k" if n >= 1000 and n % 1000 == 0 else str(n)


def fault_of_name(name: str) -> str | None:
    """Return why an extractor of one's own cannot have this name, None if it can."""
    if not re.fullmatch(f"[A-Za-z0-9_-]{{1,{MAX_NAME}}}", name):
        return f"an extractor's name is 1 to {MAX_NAME} letters, digits, - and _, not {name[: MAX_NAME + 1]!r}"
    if not name[0].isalnum() or not name[-1].isalnum():
        return f"an extractor's name begins and ends with a letter or digit, not as {name!r}"
    if name.lower() in RESERVED or name.lower().endswith(tuple(f"_{suffix}" for suffix in _SUFFIXES)):
        return (
            f"the name {name!r} is reserved, because `fd_{name}` has another meaning; reserved are "
            f"{', '.join(sorted(RESERVED))} and names that end in _{' or _'.join(_SUFFIXES)}"
        )
    return None


def _stem(metric: str, extractor_metric: str) -> str:
    known = METRICS[metric]
    if extractor_metric == "fid":
        return known.stem
    if extractor_metric == "clean_fid":
        return f"clean_{known.stem}"
    return known.stem_elsewhere.format(extractor_metric.removeprefix("fd_"))


def _needs_separator(metric: str, stem: str) -> bool:
    if stem[-1].isdigit() or stem[-1] == "_":
        return True
    # The suffix of the metric itself is not the features' name.
    own = METRICS[metric].stem_elsewhere.rpartition("}")[2]
    return not own and any(stem.endswith(f"_{suffix}") for suffix in _SUFFIXES)
