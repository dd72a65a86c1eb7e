"""Charts of a report as inline SVG in the page's colors: no script, no image file, no plotting library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from evaluation.report.document import best_value
from evaluation.report.formatting import number
from evaluation.report.schema import Checkpoint, Report
from evaluation.report.templates import render

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 16, 46
STRIP_WIDTH, STRIP_HEIGHT = 150, 18


@dataclass(frozen=True)
class Series:
    """Points (x, y) in order of x, drawn as dots, as a line, or both; `bars` are (x, low, high).

    `color` is the number of one of the page's colors: --line-0, --line-1, …
    """

    points: Sequence[tuple[float, float]]
    dots: bool = True
    line: bool = True
    bars: Sequence[tuple[float, float, float]] = ()
    color: int = 0


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_title: str,
    levels: Sequence[tuple[str, float]] = (),
    x_text: Callable[[float], str] = number,
) -> Markup:
    """Return a line chart with dashed horizontal lines at `levels`, (name, y); `x_text` formats a tick of the x axis.

    All text is escaped; the title is for screen readers. Without points, or for one that is not finite, a ValueError.
    """
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    ys += [y for one in series for _, low, high in one.bars for y in (low, high)] + [y for _, y in levels]
    if not xs or not all(map(math.isfinite, xs + ys)):
        raise ValueError("a chart needs points, all of them finite")
    (left, right), (low, high) = _widen(xs, 0.04), _widen(ys, 0.10)

    def x_at(x: float) -> float:
        return round(LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT), 1)

    def y_at(y: float) -> float:
        return round(TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    edges = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM}
    axes = {"x_at": x_at, "y_at": y_at, "x_ticks": ticks(left, right, 4), "y_ticks": ticks(low, high)}
    labels = {"title": title, "x_title": x_title, "x_text": x_text, "levels": levels}
    return Markup(render("line_chart.svg", series=series, mean=sum(ys) / len(ys), **edges, **axes, **labels))


def strip(values: Sequence[float], low: float, high: float, mean: float) -> Markup:
    """Return a small picture of an interval: a bar, its mean, and its values as dots, the first in another color."""
    left, right = _widen([*values, low, high], 0.05)

    def at(x: float) -> float:
        return round((x - left) / (right - left) * STRIP_WIDTH, 1)

    text = f"Interval {number(low)} to {number(high)}, mean {number(mean)}; " + ", ".join(map(number, values))
    shape = {"width": STRIP_WIDTH, "height": STRIP_HEIGHT, "at": at, "text": text}
    return Markup(render("strip.svg", **shape, values=values, low=low, high=high, mean=mean))


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about so many round values within low … high (low < high): steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _widen(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * share or abs(high) * share or 1.0
    return low - margin, high + margin


class Extrapolation(NamedTuple):
    """distance ≈ value + slope / N, fitted to `points` (N, distance)."""

    value: float
    slope: float
    points: list[tuple[int, float]]


class History(NamedTuple):
    """One metric over the checkpoints.

    `points` are (images seen, value, low, high); `best` is the index of the best one, None if all are equal.
    """

    name: str
    title: str
    points: list[tuple[int, float, float | None, float | None]]
    best: int | None


def extrapolation(report: Report) -> Extrapolation | None:
    """Return the points that FID∞ was fitted to, and the fit; None if the report does not have them."""
    result = report.find("fid_infinity")
    curve = None if result is None else result.details.get("curve")
    if result is None or not curve or len(set(curve["n"])) < 2 or len(curve["n"]) != len(curve["value"]):
        return None
    slope = float(np.polyfit(1.0 / np.array(curve["n"]), curve["value"], 1)[0])
    # With intervals the value is the mean over the ranges of seeds, and the curve belongs to the first range.
    limit = result.details.get("first_range", result.value)
    return Extrapolation(limit, slope, list(zip(curve["n"], curve["value"], strict=True)))


def extrapolation_chart(fit: Extrapolation) -> Markup:
    """Return the chart of the distance against N."""
    ns = np.geomspace(fit.points[0][0], fit.points[-1][0], 60)
    fitted = [(float(n), float(fit.value + fit.slope / n)) for n in ns]
    return line_chart(
        [Series(fitted, dots=False, color=1), Series(fit.points, line=False)],
        title="Fréchet distance against the number of images",
        x_title="images (N)",
        levels=[(f"N → ∞: {number(fit.value)}", fit.value)],
        x_text=_short,
    )


def ordered_checkpoints(report: Report) -> list[Checkpoint]:
    """Return the checkpoints in order of images seen, or of steps where those are not known."""
    return sorted(report.checkpoints, key=lambda entry: entry.seen or 0)


def histories(report: Report) -> list[History]:
    """Return each metric that every checkpoint has, in order of images seen; empty for fewer than two checkpoints."""
    entries = ordered_checkpoints(report)
    if len(entries) < 2 or any(entry.seen is None for entry in entries):
        return []
    found = []
    for result in report.results:
        points = []
        for entry in entries:
            if one := entry.find(result.metric):
                ends = (None, None) if one.interval is None else (one.interval.low, one.interval.high)
                points.append((entry.seen or 0, one.value, *ends))
        if len(points) == len(entries):
            values = [point[1] for point in points]
            best = best_value(values, result.better)
            at = None if best is None else values.index(best)
            found.append(History(result.name, result.title, points, at))
    return found


def history_chart(report: Report, history: History) -> Markup:
    """Return the chart of a metric against images seen."""
    real = report.real_value(next(result for result in report.results if result.name == history.name))
    seen = all(entry.images_seen is not None for entry in report.checkpoints)
    return line_chart(
        [
            Series(
                [(x, y) for x, y, _, _ in history.points],
                bars=[(x, low, high) for x, _, low, high in history.points if low is not None and high is not None],
            )
        ],
        title=f"{history.name} against images seen",
        x_title="images seen" if seen else "step",
        levels=[] if real is None else [(f"real images: {number(real)}", real)],
        x_text=_short,
    )


def _short(images: float) -> str:
    """Return a number of images for a tick of an axis: 420,032 → `420k`."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if images >= unit:
            return f"{images / unit:.3g}{letter}"
    return f"{images:.3g}"
