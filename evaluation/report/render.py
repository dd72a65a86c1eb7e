"""Views of a report and of a comparison: Markdown, a self-contained HTML page, lines for a terminal.

The page contains its images, requests nothing and has no script. Text from outside (a model's name, a path) is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from evaluation.atomic import atomic_output
from evaluation.report import formatting
from evaluation.report.charts import (
    extrapolation,
    extrapolation_chart,
    histories,
    history_chart,
    ordered_checkpoints,
    strip,
)
from evaluation.report.compare import Comparison, MetricRow, comparison_document
from evaluation.report.formatting import arrow, code_span, escape_markdown, number, text_table
from evaluation.report.images import MAX_TILE, data_url, draw_grid, draw_neighbors, read_images, write_grids
from evaluation.report.reader import read_report
from evaluation.report.schema import Report, write_json

COMPARISON_NOTE = (
    "The best value of a metric is **bold**; differences are from the first report. ≈: the best one's interval "
    "overlaps with another's, so other seeds may change the order. Without intervals this is not known."
)


def write_views(path: Path, folder: Path | None = None) -> list[Path]:
    """Write Markdown, HTML and grids of images of a report; the JSON is not changed.

    Args:
        path: `report.json`.
        folder: Where to write; default: next to the report.

    Returns:
        The written files.

    Raises:
        EvaluationError: If it is not a report, or the folder cannot be written.
    """
    report = read_report(path)
    folder = path.parent if folder is None else folder
    images = read_images(path.parent, report.pictures or {})
    grids = write_grids(folder, images)
    texts = {".md": report_markdown(report, grids), ".html": report_html(report, images)}
    return [*_write(folder / path.name, texts), *grids.values()]


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.json`, `.md` and `.html` and return their paths."""
    path = folder / "comparison.json"
    write_json(path, comparison_document(comparison))
    texts = {".md": comparison_markdown(comparison), ".html": comparison_html(comparison)}
    return [path, *_write(path, texts)]


def _write(path: Path, texts: dict[str, str]) -> list[Path]:
    """Write each text under the path with that suffix."""
    for suffix, text in texts.items():
        with atomic_output(path.with_suffix(suffix)) as handle:
            handle.write(text.encode())
    return [path.with_suffix(suffix) for suffix in texts]


def report_markdown(report: Report, grids: Mapping[str, Path] | None = None) -> str:
    """Return a report as Markdown; `grids` are the images next to it, by name."""
    text = _render(
        "page.md",
        report=report,
        grids=grids or {},
        histories=histories(report),
        fit=extrapolation(report),
        memorization=report.find("memorization"),
        classes=class_rows(report),
    )
    return text + "\n"


def report_html(report: Report, images: Mapping[str, np.ndarray]) -> str:
    """Return a report as a page; `images` are those that `read_images` returns."""
    fit = extrapolation(report)
    real_classes: list[dict[str, Any]] = next(
        (
            one.details.get("classes", [])
            for one in (report.baseline.results if report.baseline else ())
            if one.metric == "per_class"
        ),
        [],
    )
    return _render(
        "page.html",
        report=report,
        strips={
            result.name: strip(result.interval.values, result.interval.low, result.interval.high, result.interval.mean)
            for result in report.results
            if result.interval is not None
        },
        grids={name: data_url(draw_grid(array)) for name, array in images.items() if name != "neighbours"},
        reduced=any(max(array.shape[-3:-1]) > MAX_TILE for array in images.values()),
        neighbors=_neighbor_rows(report, images.get("neighbours")),
        memorization=report.find("memorization"),
        classes=class_rows(report),
        real_classes={one["label"]: one["value"] for one in real_classes},
        fit=fit,
        fit_chart=None if fit is None else extrapolation_chart(fit),
        histories=[(history, history_chart(report, history)) for history in histories(report)],
        checkpoints=ordered_checkpoints(report),
    )


def _neighbor_rows(report: Report, rows: np.ndarray | None) -> list[dict[str, Any]]:
    """Return each sample with its nearest training images: `image` (a data URL), `title`, `distance`, `is_near`."""
    result = report.find("memorization")
    if result is None or rows is None:
        return []
    first = None if report.seeds is None else report.seeds["first"]
    return [
        {
            "image": data_url(draw_neighbors(images)),
            "title": f"image {pair['sample']}" if first is None else f"seed {first + pair['sample']}",
            "distance": pair["distance"],
            "is_near": pair["distance"] <= result.details["threshold"],
        }
        for images, pair in zip(rows, result.details.get("nearest", []), strict=False)
    ]


def class_rows(report: Report) -> list[dict[str, Any]]:
    """Return the rows of the table by class; `share` is the distance as a part of the largest, for a bar."""
    result = report.find("per_class")
    classes = [] if result is None else result.details.get("classes", [])
    largest = max((one["value"] for one in classes), default=0.0)
    return [one | {"share": max(one["value"], 0.0) / largest if largest > 0 else 0.0} for one in classes]


def comparison_markdown(comparison: Comparison) -> str:
    """Return a comparison as Markdown."""
    return _render("comparison.md", comparison=comparison, cell=_cell, note=COMPARISON_NOTE).rstrip("\n") + "\n"


def comparison_html(comparison: Comparison) -> str:
    """Return a comparison as a page."""
    images = [
        read_images(path.parent, report.pictures or {})
        for path, report in zip(comparison.paths, comparison.reports, strict=True)
    ]
    return _render(
        "comparison.html",
        comparison=comparison,
        cell=_cell,
        note=COMPARISON_NOTE.replace("**", ""),
        grids=[data_url(draw_grid(one["samples"])) if "samples" in one else None for one in images],
    )


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


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(fmt=formatting, **values)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evaluation.report", "."),
        # In Markdown, the filters `text` and `code` escape.
        autoescape=lambda name: name is None or not name.endswith(".md"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"text": escape_markdown, "code": code_span}
    return environment
