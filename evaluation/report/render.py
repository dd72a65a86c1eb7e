"""Views of a report and of a comparison: Markdown, a self-contained HTML page, lines for a terminal.

The page contains its images, requests nothing and has no script. Text from outside (a model's name, a path) is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.json_files import write_json
from evaluation.output_files import atomic_output
from evaluation.report.charts import (
    extrapolation,
    extrapolation_chart,
    histories,
    history_chart,
    ordered_checkpoints,
    strip,
)
from evaluation.report.compare import Comparison, MetricRow, comparison_document
from evaluation.report.formatting import arrow, number, text_table
from evaluation.report.images import MAX_TILE, data_url, draw_grid, draw_neighbors, read_images, write_grids
from evaluation.report.reader import read_report
from evaluation.report.schema import Baseline, Report
from evaluation.report.templates import render

COMPARISON_NOTE = (
    "The best value of a metric is **bold**; differences are from the first report. ≈: the best one's interval "
    "overlaps with another's, so other seeds may change the order. Without intervals this is not known."
)


def write_views(path: Path, folder: Path | None = None) -> list[Path]:
    """Write Markdown, HTML and grids of images of `report.json`, by default next to it, and return their paths.

    Raises:
        EvaluationError: If it is not a report, or the folder cannot be written.
    """
    report = read_report(path)
    folder = path.parent if folder is None else folder
    images = read_images(path.parent, report.pictures or {})
    grids = write_grids(folder, images)
    values = {
        "report": report,
        "fit": extrapolation(report),
        "memorization": report.find("memorization"),
        "classes": _classes(report),
    }
    markdown = render("page.md", **values, grids=grids, histories=histories(report)) + "\n"
    page = render("page.html", **values, **_page_values(report, images))
    return [*_write(folder / path.name, {".md": markdown, ".html": page}), *grids.values()]


def _page_values(report: Report, images: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return what only the page shows, for its template: charts, and images as data URLs."""
    fit, memorization = extrapolation(report), report.find("memorization")
    nearest = [] if memorization is None else memorization.details.get("nearest", [])
    return {
        "strips": {
            one.name: strip(one.interval.values, one.interval.low, one.interval.high, one.interval.mean)
            for one in report.results
            if one.interval is not None
        },
        "grids": {name: data_url(draw_grid(array)) for name, array in images.items() if name != "neighbours"},
        "reduced": any(max(array.shape[-3:-1]) > MAX_TILE for array in images.values()),
        # Each of the samples nearest to training images, as a row with these, and their distance.
        "neighbors": [
            (data_url(draw_neighbors(row)), pair)
            for row, pair in zip(images.get("neighbours", ()), nearest, strict=False)
        ],
        "real_classes": {one["label"]: one["value"] for one in _classes(report.baseline)},
        "fit_chart": None if fit is None else extrapolation_chart(fit),
        "histories": [(history, history_chart(report, history)) for history in histories(report)],
        "checkpoints": ordered_checkpoints(report),
    }


def _classes(part: Report | Baseline | None) -> list[dict[str, Any]]:
    """Return the distance of each class, empty where there are none."""
    result = None if part is None else part.find("per_class")
    return [] if result is None else result.details.get("classes", [])


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.json`, `.md` and `.html` and return their paths."""
    path = folder / "comparison.json"
    write_json(path, comparison_document(comparison))
    images = [
        read_images(path.parent, report.pictures or {})
        for path, report in zip(comparison.paths, comparison.reports, strict=True)
    ]
    grids = [data_url(draw_grid(one["samples"])) if "samples" in one else None for one in images]
    values = {"comparison": comparison, "cell": _cell, "grids": grids}
    markdown = render("comparison.md", **values, note=COMPARISON_NOTE).rstrip("\n") + "\n"
    page = render("comparison.html", **values, note=COMPARISON_NOTE.replace("**", ""))
    return [path, *_write(path, {".md": markdown, ".html": page})]


def _write(path: Path, texts: dict[str, str]) -> list[Path]:
    """Write each text under the path with that suffix."""
    for suffix, text in texts.items():
        with atomic_output(path.with_suffix(suffix)) as handle:
            handle.write(text.encode())
    return [path.with_suffix(suffix) for suffix in texts]


def comparison_lines(comparison: Comparison) -> list[str]:
    """Return a comparison for a terminal; the best value of a metric has a star."""
    rows = [
        [f"{row.name} {arrow(row.better)}"]
        + [_cell(row, i) + (" *" if i in row.best else "  ") for i in range(len(row.results))]
        + [number(row.real)]
        for row in comparison.rows
    ]
    lines = [*text_table(["", *comparison.labels, "real images"], rows), f"* best; {comparison.protocol}"]
    if any(row.intervals_overlap for row in comparison.rows):
        lines.append("≈ the best one's interval overlaps with another's")
    return lines


def _cell(row: MetricRow, index: int) -> str:
    """Return a value, ≈ where its interval overlaps with another's, and the difference from the first report."""
    one = row.results[index]
    if one is None:
        return "–"
    text = number(one.value) + (" ≈" if index in row.best and row.intervals_overlap else "")
    change = row.difference(index)
    return text if change is None else f"{text} ({'+' if change >= 0 else ''}{number(change)})"
