"""The report of a sweep: `sweep.html` with the best setting, pictures by setting, plots and a table; `sweep.json`."""

from __future__ import annotations

import io
import json
import math
import shlex
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from artifacts.files import atomic_path
from trainer.errors import TrainerError
from trainer.reports import image_grids, pages
from trainer.sweep.space import Vary, format_value
from trainer.sweep.study import Plan, Trial, ranked
from trainer.training.logger import GRID_SEEDS

PAGE = "sweep.html"
CROP = 4  # of a sheet's 8 by 8 images, 4 by 4
GAP = 2  # pixels between a sheet's images (image_grids.grid)
MAX_PICTURES = 60  # in the page: those of the best settings
COLUMNS = 6  # of pictures.png
LABEL_HEIGHT = 22
MEASURES = {"frechet": "Fréchet distance (lower is better)", "recall": "recall (higher is better)"}
MAX_LINES = 6  # of another field's values in one panel; more are drawn as one mean
COLORS = ("#3f7cbf", "#d1762c", "#3a9a5f", "#b5566f", "#8169b8", "#8a7a3c")
THEMES = {"light": ("#1c1d1f", "#5d6066", "#dedbd3"), "dark": ("#ecebe7", "#a3a49f", "#3d4046")}  # title, text, lines


def write(folder: Path, plan: Plan, trials: Sequence[Trial]) -> Path:
    """Write `sweep.html`, `sweep.json`, `scores.png` and `pictures.png` into the sweep's folder; return the page."""
    best = ranked(trials)
    found = [(trial, read_picture(folder, plan, trial)) for trial in best[:MAX_PICTURES]]
    pictures = [(trial, picture) for trial, picture in found if picture is not None]
    pages.write_text(json.dumps(to_dict(plan, trials), indent=2, ensure_ascii=False) + "\n", folder / "sweep.json")
    charts = {theme: draw_scores(plan.varies, best, theme) for theme in THEMES} if best else {}
    if charts:
        with atomic_path(folder / "scores.png") as partial:
            partial.write_bytes(charts["light"])
    if pictures:
        image_grids.write_png(contact_sheet(pictures), folder / "pictures.png", min_side=0)
    page = pages.render(
        PAGE,
        name=plan.config.name,
        folder=folder.name,
        facts=facts(plan, trials),
        fields=[vary.field for vary in plan.varies],
        ranked=best,
        failed=[trial for trial in trials if trial.state == "failed"],
        waiting=sum(trial.state in ("waiting", "running") for trial in trials) + max(0, plan.trials - len(trials)),
        pictures={trial.number: pages.png_url(picture) for trial, picture in pictures},
        matrix=picture_matrix(plan, trials),
        charts={theme: pages.data_url("png", chart) for theme, chart in charts.items()},
        commands=next_commands(folder, best),
        seeds=plan.seeds,
        lines=len(plan.varies) == 2 and all(line_field(vary, plan.varies) for vary in plan.varies),
        format_value=format_value,
        format_duration=format_duration,
    )
    return pages.write_text(page, folder / PAGE)


