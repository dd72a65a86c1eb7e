"""Functions that take turns, so that a machine whose speed drifts changes all alike; and the rounds' ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def in_turns(functions: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """The seconds of each function in each round, and what each gave in the last."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    values = {}
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            values[name] = function()
            seconds[name].append(time.perf_counter() - started)
    return seconds, values


def spread(ratios: Sequence[float]) -> dict[str, float]:
    """{"median", "min", "max"} of the rounds' ratios."""
    return {
        "median": round(statistics.median(ratios), 3),
        "min": round(min(ratios), 3),
        "max": round(max(ratios), 3),
    }


def times_as_fast(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """The spread of how many times as fast as theirs ours is, from the seconds of each round."""
    return spread([its / own for own, its in zip(ours, theirs, strict=True)])


def told(ratio: Mapping[str, float]) -> str:
    """`2.56 (2.34–2.66)`."""
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})"
