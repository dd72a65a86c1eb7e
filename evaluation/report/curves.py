"""Which curves a report has: the distance against N, and each metric against images seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from evaluation.report.charts import Series, line_chart
from evaluation.report.formatting import number
from evaluation.report.reader import Checkpoint, Document


class Fit(NamedTuple):
    """distance ≈ value + slope / N, through `points` (N, distance)."""

    value: float
    slope: float
    points: list[tuple[int, float]]


class History(NamedTuple):
    """One metric over the checkpoints: (images seen, value, low, high), and which of them is best; None: all alike."""

    name: str
    title: str
    better: str
    points: list[tuple[int, float, float | None, float | None]]
    best: int | None


def short(images: float) -> str:
    """420,032 → `420k`: a tick of an axis."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if images >= unit:
            return f"{images / unit:.3g}{letter}"
    return f"{images:.3g}"


def against_n(document: Document) -> Fit | None:
    """The points that FID∞ was fitted to, and its line."""
    result = document.of("fid_infinity")
    curve = None if result is None else result.details.get("curve")
    if result is None or not curve or len(set(curve["n"])) < 2 or len(curve["n"]) != len(curve["value"]):
        return None
    slope = float(np.polyfit(1.0 / np.array(curve["n"]), curve["value"], 1)[0])
    limit = result.details.get("first_range", result.value)  # with intervals the value is a mean, and the curve one's
    return Fit(limit, slope, list(zip(curve["n"], curve["value"], strict=True)))


def against_n_chart(fit: Fit) -> Markup:
    ns = np.geomspace(fit.points[0][0], fit.points[-1][0], 60)
    fitted = [(float(n), float(fit.value + fit.slope / n)) for n in ns]
    return line_chart(
        [Series(fitted, dots=False, kind=1), Series([(n, value) for n, value in fit.points], line=False)],
        title="Fréchet distance against the number of images",
        x_title="images (N)",
        levels=[(f"N → ∞: {number(fit.value)}", fit.value)],
        x_text=short,
    )


def ordered(document: Document) -> list[Checkpoint]:
    """The checkpoints in the order of images seen, or of steps where those are not known."""
    return sorted(document.checkpoints, key=lambda entry: entry.images_seen or entry.step or 0)


def histories(document: Document) -> list[History]:
    """Of each metric that every checkpoint has, in the order of images seen; none for fewer than two checkpoints."""
    entries = ordered(document)
    if len(entries) < 2 or any((entry.images_seen or entry.step) is None for entry in entries):
        return []
    found = []
    for result in document.results:
        points = []
        for entry in entries:
            one = next((one for one in entry.results if one.metric == result.metric), None)
            if one is not None:
                ends = (None, None) if one.interval is None else (one.interval.low, one.interval.high)
                points.append((entry.images_seen or entry.step or 0, one.value, *ends))
        values = [point[1] for point in points]
        if len(points) == len(entries):
            wanted = min(values) if result.better == "lower" else max(values)
            best = values.index(wanted) if min(values) < max(values) else None
            found.append(History(result.name, result.title, result.better, points, best))
    return found


def history_chart(document: Document, history: History) -> Markup:
    result = next(result for result in document.results if result.name == history.name)
    real = document.real(result)
    seen = all(entry.images_seen is not None for entry in document.checkpoints)
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
        x_text=short,
    )