def to_dict(plan: Plan, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the report as JSON: the plan, and every trial with its runs."""

    def entry(trial: Trial) -> dict[str, Any]:
        document: dict[str, Any] = {"trial": trial.number, "state": trial.state, "setting": trial.setting}
        for name in MEASURES:
            if values := trial.values(name):
                deviation = statistics.stdev(values) if len(values) > 1 else None
                document[name] = {"mean": statistics.fmean(values), "std": deviation, "n": len(values)}
        return document | ({"reason": trial.reason} if trial.reason else {}) | {"runs": list(trial.runs)}

    best = ranked(trials)
    return {"plan": plan.to_dict(), "best": best[0].number if best else None, "trials": [*map(entry, trials)]}


def read_picture(folder: Path, plan: Plan, trial: Trial) -> Image.Image | None:
    """Return 4 by 4 images of the first run's averaged generator at the tick of its best score, None without them."""
    run = trial.runs[0]
    try:
        sheet = pages.read_sheet(folder / run["folder"], int(run["images_seen"]))
    except TrainerError:
        return None
    step = plan.config.data.resolution + GAP
    factor = sheet.width // (math.isqrt(len(GRID_SEEDS)) * step + GAP)  # Small sheets are enlarged.
    side = (CROP * step + GAP) * factor
    return sheet.crop((0, 0, side, side))


def picture_matrix(plan: Plan, trials: Sequence[Trial]) -> dict[str, Any] | None:
    """Return ended trials by one or two fields, a column (and a line) per value; None for ranges and more fields."""
    if len(plan.varies) > 2 or any(vary.is_range for vary in plan.varies):
        return None
    *rest, across = sorted(plan.varies, key=lambda vary: len(vary.values))  # The field with more values goes across.
    down = rest[0] if rest else None

    def cell(x: Any, y: Any) -> Trial | None:
        setting = {across.field: x} | ({down.field: y} if down else {})
        return next((t for t in trials if t.setting == setting and t.state in ("finished", "failed")), None)

    lines = [(y, [cell(x, y) for x in across.values]) for y in (down.values if down else [None])]
    return {"across": across, "down": down, "lines": lines}


def facts(plan: Plan, trials: Sequence[Trial]) -> dict[str, str]:
    """Return the head of the page."""
    failed = sum(trial.state == "failed" for trial in trials)
    counts = f"{len(ranked(trials))} of {plan.trials} finished" + (f", {failed} failed" if failed else "")
    seeds = f", each with seeds {', '.join(map(str, plan.run_seeds))}" if plan.seeds > 1 else ""
    seconds = sum(value for trial in trials for value in trial.values("seconds"))
    return {
        **{vary.field: vary.describe().replace(",", ", ") for vary in plan.varies},
        "trials": f"{counts} ({plan.sampler}){seeds}",
        "each run": shared_settings(plan),
        "time": f"{format_duration(seconds)} of training in all",
    }


def shared_settings(plan: Plan) -> str:
    """Return what all runs have in common, without the fields that vary."""
    config = plan.config
    settings = {
        "run.total_kimg": f"{config.run.total_kimg:g} kimg",
        "data.source": f"{config.data.source} at {config.data.resolution} px",
        "model.architecture": config.model.architecture,
        "objective.name": config.objective.name,
        "optim.batch_size": f"batch {config.optim.batch_size}",
    }
    varied = {vary.field for vary in plan.varies}
    return ", ".join(text for field, text in settings.items() if field not in varied)


def format_duration(seconds: float) -> str:
    """Return seconds as s, min or h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def next_commands(folder: Path, best: Sequence[Trial]) -> dict[str, str]:
    """Return the commands for the best settings, by what they do."""
    if not best:
        return {}
    run = min(best[0].runs, key=lambda run: run["frechet"])
    commands = {
        "Serve its generator": f"trainer export {shlex.quote(str(folder / run['folder']))} --best --output models"
    }
    if len(best) > 1:
        runs = shlex.join(str(folder / trial.runs[0]["folder"]) for trial in best[:2])
        commands["See the best two side by side"] = f"trainer compare {runs}"
    return commands


def contact_sheet(pictures: Sequence[tuple[Trial, Image.Image]]) -> np.ndarray:
    """Return labeled pictures in rows, uint8 [H, W, 3], the first one at the top left."""
    font, background = ImageFont.load_default(13), (251, 250, 247)
    side = max(picture.width for _, picture in pictures)
    tiles = []
    for trial, picture in pictures:
        tile = Image.new("RGB", (side, side + LABEL_HEIGHT), background)
        tile.paste(picture)
        label = _shorten(trial.label, side // 7)
        ImageDraw.Draw(tile).text((0, side + 4), label, fill="#1c1d1f", font=font)
        tiles.append(np.asarray(tile))
    columns = len(tiles) if len(tiles) <= COLUMNS else min(COLUMNS, math.ceil(math.sqrt(len(tiles))))
    return image_grids.grid(tiles, columns, 12, color=background)


def draw_scores(varies: Sequence[Vary], trials: Sequence[Trial], theme: str = "light") -> bytes:
    """Draw Fréchet distance and recall against each field, a dot per run and a line through the means.

    Args:
        varies: The fields, a row of panels each. With two fields of few values there is a line per value of the other.
        trials: Finished trials.
        theme: A key of THEMES; the background is transparent.

    Returns:
        The PNG.
    """
    from matplotlib.figure import Figure

    title_color, text_color, line_color = THEMES[theme]
    figure = Figure(figsize=(10, 3.1 * len(varies)), layout="constrained")
    panels = figure.subplots(len(varies), len(MEASURES), squeeze=False)
    for vary, row in zip(varies, panels, strict=True):
        for axes, (measure, title) in zip(row, MEASURES.items(), strict=True):
            _draw_panel(axes, vary, line_field(vary, varies), trials, measure)
            axes.set_title(title, fontsize=10, color=title_color, loc="left")
            axes.set_xlabel(vary.field, fontsize=9, color=text_color)
            axes.tick_params(labelsize=8, colors=text_color, which="both", length=0)
            axes.grid(color=line_color, linewidth=0.8, zorder=0)
            axes.set_axisbelow(True)
            for side, spine in axes.spines.items():
                spine.set_visible(side == "bottom")
                spine.set_color(line_color)
            axes.margins(x=0.06, y=0.12)
            if axes.get_legend_handles_labels()[1]:
                axes.legend(fontsize=8, labelcolor=text_color, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, transparent=True, metadata={"Software": "GAN Atelier"})
    return buffer.getvalue()


def line_field(vary: Vary, varies: Sequence[Vary]) -> Vary | None:
    """Return the other field, where each of its values can have its own line."""
    others = [other for other in varies if other is not vary]
    if len(others) != 1 or vary.is_range or others[0].is_range or len(others[0].values) > MAX_LINES:
        return None
    return others[0]


def _draw_panel(axes: Any, vary: Vary, other: Vary | None, trials: Sequence[Trial], measure: str) -> None:
    numeric = all(type(value) in (int, float) for value in vary.values)
    texts = [format_value(value) for value in vary.values]
    ticks = list(vary.values) if numeric else list(range(len(texts)))
    lines: dict[str, Sequence[Trial]] = {"": trials}
    if other is not None:
        lines = {
            f"{other.field.rpartition('.')[2]} {format_value(value)}": [
                trial for trial in trials if trial.setting[other.field] == value
            ]
            for value in other.values
        }
    for color, (label, members) in zip(COLORS, lines.items(), strict=False):
        measured: dict[float, list[float]] = defaultdict(list)
        for trial in members:
            value = trial.setting[vary.field]
            measured[value if vary.is_range else ticks[texts.index(format_value(value))]] += trial.values(measure)
        points = sorted((x, ys) for x, ys in measured.items() if ys)
        dots = [(x, y) for x, ys in points for y in ys]
        axes.scatter(*zip(*dots, strict=True), s=14, color=color, alpha=0.45, linewidths=0, zorder=2) if dots else None
        if vary.is_range or not points:
            continue
        spreads = [statistics.stdev(ys) if len(ys) > 1 else 0.0 for _, ys in points]
        axes.errorbar(
            [x for x, _ in points],
            [statistics.fmean(ys) for _, ys in points],
            yerr=spreads if any(spreads) else None,
            color=color,
            label=label or None,
            linewidth=1.6 if numeric else 0,
            marker="o",
            markersize=4.5,
            capsize=3,
            elinewidth=1,
            zorder=3,
        )
    # Evenly spaced, values over most of a power of ten would crowd at one end.
    if numeric and (vary.log or (min(vary.values) > 0 and max(vary.values) / min(vary.values) >= 5)):
        axes.set_xscale("log")
    if not vary.is_range:
        axes.set_xticks(ticks, [_shorten(text, 22) for text in texts])
        axes.set_xticks([], minor=True)
        if not numeric:
            axes.set_xlim(-0.5, len(ticks) - 0.5)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
