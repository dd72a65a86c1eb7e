"""One file a metric: pure functions of arrays. `registry` says what each needs and what its result is called."""

from evaluation.metrics.names import result_name, short_count
from evaluation.metrics.registry import METRICS, Evidence, Metric, Options, Outcome, needs_of, parse_metrics

__all__ = [
    "METRICS",
    "Evidence",
    "Metric",
    "Options",
    "Outcome",
    "needs_of",
    "parse_metrics",
    "result_name",
    "short_count",
]
