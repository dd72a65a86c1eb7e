"""The page that compares runs: sizes, time, settings, curves, and images of the same seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from artifacts.files import atomic_path
from trainer.config import loading
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.reports import image_grids, plots
from trainer.reports.pages import (
    embed,
    parameter_counts,
    png_url,
    read_config,
    read_sheet,
    render,
    run_labels,
    thin,
    write_text,
)
from trainer.reports.plots import Tick

# Settings that have a row under a plain name in a comparison, or follow from another.
NAMED_ROWS = {
    "name",
    "data.source",
    "data.resolution",
    "data.class_names",
    "model.architecture",
    "objective.name",
    "optim.batch_size",
}


def compare(run_dirs: Sequence[Path], output: Path) -> Path:
    """Compare runs at equal images seen: those of the shortest run.

    Args:
        run_dirs: Two run folders or more.
        output: The folder of `compare.html`, `compare.json`, `curves.png`, `fixed.png`, `fixed.gif` and `fixed.webp`.

    Returns:
        The path of the page.

    Raises:
        TrainerError: For fewer than two runs, for one that is given twice, or for one without a tick or its pictures.
    """
    run_dirs = [path.resolve() for path in run_dirs]
    if len(run_dirs) < 2 or len(set(run_dirs)) < len(run_dirs):
        raise TrainerError(
            "compare two runs or more, each once: trainer compare runs/0001-mnist-gan runs/0002-mnist-dcgan"
        )
    metrics = [plots.read_metrics(path / "metrics.jsonl") for path in run_dirs]
    for path, ticks in zip(run_dirs, metrics, strict=True):
        if not ticks:
            raise TrainerError(f"{path} has no metrics yet; there is nothing to compare")
    seen = min(ticks[-1]["images_seen"] for ticks in metrics)
    metrics = [[tick for tick in ticks if tick["images_seen"] <= seen] for ticks in metrics]
    for path, ticks in zip(run_dirs, metrics, strict=True):
        if not ticks:
            raise TrainerError(
                f"{path} has no tick within the {seen / 1000:g} kimg of the shortest run; lower run.tick_kimg"
            )
    names = run_labels(run_dirs)
    rows = comparison_rows([read_config(path) for path in run_dirs], metrics)
    curves = plots.draw_curves(dict(zip(names, metrics, strict=True)))
    moments = thin([int(tick["images_seen"]) for tick in min(metrics, key=len)])
    sheets = [[np.asarray(read_sheet(path, moment)) for path in run_dirs] for moment in moments]
    frames = [image_grids.to_pil(image_grids.side_by_side(*pictures)) for pictures in sheets]

    output.mkdir(parents=True, exist_ok=True)
    with atomic_path(output / "curves.png") as partial:
        partial.write_bytes(curves)
    with atomic_path(output / "fixed.png") as partial:
        frames[-1].save(partial, format="PNG")
    for suffix in ("gif", "webp"):
        image_grids.write_animation(frames, output / f"fixed.{suffix}")
    document = {"images_seen": seen, "runs": names, "rows": rows}
    write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", output / "compare.json")
    page = render(
        "compare.html",
        names=names,
        kimg=f"{seen / 1000:g}",
        rows=rows,
        sheets={name: png_url(read_sheet(path, seen)) for name, path in zip(names, run_dirs, strict=True)},
        curves=embed(output / "curves.png"),
        animation=embed(output / "fixed.webp"),
    )
    return write_text(page, output / "compare.html")


def comparison_rows(configs: Sequence[Config], metrics: Sequence[Sequence[Tick]]) -> dict[str, list[str]]:
    """Return the table of a comparison: a row per fact, with one value per run.

    Args:
        configs: The runs' configs. Every setting that they do not share has a row, under its name.
        metrics: The runs' ticks that count.
    """
    rows: dict[str, list[str]] = {}
    settings = differing_settings(configs)
    for config, ticks in zip(configs, metrics, strict=True):
        g_parameters, d_parameters = parameter_counts(config)
        tick = ticks[-1]
        scores = next((earlier for earlier in reversed(ticks) if "quality/frechet" in earlier), {})
        facts = {
            "images": f"{config.data.source}, {config.data.resolution} px",
            "networks": config.model.architecture,
            "G parameters": g_parameters,
            "D parameters": d_parameters,
            "objective": config.objective.name,
            "batch": str(config.optim.batch_size),
            "kimg": f"{tick['images_seen'] / 1000:g}",
            "steps": f"{tick['step']:,}",
            "time": f"{tick['seconds']:,.0f} s",
            "images/s": f"{tick['images_seen'] / max(tick['seconds'], 1e-9):,.0f}",
            "loss D": f"{tick['loss/D']:.3f}",
            "loss G": f"{tick['loss/G']:.3f}",
            "Fréchet distance": _score(scores, "quality/frechet"),
            "recall": _score(scores, "quality/recall"),
        }
        for title, value in facts.items():
            rows.setdefault(title, []).append(value)
            if title == "batch":
                rows |= settings
    return rows


def _score(tick: Tick, name: str) -> str:
    return f"{tick[name]:.3f}" if name in tick else "not measured"


def differing_settings(configs: Sequence[Config]) -> dict[str, list[str]]:
    """Return each setting that is not the same in all configs, with its values in the configs' order."""
    documents = [loading.flatten(config) for config in configs]
    found: dict[str, list[str]] = {}
    for field in documents[0]:
        values = [document[field] for document in documents]
        if field not in NAMED_ROWS and any(value != values[0] for value in values):
            found[field] = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return found
