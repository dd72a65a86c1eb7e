"""results.json, its tables in the pages of a folder, and the pictures next to them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

import imagesets
from artifacts.files import atomic_path
from scripts import fid_mistakes
from scripts.reproduce.comparison import PAIRS, Points, machine_of, moments
from scripts.reproduce.runs import (
    ORDER,
    RESULTS,
    RUNS,
    SIDES,
    Job,
    ReproductionContext,
    Trial,
    collected,
    fail,
    points,
    read_report,
    say,
)
from scripts.reproduce.tables import by_kind, render
from trainer import networks
from trainer.config import loading
from trainer.reports import image_grids

Scores = dict[str, dict[str, float]]  # extractor → full name → value


def write(context: ReproductionContext, output: Path | None) -> Path:
    """Write results.json, the pictures, and the tables into the pages of a folder; return the folder.

    Rows of presets that were not collected are kept. Without `output` the folder is docs/results, or one in the work
    where docs/results has rows that other extractor files scored: they do not compare.
    """
    trials = collected(context)
    if not trials:
        raise SystemExit(f"{context.collected} has no generators yet; there is nothing to write")
    results: dict[str, Any] = {"runs": [], "real": {}, "accuracy": {}, "comparisons": [], "mistakes": {}}
    for trial in trials:
        results["runs"].append(row_of(context, trial, results))
    for pair in PAIRS:
        results["comparisons"] += comparisons(context, *pair)
    for dataset in dict.fromkeys(trial.run.dataset for trial in trials):
        if found := mistakes(context, dataset, trials):
            results["mistakes"][dataset] = found
    folder = output or RESULTS
    merged, lost = keep_earlier(read_results(folder), results)
    if lost:
        say(
            f"\nthe rows of {', '.join(lost)} in {folder} were scored with other extractor files, or it is not recorded"
        )
    if lost and output is None:
        folder = context.folder / "results"
        merged, _ = keep_earlier(read_results(folder), results)
        say(f"{RESULTS} is left as it is, and the pages are in {folder}; --output {RESULTS} drops those rows")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for trial in trials:
        if trial.seed == 0:
            save_images(context.record(trial), folder / "images", trial.name)
    for dataset in results["mistakes"]:
        save_real_images(context, dataset, folder / "images" / f"{dataset}-real.png")
    with atomic_path(folder / "results.json") as partial:
        partial.write_text(json.dumps(merged, indent=2) + "\n", encoding="utf-8")
    render(folder, merged)
    return folder


def read_results(folder: Path) -> dict[str, Any]:
    """Return the results.json of a folder; none yet: an empty dictionary."""
    path = folder / "results.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise fail(f"{path} is damaged ({error}); restore or delete it") from None


def keep_earlier(earlier: dict[str, Any], results: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return results with the earlier rows of other presets, and the presets whose rows do not compare.

    Earlier rows of a dataset compare if they were scored with one of the extractor files that scored it now, or with
    other extractors only, which have columns that the new rows leave empty. An earlier comparison is kept while one
    of its two presets has an earlier row.
    """
    presets = {row["preset"] for row in results["runs"]}
    digests = {(row["dataset"], *item) for row in results["runs"] for item in row["extractors"].items()}
    scored = {dataset for dataset, *_ in digests}
    names = {(dataset, extractor) for dataset, extractor, _ in digests}
    kept_names: set[tuple[str, str]] = set()
    rows: dict[str, list[dict[str, Any]]] = {run.preset: [] for run in RUNS}
    lost = dict[str, None]()
    for row in earlier.get("runs", []):
        known = {(row["dataset"], *item) for item in row.get("extractors", {}).items()}
        if row["preset"] in presets:
            continue
        columns = row.get("extractors") or row.get("end", {}).get("averaged", {})  # old rows do not name their files
        found = {(row["dataset"], extractor) for extractor in columns}
        if row["dataset"] not in scored or known & digests or (found and not found & names):
            rows.setdefault(row["preset"], []).append(row)
            kept_names |= found
        else:
            lost[row["preset"]] = None
    kept = {preset for preset, found in rows.items() if found}
    for row in results["runs"]:
        rows.setdefault(row["preset"], []).append(row)
    new = {pair_of(row) for row in results["comparisons"]}
    comparisons = [
        row
        for row in earlier.get("comparisons", [])
        if pair_of(row) not in new and kept & set(pair_of(row)) and not set(lost) & set(pair_of(row))
    ]
    merged = {key: earlier.get(key, {}) | results[key] for key in ("accuracy", "mistakes")}
    merged["real"] = earlier.get("real", {}) | {
        dataset: {
            extractor: scores
            for extractor, scores in earlier.get("real", {}).get(dataset, {}).items()
            if (dataset, extractor) in kept_names
        }
        | scores_now
        for dataset, scores_now in results["real"].items()
    }
    return {
        "runs": [row for found in rows.values() for row in found],
        "comparisons": [*comparisons, *results["comparisons"]],
        **merged,
    }, list(lost)


