"""What a sweep shows: one page with the best setting, pictures by setting, score against each setting, and a table."""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from artifacts.files import atomic_path
from artifacts.terminal import valid_text
from trainer.errors import TrainerError
from trainer.reports import compare_page, run_page
from trainer.sweep import plots
from trainer.sweep.space import shown
from trainer.sweep.study import Plan, Run, Trial
from trainer.training.logger import GRID_SEEDS

SHOWN = 4  # by as many images of each setting
GAP = 2  # of a sheet's images (pictures.grid)
PAGE = "sweep.html"
MAX_PICTURES = 60  # in the page: the best settings'


@dataclass(frozen=True)
class Row:
    """A trial as the page has it."""

    trial: Trial
    rank: int | None  # by score, from 1; None for one without
    frechet: str
    recall: str
    time: str
    share: float  # of the worst score, for a bar
    picture: str | None


def write(folder: Path, plan: Plan, trials: Sequence[Trial]) -> Path:
    """Write `sweep.html`, `sweep.json`, `scores.png` and `pictures.png` into the sweep's folder; returns the page."""
    ranked = sorted((trial for trial in trials if trial.state == "finished"), key=score_of)
    sheets = {
        trial.number: sheet for trial in ranked[:MAX_PICTURES] if (sheet := picture(folder, plan, trial)) is not None
    }
    with atomic_path(folder / "sweep.json") as partial:
        text = json.dumps(document(plan, trials, ranked), indent=2, ensure_ascii=False) + "\n"
        partial.write_text(valid_text(text), encoding="utf-8")
    charts: dict[str, str] = {}
    if ranked:
        for scheme in ("light", "dark"):
            chart = plots.draw(plan.varies, ranked, dark=scheme == "dark")
            charts[scheme] = run_page.data_url("png", chart)
            if scheme == "light":
                with atomic_path(folder / "scores.png") as partial:
                    partial.write_bytes(chart)
    if sheets:
        contact = plots.contact_sheet([(trial.words(), sheets[trial.number]) for trial in ranked[:MAX_PICTURES]])
        with atomic_path(folder / "pictures.png") as partial:
            contact.save(partial, format="PNG", optimize=True)
    rows = table(trials, ranked, sheets)
    page = run_page.rendered(
        PAGE,
        name=plan.config.name,
        folder=folder.name,
        facts=facts(plan, trials),
        fields=[vary.field for vary in plan.varies],
        rows=rows,
        ranked=[row for row in rows if row.rank],
        waiting=sum(trial.state in ("waiting", "running") for trial in trials) + max(0, plan.trials - len(trials)),
        matrix=matrix(plan, rows),
        charts=charts,
        commands=commands(folder, plan, ranked),
        seeds=plan.seeds,
        lined=len(plan.varies) == 2 and all(plots.others_of(vary, plan.varies) for vary in plan.varies),
        shown=shown,
    )
    path = folder / PAGE
    with atomic_path(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def score_of(trial: Trial) -> float:
    """The mean over its seeds of each run's lowest Fréchet distance."""
    return statistics.fmean(run["frechet"] for run in trial.runs)


def mean_and_spread(runs: Sequence[Run], name: str) -> str:
    """`mean ± standard deviation` of what the runs measured; the mean alone of a single one."""
    values = [run[name] for run in runs if name in run]
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def picture(folder: Path, plan: Plan, trial: Trial) -> Image.Image | None:
    """Seeds 0 … of the first run's averaged generator, at the tick of its best score: 4 by 4 of its sheet's 8 by 8."""
    run = trial.runs[0]
    try:
        sheet = compare_page.sheet_at(folder / run["folder"], int(run["images_seen"]))
    except TrainerError:
        return None
    step = plan.config.data.resolution + GAP
    factor = sheet.width // (math.isqrt(len(GRID_SEEDS)) * step + GAP)  # small sheets are enlarged
    edge = (SHOWN * step + GAP) * factor
    return sheet.crop((0, 0, edge, edge))


def table(trials: Sequence[Trial], ranked: Sequence[Trial], sheets: dict[int, Image.Image]) -> list[Row]:
    """The finished ones by score, then the failed ones."""
    worst = score_of(ranked[-1]) if ranked else 1.0
    rows: list[Row] = []
    for trial in [*ranked, *(trial for trial in trials if trial.state == "failed")]:
        finished = trial.state == "finished"
        seconds = sum(run.get("seconds", 0) for run in trial.runs)
        rows.append(
            Row(
                trial,
                len(rows) + 1 if finished else None,
                mean_and_spread(trial.runs, "frechet"),
                mean_and_spread(trial.runs, "recall"),
                duration(seconds) if seconds else "–",
                score_of(trial) / worst if finished and worst > 0 else 0.0,
                compare_page.as_url(sheets[trial.number]) if trial.number in sheets else None,
            )
        )
    return rows


def matrix(plan: Plan, rows: Sequence[Row]) -> dict[str, Any] | None:
    """Pictures by one or two fields, a column (and a row) a value; None for ranges and for more fields."""
    if len(plan.varies) > 2 or any(vary.is_range for vary in plan.varies):
        return None
    *rest, across = sorted(plan.varies, key=lambda vary: len(vary.values))  # the wider way for more values
    down = rest[0] if rest else None

    def cell(x: Any, y: Any) -> Row | None:
        wanted = {across.field: x} | ({down.field: y} if down else {})
        return next((row for row in rows if row.trial.setting == wanted), None)

    lines = [(y, [cell(x, y) for x in across.values]) for y in (down.values if down else [None])]
    return {"across": across, "down": down, "lines": lines}


def facts(plan: Plan, trials: Sequence[Trial]) -> dict[str, str]:
    failed = sum(trial.state == "failed" for trial in trials)
    finished = sum(trial.state == "finished" for trial in trials)
    told = f"{finished} of {plan.trials} finished" + (f", {failed} failed" if failed else "")
    seeds = f", each with seeds {', '.join(map(str, plan.run_seeds))}" if plan.seeds > 1 else ""
    seconds = sum(run.get("seconds", 0) for trial in trials for run in trial.runs)
    return {
        **{vary.field: vary.describe().replace(",", ", ") for vary in plan.varies},
        "trials": f"{told} ({plan.sampler}){seeds}",
        "each run": alike(plan),
        "time": f"{duration(seconds)} of training in all",
    }


def alike(plan: Plan) -> str:
    """What all runs have in common; what is varied stands by itself."""
    config = plan.config
    words = {
        "run.total_kimg": f"{config.run.total_kimg:g} kimg",
        "data.source": f"{config.data.source} at {config.data.resolution} px",
        "model.architecture": config.model.architecture,
        "objective.name": config.objective.name,
        "optim.batch_size": f"batch {config.optim.batch_size}",
    }
    varied = {vary.field for vary in plan.varies}
    return ", ".join(text for field, text in words.items() if field not in varied)


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def commands(folder: Path, plan: Plan, ranked: Sequence[Trial]) -> dict[str, str]:
    """What one does next with the best setting."""
    if not ranked:
        return {}
    best = min(ranked[0].runs, key=lambda run: run["frechet"])
    found = {
        "Serve its generator": f"trainer export {shlex.quote(str(folder / best['folder']))} --best --output models"
    }
    others = [str(folder / trial.runs[0]["folder"]) for trial in ranked[:2]]
    if len(others) == 2:
        found["See the best two side by side"] = f"trainer compare {shlex.join(others)}"
    return found


def document(plan: Plan, trials: Sequence[Trial], ranked: Sequence[Trial]) -> dict[str, Any]:
    """The report as JSON: the plan, and every trial with its runs."""

    def entry(trial: Trial) -> dict[str, Any]:
        told: dict[str, Any] = {"trial": trial.number, "state": trial.state, "setting": trial.setting}
        for name in ("frechet", "recall"):
            values = [run[name] for run in trial.runs if name in run]
            if values:
                deviation = statistics.stdev(values) if len(values) > 1 else None
                told[name] = {"mean": statistics.fmean(values), "std": deviation, "n": len(values)}
        return told | ({"reason": trial.reason} if trial.reason else {}) | {"runs": list(trial.runs)}

    return {"plan": plan.document(), "best": ranked[0].number if ranked else None, "trials": [*map(entry, trials)]}
