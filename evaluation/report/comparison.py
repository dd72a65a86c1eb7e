"""A comparison as JSON, Markdown, a page and lines for a terminal."""

from __future__ import annotations

from typing import Any

from evaluation.report import formatting
from evaluation.report.compare import Comparison, Row
from evaluation.report.html import rendered
from evaluation.report.images import data_url, read_pictures, sheet
from evaluation.report.markdown import code, escaped, table
from evaluation.report.schema import FORMAT_VERSION, now

NOTE = (
    "The best value of a metric is **bold**; differences are from the first report. ≈: the best one's interval "
    "overlaps with another's, so that fresh seeds might turn the order; without intervals nothing is known of that."
)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """For scripts: the scores of each report by name, which is best, and the difference from the first."""
    return {
        "format_version": FORMAT_VERSION,
        "kind": "comparison",
        "reports": [
            {
                "label": label,
                "path": str(path),
                "model": document.model,
                "digest": document.digest,
                "report_digest": document.report_digest,
            }
            for label, path, document in zip(comparison.labels, comparison.paths, comparison.documents, strict=True)
        ],
        "results": [
            {
                "name": row.name,
                "metric": row.metric,
                "better": row.better,
                "values": [None if one is None else one.value for one in row.results],
                "differences": [row.difference(i) for i in range(len(row.results))],
                "best": sorted(row.best),
                "intervals_overlap": row.unclear,
                "real_images": row.real,
            }
            for row in comparison.rows
        ],
        "protocol": formatting.protocol(comparison.documents[0].results[0]),
        "created": now(),
    }


def as_markdown(comparison: Comparison) -> str:
    lines = [f"# {' · '.join(map(escaped, comparison.labels))}", ""]
    lines += [f"Protocol: {escaped(formatting.protocol(comparison.documents[0].results[0]))}.", ""]
    rows = []
    for row in comparison.rows:
        cells = [cell(row, i) for i in range(len(row.results))]
        cells = [f"**{text}**" if i in row.best else text for i, text in enumerate(cells)]
        rows.append([f"{code(row.name)} {'↓' if row.better == 'lower' else '↑'}", *cells, formatting.number(row.real)])
    width = len(comparison.labels) + 2
    lines += table(["", *map(escaped, comparison.labels), "real images"], rows, right=range(1, width))
    lines += [NOTE, ""]
    unlike = [[escaped(term), *map(escaped, values)] for term, values in comparison.unlike.items()]
    return "\n".join(lines + (table(["", *map(escaped, comparison.labels)], unlike) if unlike else []))


def as_html(comparison: Comparison) -> str:
    pictures = [
        read_pictures(path.parent, document.pictures or {})
        for path, document in zip(comparison.paths, comparison.documents, strict=True)
    ]
    return rendered(
        "comparison.html",
        comparison=comparison,
        cell=cell,
        note=NOTE.replace("**", ""),
        first=comparison.documents[0].results[0],
        sheets=[data_url(sheet(one["samples"])) if "samples" in one else None for one in pictures],
    )


def cell(row: Row, index: int) -> str:
    """A value, its difference from the first report's, and ≈ where it is best by less than the intervals tell apart."""
    one = row.results[index]
    if one is None:
        return "–"
    change = row.difference(index)
    told = formatting.number(one.value) + (" ≈" if index in row.best and row.unclear else "")
    return told if change is None else f"{told} ({'+' if change >= 0 else ''}{formatting.number(change)})"


def summary(comparison: Comparison) -> str:
    """The table for a terminal, plain text: the best value of a metric has a star."""
    head = ["", *comparison.labels, "real images"]
    body = [
        [f"{row.name} {'↓' if row.better == 'lower' else '↑'}"]
        + [cell(row, i) + (" *" if i in row.best else "  ") for i in range(len(row.results))]
        + [formatting.number(row.real)]
        for row in comparison.rows
    ]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    lines = []
    for cells in (head, *body):
        first, *others = (text.ljust(widths[0]) if i == 0 else text.rjust(widths[i]) for i, text in enumerate(cells))
        lines.append("  ".join([first, *others]).rstrip())
    lines.append(f"* best; {formatting.protocol(comparison.documents[0].results[0])}")
    if any(row.unclear for row in comparison.rows):
        lines.append("≈ the best one's interval overlaps with another's")
    return "\n".join(lines)
