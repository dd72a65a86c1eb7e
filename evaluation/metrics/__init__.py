"""Metrics as pure functions of arrays, one module each. `registry` names them and lists what each needs."""

from evaluation.metrics.registry import (
    METRICS,
    Metric,
    MetricInputs,
    MetricOptions,
    MetricValue,
    parse_metrics,
    required_inputs,
    resolve,
    rows_to_keep,
)
from evaluation.metrics.result_names import result_name, short_count

__all__ = [
    "METRICS",
    "Metric",
    "MetricInputs",
    "MetricOptions",
    "MetricValue",
    "parse_metrics",
    "required_inputs",
    "resolve",
    "result_name",
    "rows_to_keep",
    "short_count",
]
