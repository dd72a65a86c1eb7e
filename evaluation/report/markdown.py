"""The report as Markdown: the same figures for a pull request or a model card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.report import formatting
from evaluation.report.curves import against_n, histories
from evaluation.report.html import classes
from evaluation.report.reader import Document


def escaped(text: object) -> str:
    """On one line, with nothing in it that Markdown or HTML would take for markup."""
    flat = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|!#~]|(?<!\w)_|_(?!\w))", r"\\\1", flat)


def code(text: object) -> str:
    """A code span, which may hold anything but a backtick."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "¦") + "`"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Cells are Markdown already; the columns in `right` are figures."""
    line = ["---:" if i in right else "---" for i in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, line, *rows)] + [""]


def markdown(document: Document, sheets: Mapping[str, Path] | None = None) -> str:
    """The report; `sheets` are the pictures that lie beside it, by name."""
    sheets = sheets or {}
    first = document.results[0]
    lines = [f"# {escaped(document.title)}", "", f"Protocol: {escaped(formatting.protocol(first))}.", ""]
    if (limit := document.threshold) is not None:
        verdict = "passed" if limit.passed else "failed"
        lines += [f"**{verdict}**: {code(limit.name)}, limit {formatting.number(limit.fail_above)}", ""]
    lines += [f"> **Warning:** {escaped(text)}\n" for text in document.warnings]
    rows = [
        [
            f"{escaped(result.title)} {'↓' if result.better == 'lower' else '↑'}",
            code(result.name),
            formatting.number(result.value),
            formatting.spread(result),
            formatting.number(document.real(result)),
        ]
        for result in document.results
    ]
    lines += table(["metric", "name", "value", "spread", "real images"], rows, right=(2, 4))
    if (beside := document.baseline) is not None:
        lines += [f"Real images: {formatting.count(beside.n)} of {escaped(beside.image_set)}, the same metrics.", ""]
    for name, heading in (("samples", "Scored images"), ("reals", "Real images")):
        if name in sheets:
            lines += [f"## {heading}", "", f"![{heading}]({sheets[name].name})", ""]
    lines += _history(document) + _curve(document) + _memorised(document, sheets) + _classes(document)
    lines += ["## How it was made", ""]
    lines += table(["", ""], [[escaped(term), escaped(text)] for term, text in formatting.facts(document).items()])
    return "\n".join([*lines, code(document.command), ""])


def _history(document: Document) -> list[str]:
    found = histories(document)
    if not found:
        return []
    rows = []
    for i, (seen, *_) in enumerate(found[0].points):
        values = [formatting.number(one.points[i][1]) for one in found]
        rows.append(
            [formatting.count(seen)]
            + [f"**{v}**" if one.best == i else v for one, v in zip(found, values, strict=True)]
        )
    head = ["images seen", *(code(one.name) for one in found)]
    return ["## Score against images seen", "", *table(head, rows, right=range(len(head)))]


def _curve(document: Document) -> list[str]:
    fit = against_n(document)
    if fit is None:
        return []
    rows = [[formatting.count(n), formatting.number(value)] for n, value in fit.points] + [
        ["∞", formatting.number(fit.value)]
    ]
    return ["## Fréchet distance against N", "", *table(["N", "distance"], rows, right=(0, 1))]


def _memorised(document: Document, sheets: Mapping[str, Path]) -> list[str]:
    result = document.of("memorisation")
    if result is None:
        return []
    shares = formatting.percent(result.value), formatting.percent(result.details["held_out_share"])
    told = (
        f"{shares[0]} of the images are near-copies of training images (nearer than "
        f"{formatting.number(result.details['threshold'])}); of held-out real images {shares[1]} are. "
        "Median nearest distance over that of held-out reals: "
        f"{formatting.number(result.details.get('median_ratio'))}; "
        "well below 1 gives memorisation away. Copies that were shifted or altered may be missed."
    )
    lines = ["## Nearest training images", "", told, ""]
    if "neighbours" in sheets:
        lines += [f"![Images, each followed by its nearest training images]({sheets['neighbours'].name})", ""]
    return lines


def _classes(document: Document) -> list[str]:
    rows = [
        [escaped(one.get("class", one["label"])), formatting.number(one["value"])]
        + [formatting.count(one[side]) for side in ("n", "n_reference")]
        for one in classes(document)
    ]
    if not rows:
        return []
    return ["## By class", "", *table(["class", "distance", "images", "reference"], rows, right=(1, 2, 3))]
