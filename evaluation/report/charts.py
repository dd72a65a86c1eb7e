"""A line chart as inline SVG in the page's own colours: no script, no picture file, no plotting library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from evaluation.report.formatting import number

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 16, 46


@dataclass(frozen=True)
class Series:
    """Points (x, y) in order of x, drawn as dots, as a line, or both; `bars` are (x, low, high)."""

    points: Sequence[tuple[float, float]]
    dots: bool = True
    line: bool = True
    bars: Sequence[tuple[float, float, float]] = ()
    kind: int = 0  # which of the page's inks: --line-0, --line-1, …


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_title: str,
    levels: Sequence[tuple[str, float]] = (),
    x_text: Callable[[float], str] = number,
) -> Markup:
    """One chart; `levels` are dashed horizontal lines with their names. All text is escaped.

    ValueError when there is no point, or one that is not finite.
    """
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    ys += [y for one in series for _, low, high in one.bars for y in (low, high)] + [y for _, y in levels]
    if not xs or not all(map(math.isfinite, xs + ys)):
        raise ValueError("a chart needs points, all of them finite")
    (left, right), (low, high) = _widened(xs, 0.04), _widened(ys, 0.10)

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
        beside = height - 5 if y > sum(ys) / len(ys) else height + 14  # on the side where there are fewer points
        drawn.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height}" y2="{height}"/>')
        drawn.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{beside}" text-anchor="end">{escape(name)}</text>')
    for one in series:
        drawn += _series(one, at)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>"
    )


def strip(values: Sequence[float], low: float, high: float, mean: float) -> Markup:
    """An interval as a bar with its mean, and the values that it was made of as dots: a row's own small picture."""
    width, height = 150, 18
    left, right = _widened([*values, low, high], 0.05)

    def at(x: float) -> float:
        return round((x - left) / (right - left) * width, 1)

    dots = "".join(
        f'<circle class="dot-{1 if i else 0}" cx="{at(value)}" cy="{height / 2}" r="3.5"/>'
        for i, value in reversed(list(enumerate(values)))
    )
    told = f"Interval {number(low)} to {number(high)}, mean {number(mean)}; " + ", ".join(map(number, values))
    return Markup(
        f'<svg class="strip" viewBox="0 0 {width} {height}" role="img" aria-label="{told}"><title>{told}</title>'
        f'<rect x="{at(low)}" y="3" width="{round(at(high) - at(low), 1)}" height="{height - 6}" rx="2"/>'
        f'<line x1="{at(mean)}" x2="{at(mean)}" y1="1" y2="{height - 1}"/>{dots}</svg>'
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values within low … high, steps of 1, 2 or 5 times a power of ten, about so many. low < high."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _series(one: Series, at: Callable[[float, float], tuple[float, float]]) -> list[str]:
    drawn = []
    for x, low, high in one.bars:
        (across, bottom), (_, top) = at(x, low), at(x, high)
        drawn.append(f'<line class="bar-{one.kind}" x1="{across}" x2="{across}" y1="{bottom}" y2="{top}"/>')
    if one.line and len(one.points) > 1:
        path = " ".join(f"{x},{y}" for x, y in (at(*point) for point in one.points))
        drawn.append(f'<polyline class="line-{one.kind}" points="{path}"/>')
    if one.dots:
        for x, y in one.points:
            across, down = at(x, y)
            told = f"<title>{number(x)}: {number(y)}</title>"
            drawn.append(f'<circle class="dot-{one.kind}" cx="{across}" cy="{down}" r="4">{told}</circle>')
    return drawn


def _widened(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room
