"""Charts of a report as inline SVG in the page's colors: no script, no image file, no plotting library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from evaluation.report.formatting import number
from evaluation.report.schema import Checkpoint, Report

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 16, 46


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
    """Return a line chart. All text is escaped.

    Args:
        series: What is drawn.
        title: Title for readers of the page's source and for screen readers.
        x_title: Title of the x axis.
        levels: Dashed horizontal lines, (name, y).
        x_text: Formats a tick of the x axis.

    Raises:
        ValueError: If there is no point, or one is not finite.
    """
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    ys += [y for one in series for _, low, high in one.bars for y in (low, high)] + [y for _, y in levels]
    if not xs or not all(map(math.isfinite, xs + ys)):
        raise ValueError("a chart needs points, all of them finite")
    (left, right), (low, high) = _widen(xs, 0.04), _widen(ys, 0.10)

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        return round(across, 1), round(TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    drawn = []
    for y in ticks(low, high):
        drawn.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at(left, y)[1]}" y2="{at(left, y)[1]}"/>'
        )
        drawn.append(f'<text class="tick" x="{LEFT - 8}" y="{at(left, y)[1] + 4}" text-anchor="end">{number(y)}</text>')
    for x in ticks(left, right, 4):
        where = at(x, low)[0]
        drawn.append(
            f'<text class="tick" x="{where}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{escape(x_text(x))}</text>'
        )
    drawn.append(
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_title)}</text>"
    )
    for name, y in levels:
        height = at(left, y)[1]
        # The label is on the side of the line with fewer points.
        label_y = height - 5 if y > sum(ys) / len(ys) else height + 14
        drawn.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height}" y2="{height}"/>')
        drawn.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{label_y}" text-anchor="end">{escape(name)}</text>')
    for one in series:
        drawn += _draw_series(one, at)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>"
    )


def strip(values: Sequence[float], low: float, high: float, mean: float) -> Markup:
    """Return a small picture of an interval: a bar, its mean, and its values as dots, the first in another color."""
    width, height = 150, 18
    left, right = _widen([*values, low, high], 0.05)

    def at(x: float) -> float:
        return round((x - left) / (right - left) * width, 1)

    dots = "".join(
        f'<circle class="dot-{1 if i else 0}" cx="{at(value)}" cy="{height / 2}" r="3.5"/>'
        for i, value in reversed(list(enumerate(values)))
    )
    text = f"Interval {number(low)} to {number(high)}, mean {number(mean)}; " + ", ".join(map(number, values))
    return Markup(
        f'<svg class="strip" viewBox="0 0 {width} {height}" role="img" aria-label="{text}"><title>{text}</title>'
        f'<rect x="{at(low)}" y="3" width="{round(at(high) - at(low), 1)}" height="{height - 6}" rx="2"/>'
        f'<line x1="{at(mean)}" x2="{at(mean)}" y1="1" y2="{height - 1}"/>{dots}</svg>'
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about so many round values within low … high (low < high): steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _draw_series(one: Series, at: Callable[[float, float], tuple[float, float]]) -> list[str]:
    drawn = []
    for x, low, high in one.bars:
        (across, bottom), (_, top) = at(x, low), at(x, high)
        drawn.append(f'<line class="bar-{one.color}" x1="{across}" x2="{across}" y1="{bottom}" y2="{top}"/>')
    if one.line and len(one.points) > 1:
        path = " ".join(f"{x},{y}" for x, y in (at(*point) for point in one.points))
        drawn.append(f'<polyline class="line-{one.color}" points="{path}"/>')
    if one.dots:
        for x, y in one.points:
            across, down = at(x, y)
            title = f"<title>{number(x)}: {number(y)}</title>"
            drawn.append(f'<circle class="dot-{one.color}" cx="{across}" cy="{down}" r="4">{title}</circle>')
    return drawn


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
    better: str
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
            one = next((one for one in entry.results if one.metric == result.metric), None)
            if one is not None:
                ends = (None, None) if one.interval is None else (one.interval.low, one.interval.high)
                points.append((entry.seen or 0, one.value, *ends))
        values = [point[1] for point in points]
        if len(points) == len(entries):
            best_value = min(values) if result.better == "lower" else max(values)
            best = values.index(best_value) if min(values) < max(values) else None
            found.append(History(result.name, result.title, result.better, points, best))
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
