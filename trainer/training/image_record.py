"""Which images a run trained on and where they were, so that it resumes on the same ones or not at all.

The record is in the run folder's `made_by.json`: `image_set` is the document of the image set (imagesets.ImageSet.info)
with its absolute place and the fingerprint of its pixels and labels; `data_root` is where named image sets were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagesets import ImageSet
from trainer.names import FOLDER

FILE = "made_by.json"
# What a person can compare of two image sets, and what it is called in a message.
COMPARED = {
    "n": "images",
    "labels": "labels",
    "class_names": "classes",
    "resolution": "resolution",
    "channels": "channels",
    "crop": "crop",
    "resize": "resize",
}


def of(images: ImageSet, data_root: Path) -> dict[str, Any]:
    """Return what a run records of its images and their place."""
    return {"image_set": images.info, "data_root": str(data_root.expanduser().absolute())}


def read(run_dir: Path) -> dict[str, Any]:
    """Return the record of a run folder, empty where it is missing or damaged."""
    try:
        found = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("image_set"), dict) else {}


def place_of(record: Mapping[str, Any]) -> str | None:
    """Return the `data.source` of a folder or zip under its absolute path; None where it is not there any more."""
    images = record.get("image_set", {})
    source, split = str(images.get("source", "")), images.get("split")
    path = Path(source.removeprefix(FOLDER))
    if not source.startswith(FOLDER) or not path.is_absolute() or not path.exists():
        return None
    return source if split in (None, "all") else f"{source}@{split}"


def data_root_of(record: Mapping[str, Any]) -> Path | None:
    """Return the recorded folder of the named image sets, None where it is not there any more."""
    text = record.get("data_root")
    return Path(text) if isinstance(text, str) and Path(text).is_dir() else None


def has_fingerprint(record: Mapping[str, Any]) -> bool:
    """Return whether a record says which images they were."""
    return isinstance(record.get("image_set", {}).get("fingerprint"), str)


def change(record: Mapping[str, Any], images: ImageSet) -> str:
    """Return in words how images differ from those of a record; "" where they are equal or the record has none."""
    if not has_fingerprint(record) or record["image_set"]["fingerprint"] == images.info.get("fingerprint"):
        return ""
    return difference(record["image_set"], images.info)


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in words how two image sets differ, given their documents."""
    found = [
        f"{words} {_shown(before.get(key))} → {_shown(now.get(key))}"
        for key, words in COMPARED.items()
        if key in before and before.get(key) != now.get(key)
    ]
    if not found:
        fingerprints = (str(info.get("fingerprint"))[:12] for info in (before, now))
        found = [f"as many images, with other pixels or labels (fingerprint {' → '.join(fingerprints)})"]
    old, new = (info.get("versions", {}).get("pillow") for info in (before, now))
    if old and new and old != new:
        found.append(f"Pillow {old} → {new}, which may decode files differently")
    return ", ".join(found)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value[:5]))}{', …' if len(value) > 5 else ''}]"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
