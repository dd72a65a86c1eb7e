"""How figures and facts are said: one way for the page, the Markdown and the comparison."""

from __future__ import annotations

from typing import Any

from evaluation.report.reader import Document, Result

SAYS = {
    "fid": "How far the images' features lie from the real ones', as two Gaussians. Biased upwards by a small N.",
    "kid": "Squared distance of the features by a cubic kernel, without bias, so it may be below 0; ± is the spread "
    "over subsets.",
    "is": "How sure the network is of each image and how many classes it sees. Never looks at real images.",
    "precision": "Share of the images that lie among real ones.",
    "recall": "Share of the real images that lie among generated ones.",
    "density": "How many real images' neighbourhoods an image lies in, on average; may exceed 1.",
    "coverage": "Share of the real images that have a generated one in their neighbourhood.",
    "fid_infinity": "The Fréchet distance extrapolated to infinitely many images; ± is the standard error of that. "
    "The reference's own bias is left in. A value below 0 is error: take more images.",
    "per_class": "The mean over the classes of the Fréchet distance within each.",
    "memorisation": "Share of the images that are nearer to a training image than almost all held-out real ones are.",
}


def number(value: float | None) -> str:
    """Four significant digits, and all of a whole number's; none: a dash."""
    if value is None:
        return "–"
    size = abs(value)
    return ("−" if value < 0 else "") + (f"{size:,.0f}" if size >= 1000 else f"{size:.4g}")


def count(value: int | float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def percent(share: float) -> str:
    return f"{100 * share:.2f}%" if share < 0.1 else f"{100 * share:.1f}%"


def spread(result: Result) -> str:
    """`95% interval 9.88 to 11.4`, or `± 0.2`; empty where neither was asked for."""
    told = [f"± {number(result.std)}"] if result.std is not None else []
    if result.interval is not None:
        one = result.interval
        told.append(f"{one.level:.0%} interval {number(one.low)} to {number(one.high)}")
    return ", ".join(told)


def protocol(result: Result) -> str:
    """All that a figure may only be compared with when it is the same."""
    of = f"{count(result.n)} images against {count(result.n_reference)} of {result.reference or 'a file'}"
    size = f", {result.resolution} px" if result.resolution else ""
    return f"{of}{size}; extractor {result.extractor}, resize {result.resize}"


def facts(document: Document) -> dict[str, str]:
    """How the report was made: term → text."""
    source, extractor, reference = document.source, document.extractor, document.reference
    real = reference.get("image_set", {})
    where = source.get("url") or source.get("path") or source.get("name")
    told = {
        "source": ": ".join(str(part) for part in (source.get("kind"), where) if part),
        "model": document.model,
        "digest": document.digest,
        "images seen": None if document.images_seen is None else count(document.images_seen),
        "image size": _size(source.get("shape")),
        "resized": _resized(source.get("resized")),
        "seeds": None if document.seeds is None else f"{document.seeds['first']} to {document.seeds['last']}",
        "truncation": None if document.truncation is None else f"{document.truncation:g}",
        "labels": None if document.labels is None else str(document.labels),
        "extractor": f"{extractor.get('name')}, {extractor.get('network')}, {extractor.get('dim')} features, resize "
        f"{extractor.get('resize')}",
        "its digest": extractor.get("digest"),
        "its accuracy": f"{extractor['accuracy']:.2%} on its test split" if extractor.get("accuracy") else None,
        "reference": f"{count(reference.get('n'))} images of {real.get('name')}"
        + (f", split {real['split']}" if real.get("split") else ""),
        "its sha256": reference.get("sha256"),
        "its content": real.get("fingerprint"),
        "time": timing(document.timing),
        "versions": ", ".join(f"{name} {version}" for name, version in document.versions.items()),
        "made": document.created,
        "report digest": document.report_digest,
    }
    return {term: str(text) for term, text in told.items() if text is not None}


def timing(told: dict[str, Any]) -> str | None:
    """Where the time went; of merged shards, how long each took."""
    if "shards" in told:
        return "shards took " + ", ".join(f"{one['seconds']:.0f}" for one in told["shards"]) + " s"
    if not told.get("seconds"):
        return None
    rates = (count(told.get(f"{what}images_per_s")) for what in ("", "generating_", "extracting_"))
    return "{} images/s over {:.3g} s of a pass (generating alone {}, extracting alone {})".format(
        next(rates), told["seconds"], *rates
    )


def _size(shape: list[int] | None) -> str | None:
    return None if not shape else f"{shape[1]} x {shape[0]} px, " + ("grey" if shape[2] == 1 else "RGB")


def _resized(told: dict[str, Any] | None) -> str | None:
    return None if not told else f"from {' x '.join(str(side) for side in told['from'])} by {told['by']}"
