"""The report of a sweep: `sweep.html` with the best setting, pictures by setting, plots and a table; `sweep.json`."""

from __future__ import annotations

import io
import json
import math
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.errors import TrainerError
from trainer.reports import pages
from trainer.sweep.plan import Plan
from trainer.sweep.space import format_value
from trainer.sweep.study import Study, Trial, ranked
from trainer.training.logger import GRID_SEEDS

PAGE = "sweep.html"
CROP = 4  # of a sheet's 8 by 8 images, 4 by 4
GAP = 2  # pixels between a sheet's images (image_grids.grid)
MAX_PICTURES = 60  # in the page: those of the best settings
MEASURES = {"frechet": "Fréchet distance (lower is better)", "recall": "recall (higher is better)"}


def write(folder: Path, study: Study) -> Path:
    """Write `sweep.html` and `sweep.json` into the sweep's folder, and return the page's path."""
    plan, trials = study.plan, study.trials()
    best = ranked(trials)
    pictures = {trial.number: read_picture(folder, plan, trial) for trial in best[:MAX_PICTURES]}
    measured = [measure for measure in MEASURES if any(trial.values(measure) for trial in best)]
    charts = {MEASURES[measure]: draw_scores(plan, trials, measure) for measure in measured}
    pages.write_text(json.dumps(to_dict(plan, trials), indent=2, ensure_ascii=False) + "\n", folder / "sweep.json")
    page = pages.render(
        PAGE,
        name=plan.config.name,
        folder=folder.name,
        facts=facts(plan, trials),
        fields=[vary.field for vary in plan.varies],
        ranked=best,
        failed=[trial for trial in trials if trial.state == "failed"],
        waiting=sum(trial.state in ("waiting", "running") for trial in trials) + max(0, plan.trials - len(trials)),
        pictures={number: pages.png_url(picture) for number, picture in pictures.items() if picture is not None},
        matrix=picture_matrix(plan, trials),
        charts={title: pages.data_url("png", chart) for title, chart in charts.items()},
        commands=next_commands(folder, best),
        seeds=plan.seeds,
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
    data = plan.config.data
    factor = sheet.width // (math.isqrt(len(GRID_SEEDS)) * (data.width + GAP) + GAP)  # Small sheets are enlarged.
    width, height = ((CROP * (side + GAP) + GAP) * factor for side in (data.width, data.height))
    return sheet.crop((0, 0, width, height))


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
        "run.total_kimg": f"{plan.most}{config.run.total_kimg:g} kimg",
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


def draw_scores(plan: Plan, trials: Sequence[Trial], measure: str) -> bytes:
    """Draw a measure of every finished trial against each varied field: a dot per run, a bar of one std; as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(plan.varies), 2.8), layout="constrained")
    for axes, vary in zip(figure.subplots(1, len(plan.varies), squeeze=False)[0], plan.varies, strict=True):
        drawn = [
            (trial, values) for trial in trials if (values := trial.values(measure)) and vary.field in trial.setting
        ]
        places = {format_value(value): place for place, value in enumerate(vary.values)}
        for trial, values in drawn:
            value = trial.setting[vary.field]
            place = value if vary.is_range else places[format_value(value)]
            axes.plot([place] * len(values), values, ".", color="tab:blue", alpha=0.4)
            std = statistics.stdev(values) if len(values) > 1 else 0
            axes.errorbar(place, statistics.fmean(values), std, fmt="o", markersize=5, capsize=4, color="tab:blue")
        if not vary.is_range:
            axes.set_xticks(range(len(places)), list(places), rotation=30 * (max(map(len, places)) > 6))
        elif vary.log:
            axes.set_xscale("log")
        axes.set_title(MEASURES[measure], fontsize=10)
        axes.set_xlabel(vary.field, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": "GAN Atelier"})
    return buffer.getvalue()
