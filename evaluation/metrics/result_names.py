"""What the result of a metric is called.

The name of a result is its protocol: the metric, the features and N, so that no two scores share a name. `fid10k` is
computed in the features of Inception's published weights, `clean_fid10k` in the same with clean-fid's resize. In any
other features the name contains theirs: `fd_classifier10k`. N follows directly, except where the features' name ends
in a digit, an underscore or a reserved word: then `_` separates them, as in `fd_dinov2_10k`. A kernel distance also
names the size of its subsets: `kid10k_subset1k`.
"""

from __future__ import annotations

import re

from evaluation.metrics.registry import (
    FORMER_METRICS,
    MAX_NAME,
    METRICS,
    RESERVED,
    SUFFIXES,
    Metric,
    MetricOptions,
    resolve,
)


def result_name(metric: str | Metric, extractor_metric: str, n: int, options: MetricOptions = MetricOptions()) -> str:
    """Return the name of a result.

    Args:
        metric: A metric, or a name that `resolve` accepts.
        extractor_metric: The extractor's `metric`: `fid`, `clean_fid` or `fd_NAME`.
        n: Number of images.
        options: Settings of the metrics; the subset size is part of a kernel distance's name.

    Returns:
        `fid10k`, `clean_fid10k`, `fd_classifier10k`, `fd_dinov2_10k`, `kid10k_subset1k`, …
    """
    found = metric if isinstance(metric, Metric) else resolve(metric)
    start = _name_start(found, extractor_metric)
    separator = "_" if _needs_separator(found, start) else ""
    suffix = f"_subset{short_count(options.kid_subset_size)}" if found.name == "kid" else ""
    return f"{start}{separator}{short_count(n)}{suffix}"


def former_name(metric: str, extractor_metric: str, n: int) -> str:
    """Return the name that earlier versions gave a result: without a separator and without the subset size."""
    return _name_start(resolve(metric), extractor_metric) + short_count(n)


def current_name(name: str, metric: str, n: int, subset_size: int | None = None) -> str:
    """Return the present name of a result that may have a former one.

    Args:
        name: The result's name, former or present.
        metric: The metric that it was computed by.
        n: Number of images.
        subset_size: Size of a kernel distance's subsets.

    Returns:
        The present name; `name` itself where it is not a former name of such a result.
    """
    known = METRICS.get(FORMER_METRICS.get(metric, metric))
    if known is None or (known.name == "kid" and re.search(r"\dk?_subset\d+k?$", name)):
        return name
    before, _, after = known.template.partition("{}")
    found = re.fullmatch(f"{re.escape(before)}(.+){re.escape(after + short_count(n))}", name, re.DOTALL)
    inception = {former_name(known.name, one, n): one for one in ("fid", "clean_fid")}
    features = inception.get(name, found and f"fd_{found[1]}")
    if features is None or (known.name == "kid" and subset_size is None):
        return name
    # `fd_dinov2_10k` is a present name, and not a former one of an extractor called `dinov2_`.
    if features.endswith("_") and _needs_separator(known, _name_start(known, features[:-1])):
        return name
    options = MetricOptions() if subset_size is None else MetricOptions(kid_subset_size=subset_size)
    return result_name(known.name, features, n, options)


def short_count(n: int) -> str:
    """Return a number of images as it appears in a name: 10,000 → `10k`, 1,234 → `1234`."""
    return f"{n // 1000}k" if n >= 1000 and n % 1000 == 0 else str(n)


def invalid_name_reason(name: str) -> str | None:
    """Return why a custom extractor cannot have this name, None if it can."""
    if not re.fullmatch(f"[A-Za-z0-9_-]{{1,{MAX_NAME}}}", name):
        return f"an extractor's name is 1 to {MAX_NAME} letters, digits, - and _, not {name[: MAX_NAME + 1]!r}"
    if not name[0].isalnum() or not name[-1].isalnum():
        return f"an extractor's name begins and ends with a letter or digit, not as {name!r}"
    if name.lower() in RESERVED or name.lower().endswith(tuple(f"_{suffix}" for suffix in SUFFIXES)):
        return (
            f"the name {name!r} is reserved, because `fd_{name}` has another meaning; reserved are "
            f"{', '.join(sorted(RESERVED))} and names that end in _{' or _'.join(SUFFIXES)}"
        )
    return None


def _name_start(metric: Metric, extractor_metric: str) -> str:
    if extractor_metric == "fid":
        return metric.inception_name
    if extractor_metric == "clean_fid":
        return f"clean_{metric.inception_name}"
    return metric.template.format(extractor_metric.removeprefix("fd_"))


def _needs_separator(metric: Metric, start: str) -> bool:
    if start[-1].isdigit() or start[-1] == "_":
        return True
    # The suffix of the metric itself is not part of the features' name.
    own_suffix = metric.template.rpartition("}")[2]
    return not own_suffix and any(start.endswith(f"_{suffix}") for suffix in SUFFIXES)
