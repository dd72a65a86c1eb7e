"""Numbers, provenance and tables as text, the same in every view of a report."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.report.schema import Report, Result, Timing

METRIC_DESCRIPTIONS = {
    "fid": "Distance between the features of the images and of real images, as two Gaussians. Biased upward at a "
    "small N.",
    "kid": "Squared distance of the features under a cubic kernel, without bias, so it may be below 0; ± is the spread "
    "over subsets.",
    "is": "How confident the network is of each image, and how many classes it sees. It does not use real images.",
    "precision": "Share of the generated images that resemble real ones.",
    "recall": "Share of the real images that the generator covers.",
    "density": "Mean number of real images' neighborhoods that contain a generated image; may exceed 1.",
    "coverage": "Share of the real images that have a generated one in their neighborhood.",
    "fid_infinity": "The Fréchet distance extrapolated to infinitely many images; ± is its standard error. "
    "The bias of the reference remains. A value below 0 is an error: score more images.",
    "per_class": "The mean over the classes of the Fréchet distance within each.",
    "memorization": "Share of the images that are nearer to a training image than almost all held-out real ones are.",
}


def number(value: float | None) -> str:
    """Return four significant digits, and all digits of an integer part; a dash for None."""
    if value is None:
        return "–"
    size = abs(value)
    return ("−" if value < 0 else "") + (f"{size:,.0f}" if size >= 1000 else f"{size:.4g}")


def count(value: int | float | None) -> str:
    """Return a whole number with separators; a dash for None."""
    return "–" if value is None else f"{value:,.0f}"


def percent(share: float) -> str:
    """Return a share of 0 to 1 in percent."""
    return f"{100 * share:.2f}%" if share < 0.1 else f"{100 * share:.1f}%"


def arrow(better: str) -> str:
    """Return the direction of better values."""
    return "↓" if better == "lower" else "↑"


def spread(result: Result) -> str:
    """Return `95% interval 9.88 to 11.4` or `± 0.2`; empty where there is neither."""
    parts = [f"± {number(result.std)}"] if result.std is not None else []
    if result.interval is not None:
        one = result.interval
        parts.append(f"{one.level:.0%} interval {number(one.low)} to {number(one.high)}")
    return ", ".join(parts)


def protocol(result: Result) -> str:
    """Return everything that must be equal before two scores may be compared."""
    images = f"{count(result.n)} images against {count(result.n_reference)} of {result.reference or 'a file'}"
    size = f", {result.resolution} px" if result.resolution else ""
    return f"{images}{size}; extractor {result.extractor}, resize {result.resize}"


def provenance_rows(report: Report) -> dict[str, str]:
    """Return how the report was made: term → text."""
    source, extractor, reference = report.source, report.extractor, report.reference
    real, seeds = reference.image_set, report.seeds
    where = source.url or source.path or source.name
    rows = {
        "source": ": ".join(str(part) for part in (source.kind, where) if part),
        "model": report.model,
        "digest": report.digest,
        "images seen": None if report.images_seen is None else count(report.images_seen),
        "image size": source.shape and _image_size(source.shape),
        "resized": source.resized and f"from {' x '.join(map(str, source.resized.sides))} by {source.resized.by}",
        "seeds": seeds and f"{seeds['first']} to {seeds['last']}",
        "truncation": None if report.truncation is None else f"{report.truncation:g}",
        "labels": None if report.labels is None else str(report.labels),
        "extractor": f"{extractor.name}, {extractor.network}, {extractor.dim} features, resize {extractor.resize}",
        "its digest": extractor.digest,
        "its accuracy": f"{extractor.accuracy:.2%} on its test split" if extractor.accuracy else None,
        "reference": f"{count(reference.n)} images of {real.name}" + (f", split {real.split}" if real.split else ""),
        "its sha256": reference.sha256,
        "its content": real.fingerprint,
        "time": _time(report.timing),
        "versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        "made": report.created,
        "report digest": report.report_digest,
    }
    return {term: str(text) for term, text in rows.items() if text is not None}


def _time(timing: Timing) -> str | None:
    """Return the time and rates of a pass; of merged shards, the time of each."""
    if timing.shards is not None:
        return "shards took " + ", ".join(f"{one.seconds:.0f}" for one in timing.shards) + " s"
    if not timing.seconds:
        return None
    alone = count(timing.generating_images_per_s), count(timing.extracting_images_per_s)
    return (
        f"{count(timing.images_per_s)} images/s over {timing.seconds:.3g} s of a pass (generating alone {alone[0]}, "
        f"extracting alone {alone[1]})"
    )


def _image_size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]} px, " + {1: "gray", 4: "RGBA, drawn over white for the features"}.get(
        shape[2], "RGB"
    )


def escape_markdown(text: object) -> str:
    """Return text on one line, without anything that Markdown or HTML would read as markup."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|!#~]|(?<!\w)_|_(?!\w))", r"\\\1", line)


def code_span(text: object) -> str:
    """Return a code span of Markdown, in which a backtick becomes an apostrophe."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "¦") + "`"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table for a terminal; all columns but the first are right-aligned."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip() for first, *rest in lines]
