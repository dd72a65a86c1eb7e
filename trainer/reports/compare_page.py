"""Runs beside each other at equal images seen: a table, their images, curves and one animation."""

from __future__ import annotations

import io
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from artifacts.files import atomic_path
from artifacts.terminal import valid_text
from trainer import networks
from trainer.config.loading import field_names
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.reports import image_grids, plots, run_page

Line = plots.Line
GAP = 12
# Settings that have a row under a plain name, or follow from another
IN_THE_TABLE = {
    "name",
    "data.source",
    "data.resolution",
    "data.class_names",
    "model.architecture",
    "objective.name",
    "optim.batch_size",
}


def compare(run_dirs: Sequence[Path], output: Path) -> Path:
    """Write `compare.html`, `compare.json`, `curves.png`, `fixed.png` and `fixed.gif` into `output`; returns the page.

    Raises TrainerError for fewer than two runs, for one twice, or for one without a tick or its pictures.
    """
    run_dirs = [path.resolve() for path in run_dirs]
    if len(run_dirs) < 2 or len(set(run_dirs)) < len(run_dirs):
        raise TrainerError(
            "compare two runs or more, each once: trainer compare runs/0001-mnist-gan runs/0002-mnist-dcgan"
        )
    metrics = {path: plots.read_metrics(path / "metrics.jsonl") for path in run_dirs}
    for path, lines in metrics.items():
        if not lines:
            raise TrainerError(f"{path} has had no tick yet; there is nothing to compare")
    seen = min(lines[-1]["images_seen"] for lines in metrics.values())
    until = {path: [line for line in lines if line["images_seen"] <= seen] for path, lines in metrics.items()}
    for path, lines in until.items():
        if not lines:
            raise TrainerError(
                f"{path} has no tick within the {seen / 1000:g} kimg of the shortest run; lower run.tick_kimg"
            )
    names = labels(run_dirs)
    rows = table(run_dirs, until)
    chart = plots.draw(dict(zip(names, until.values(), strict=True)))
    frames = [side_by_side([sheet_at(path, at) for path in run_dirs]) for at in moments(until.values())]

    output.mkdir(parents=True, exist_ok=True)
    with atomic_path(output / "curves.png") as partial:
        partial.write_bytes(chart)
    with atomic_path(output / "fixed.png") as partial:
        frames[-1].save(partial, format="PNG")
    image_grids.write_animation(frames, output / "fixed.gif")
    image_grids.write_animation(frames, output / "fixed.webp")
    document = {"images_seen": seen, "runs": names, "rows": rows}
    with atomic_path(output / "compare.json") as partial:
        partial.write_text(valid_text(json.dumps(document, indent=2, ensure_ascii=False)) + "\n", encoding="utf-8")
    page = run_page.rendered(
        "compare.html",
        names=names,
        kimg=f"{seen / 1000:g}",
        rows=rows,
        sheets={name: as_url(sheet_at(path, seen)) for name, path in zip(names, run_dirs, strict=True)},
        curves=run_page.embedded(output / "curves.png"),
        animation=run_page.embedded(output / "fixed.webp"),
    )
    path = output / "compare.html"
    with atomic_path(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def labels(run_dirs: Sequence[Path]) -> list[str]:
    """The folders' names, with the folder above where two have one name."""
    names = [path.name for path in run_dirs]
    return [str(Path(path.parent.name) / path.name) if names.count(path.name) > 1 else path.name for path in run_dirs]


def table(run_dirs: Sequence[Path], until: dict[Path, list[Line]]) -> dict[str, list[str]]:
    """What stands in the table: a row a fact, a value a run, each run at its last tick that counts.

    Every setting that the runs do not share has a row, under its name.
    """
    rows: dict[str, list[str]] = {}
    settings = differing([run_page.read_config(path) for path in run_dirs])
    for path in run_dirs:
        config, lines = run_page.read_config(path), until[path]
        G, D = networks.build(config)
        last = lines[-1]
        measured = [line for line in lines if "quality/frechet" in line]
        facts = {
            "images": f"{config.data.source}, {config.data.resolution} px",
            "networks": config.model.architecture,
            "G parameters": f"{networks.parameter_count(G):,}",
            "D parameters": f"{networks.parameter_count(D):,}",
            "objective": config.objective.name,
            "batch": str(config.optim.batch_size),
            "kimg": f"{last['images_seen'] / 1000:g}",
            "steps": f"{last['step']:,}",
            "time": f"{last['seconds']:,.0f} s",
            "images/s": f"{last['images_seen'] / max(last['seconds'], 1e-9):,.0f}",
            "loss D": f"{last['loss/D']:.3f}",
            "loss G": f"{last['loss/G']:.3f}",
            "Fréchet distance": f"{measured[-1]['quality/frechet']:.3f}" if measured else "not measured",
            "recall": f"{measured[-1]['quality/recall']:.3f}"
            if measured and "quality/recall" in measured[-1]
            else "not measured",
        }
        for title, value in facts.items():
            rows.setdefault(title, []).append(value)
            if title == "batch":
                rows |= settings
    return rows


def differing(configs: Sequence[Config]) -> dict[str, list[str]]:
    """Return each setting whose value is not the same in all configs, with the values in the configs' order."""
    documents = [config.model_dump(mode="json") for config in configs]
    found: dict[str, list[str]] = {}
    for field in field_names():
        section, _, name = field.partition(".")
        if field in IN_THE_TABLE:
            continue
        values = [document[section][name] if name else document[section] for document in documents]
        if any(value != values[0] for value in values):
            found[field] = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return found


def moments(ticks: Iterable[list[Line]]) -> list[int]:
    """The images seen at the ticks of the run that has the fewest, thinned to an animation's length."""
    fewest = min(ticks, key=len)
    return run_page.thinned([int(line["images_seen"]) for line in fewest])


def sheet_at(run_dir: Path, images_seen: int) -> Image.Image:
    """The picture of the fixed seeds at the last tick until then, or the first one."""
    sheets = run_page.sheets(run_dir, "fixed")
    if not sheets:
        raise TrainerError(f"no pictures in {run_dir / 'samples'}; is it a run folder that has had a tick?")
    at = bisect_right([int(path.stem.rpartition("-")[2]) for path in sheets], images_seen)
    return Image.open(sheets[max(0, at - 1)]).convert("RGB")


def side_by_side(sheets: Sequence[Image.Image]) -> Image.Image:
    """Pictures as one, white between them, each enlarged by a whole factor towards the tallest."""
    tallest = max(sheet.height for sheet in sheets)
    grown = [
        sheet.resize((sheet.width * k, sheet.height * k), Image.Resampling.NEAREST)
        for sheet in sheets
        for k in [max(1, tallest // sheet.height)]
    ]
    canvas = np.full((tallest, sum(sheet.width for sheet in grown) + GAP * (len(grown) - 1), 3), 255, dtype=np.uint8)
    left = 0
    for sheet in grown:
        canvas[: sheet.height, left : left + sheet.width] = np.asarray(sheet)
        left += sheet.width + GAP
    return Image.fromarray(canvas)


def as_url(sheet: Image.Image) -> str:
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return run_page.data_url("png", buffer.getvalue())
