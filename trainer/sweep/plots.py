"""Score against each setting, and the pictures by setting on one sheet, as PNG."""

from __future__ import annotations

import io
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from trainer.sweep.space import Vary, shown
from trainer.sweep.study import Trial

MEASURES = {"frechet": "Fréchet distance (lower is better)", "recall": "recall (higher is better)"}
MAX_LINES = 6  # of another field's values in one panel; more are drawn as one mean
COLOURS = ("#3f7cbf", "#d1762c", "#3a9a5f", "#b5566f", "#8169b8", "#8a7a3c")
INK = {False: ("#1c1d1f", "#5d6066", "#dedbd3"), True: ("#ecebe7", "#a3a49f", "#3d4046")}
COLUMNS = 6
MARGIN, LABEL = 12, 34


def draw(varies: Sequence[Vary], trials: Sequence[Trial], dark: bool = False) -> bytes:
    """PNG: a row of panels a field, Fréchet distance and recall; a dot a run, a line through the means.

    trials: finished ones. With two fields of few values there is a line for each of the other's. Transparent behind,
    in ink for a light or a dark page.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.1 * len(varies)), layout="constrained")
    for row, vary in enumerate(varies):
        for column, (measure, title) in enumerate(MEASURES.items()):
            axes = figure.add_subplot(len(varies), 2, 2 * row + column + 1)
            _panel(axes, vary, others_of(vary, varies), trials, measure)
            _style(axes, title, vary.field, dark)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, transparent=True, metadata={"Software": "GAN Atelier"})
    return buffer.getvalue()


def others_of(vary: Vary, varies: Sequence[Vary]) -> Vary | None:
    """The other field, where each of its values can have a line of its own."""
    others = [other for other in varies if other is not vary]
    if len(others) != 1 or vary.is_range or others[0].is_range or len(others[0].values) > MAX_LINES:
        return None
    return others[0]


def _panel(axes: Any, vary: Vary, other: Vary | None, trials: Sequence[Trial], measure: str) -> None:
    numeric = all(type(value) in (int, float) for value in vary.values)
    places = {_key(value): value if numeric else index for index, value in enumerate(vary.values)}

    def place(trial: Trial) -> float:
        value = trial.setting[vary.field]
        return float(value if vary.is_range else places[_key(value)])

    lines: dict[str, list[Trial]] = {"": list(trials)}
    if other is not None:
        lines = {
            f"{other.field.rpartition('.')[2]} {shown(value)}": [t for t in trials if t.setting[other.field] == value]
            for value in other.values
        }
    for index, (label, members) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        by_place: dict[float, list[float]] = defaultdict(list)
        for trial in members:
            if values := [run[measure] for run in trial.runs if measure in run]:
                by_place[place(trial)] += values
        dots = [(x, y) for x, ys in by_place.items() for y in ys]
        if dots:
            axes.scatter(*zip(*dots, strict=True), s=14, color=colour, alpha=0.45, linewidths=0, zorder=2)
        if not vary.is_range and by_place:
            xs = sorted(by_place)
            means = [statistics.fmean(by_place[x]) for x in xs]
            spreads = [statistics.stdev(by_place[x]) if len(by_place[x]) > 1 else 0.0 for x in xs]
            axes.errorbar(
                xs,
                means,
                yerr=spreads if any(spreads) else None,
                color=colour,
                label=label or None,
                linewidth=1.6 if numeric else 0,
                marker="o",
                markersize=4.5,
                capsize=3,
                elinewidth=1,
                zorder=3,
            )
    if numeric and (vary.log or _spans(vary)):
        axes.set_xscale("log")
    if not vary.is_range:
        axes.set_xticks(list(places.values()), [_short(shown(value)) for value in vary.values])
        axes.set_xticks([], minor=True)
        if not numeric:
            axes.set_xlim(-0.5, len(places) - 0.5)


def _spans(vary: Vary) -> bool:
    """Whether the values go over most of a power of ten: evenly spaced they would crowd at one end."""
    return min(vary.values) > 0 and max(vary.values) / min(vary.values) >= 5


def _key(value: Any) -> str:
    return shown(value)


def _short(text: str, most: int = 22) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _style(axes: Any, title: str, field: str, dark: bool) -> None:
    ink, soft, line = INK[dark]
    axes.set_title(title, fontsize=10, color=ink, loc="left")
    axes.set_xlabel(field, fontsize=9, color=soft)
    axes.tick_params(labelsize=8, colors=soft, which="both", length=0)
    axes.grid(color=line, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(line)
    axes.margins(x=0.06, y=0.12)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, labelcolor=soft, frameon=False)


def contact_sheet(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Labelled pictures in rows, the first one top left."""
    side = max(picture.width for _, picture in pictures)
    columns = min(COLUMNS, math.ceil(math.sqrt(len(pictures))) if len(pictures) > COLUMNS else len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (MARGIN + columns * (side + MARGIN), MARGIN + rows * (side + LABEL)), "#fbfaf7")
    brush, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, (label, picture) in enumerate(pictures):
        left = MARGIN + index % columns * (side + MARGIN)
        top = MARGIN + index // columns * (side + LABEL)
        sheet.paste(picture, (left, top))
        brush.text((left, top + side + 4), _short(label, side // 7), fill="#1c1d1f", font=font)
    return sheet
