"""One self-contained page: every picture inside it, nothing fetched, no script."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import jinja2
import numpy as np

from evaluation.report import formatting
from evaluation.report.charts import strip
from evaluation.report.curves import against_n, against_n_chart, histories, history_chart, ordered
from evaluation.report.images import LARGEST, data_url, row, sheet
from evaluation.report.reader import Document


def page(document: Document, pictures: Mapping[str, np.ndarray]) -> str:
    """The HTML of a report. Whatever came from outside (a model's name, a path) is escaped."""
    fit = against_n(document)
    baseline = {} if document.baseline is None else {one.metric: one for one in document.baseline.results}
    sheets = {name: data_url(sheet(images)) for name, images in pictures.items() if name != "neighbours"}
    return rendered(
        "page.html",
        document=document,
        strips={
            result.name: strip(result.interval.values, result.interval.low, result.interval.high, result.interval.mean)
            for result in document.results
            if result.interval is not None
        },
        sheets=sheets,
        reduced=any(max(images.shape[-3:-1]) > LARGEST for images in pictures.values()),
        neighbours=neighbours(document, pictures.get("neighbours")),
        memorised=document.of("memorisation"),
        classes=classes(document),
        real_classes={} if "per_class" not in baseline else _by_label(baseline["per_class"].details),
        fit=fit,
        fit_chart=None if fit is None else against_n_chart(fit),
        histories=[(history, history_chart(document, history)) for history in histories(document)],
        checkpoints=ordered(document),
        facts=formatting.facts(document),
    )


def neighbours(document: Document, rows: np.ndarray | None) -> list[dict[str, Any]]:
    """Each sample with its nearest training images: `picture` (a data URL), `seed` or `sample`, `distance`, `near`."""
    result = document.of("memorisation")
    if result is None or rows is None:
        return []
    first = None if document.seeds is None else document.seeds["first"]
    found = []
    for images, pair in zip(rows, result.details.get("nearest", []), strict=False):
        which = f"image {pair['sample']}" if first is None else f"seed {first + pair['sample']}"
        found.append(
            {
                "picture": data_url(row(images)),
                "which": which,
                "distance": pair["distance"],
                "near": pair["distance"] <= result.details["threshold"],
            }
        )
    return found


def classes(document: Document) -> list[dict[str, Any]]:
    """The rows of the table by class, each with `share`, its distance's part of the largest, for a bar."""
    result = document.of("per_class")
    told = [] if result is None else result.details.get("classes", [])
    largest = max((one["value"] for one in told), default=0.0)
    return [one | {"share": max(one["value"], 0.0) / largest if largest > 0 else 0.0} for one in told]


def _by_label(details: dict[str, Any]) -> dict[int, float]:
    return {one["label"]: one["value"] for one in details.get("classes", [])}


def rendered(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(words=formatting, **values)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("evaluation.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