def pair_of(comparison: dict[str, Any]) -> tuple[str, str]:
    """Return the two presets of a comparison."""
    return comparison["first"]["preset"], comparison["second"]["preset"]


def row_of(context: ReproductionContext, trial: Trial, results: dict[str, Any]) -> dict[str, Any]:
    """Return a trial's row of results.json; add what its reports have of real images and classifiers to `results`."""
    run, tick = trial.run, points(context, trial)[-1].tick
    config = loading.parse(json.loads((context.record(trial) / "config.json").read_text(encoding="utf-8")))
    G, D = networks.build(config)
    own = ("run.", "name", "data.source", "data.channels", "data.class_names")  # not the preset's
    if changed := [
        line for line in loading.differences(loading.resolve(run.preset), config) if not line.startswith(own)
    ]:
        say(f"warning: {trial.name} was not trained with the preset as it is now ({'; '.join(changed)})")
    scores: dict[str, Scores] = {"averaged": {}, "last_step": {}}
    digests: dict[str, str] = {}
    for averaged, found in zip((True, False), scores.values(), strict=True):
        for features in ORDER[run.dataset]:
            model = context.model(trial, tick["step"], averaged)
            report = read_report(context, Job(run.dataset, model, features, context.count(run.dataset), True))
            if report:
                found[features], digests[features] = report["scores"], report["extractor"]["digest"]
                baseline = {row["name"]: row["value"] for row in (report["baseline"] or {"results": []})["results"]}
                results["real"].setdefault(run.dataset, {})[features] = baseline
                if "accuracy" in report["extractor"]:
                    results["accuracy"][run.dataset] = report["extractor"]["accuracy"]
    return {
        "preset": run.preset,
        "seed": trial.seed,
        "sources": list(run.sources),
        "dataset": run.dataset,
        "conditional": config.model.conditional,
        "full_kimg": run.kimg,
        "parameters": {"G": networks.parameter_count(G), "D": networks.parameter_count(D)},
        "machine": machine_of(context, trial),
        "extractors": digests,
        "end": {"step": tick["step"], "kimg": tick["images_seen"] / 1000, "seconds": round(tick["seconds"], 1)}
        | {name: round(tick[name], 1) for name in ("cpu_seconds",) if name in tick}
        | scores,
    }


def comparisons(context: ReproductionContext, first: str, second: str) -> list[dict[str, Any]]:
    """Return a row per moment at which two presets were compared, with the distances of each seed."""

    def side(preset: str, chosen: Points, at: str, clock: str | None) -> dict[str, Any]:
        count = context.count("mnist") if at == "end" else context.point_count
        distances: dict[str, list[float]] = {}
        for point in chosen:
            for features in ORDER["mnist"]:
                report = read_report(context, Job("mnist", point.path, features, count, at == "end"))
                if report:
                    distances.setdefault(features, []).append(by_kind(report["scores"])["distance"])
        ticks = [point.tick for point in chosen]
        time = median(tick[clock or "seconds"] for tick in ticks)
        kimg = median(tick["images_seen"] for tick in ticks) / 1000
        return {"preset": preset, "kimg": kimg, "seconds": round(time, 1), "seeds": len(ticks), "distances": distances}

    return [
        {
            "at": moment.at,
            "clock": moment.clock,
            "first": side(first, moment.first, moment.at, moment.clock),
            "second": side(second, moment.second, moment.at, moment.clock),
        }
        for moment in moments(context, first, second)
    ]


def mistakes(context: ReproductionContext, dataset: str, trials: tuple[Trial, ...]) -> list[dict[str, Any]]:
    """Return the rows of fid_mistakes for the first run of a dataset that a source describes."""
    trial = next((trial for trial in trials if trial.run.dataset == dataset and trial.run.sources), None)
    if trial is None or not context.classifier(dataset).is_file():
        return []
    model = context.model(trial, points(context, trial)[-1].tick["step"], averaged=False)
    places = (context.images[dataset], context.data_root)
    found = fid_mistakes.measure(context.classifier(dataset), model, *places, SIDES[dataset], context.count(dataset))
    return list(found)


def save_images(record: Path, folder: Path, name: str) -> None:
    """Copy a run's last grid and its curves, and the upper left quarter of the grid as the table's thumbnail."""
    grid = Image.open(record / "samples.png")
    grid.save(folder / f"{name}-grid.png", optimize=True)
    save_thumbnail(grid.crop((0, 0, grid.width // 2, grid.height // 2)), folder / f"{name}.png")
    curves = Image.open(record / "curves.png").convert("P", palette=Image.Palette.ADAPTIVE)
    curves.save(folder / f"{name}-curves.png", optimize=True)


def save_real_images(context: ReproductionContext, dataset: str, path: Path) -> None:
    images = imagesets.load(context.images[dataset], data_root=context.data_root).images
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:16])
    save_thumbnail(image_grids.to_pil(image_grids.grid(images[chosen]), min_side=256), path)


def save_thumbnail(image: Image.Image, path: Path) -> None:
    image.thumbnail((96, 96), Image.Resampling.LANCZOS)
    image.save(path, optimize=True)
