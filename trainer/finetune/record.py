"""The record of what a fine-tuned run started from: in its made_by.json, its checkpoints and its generator file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

CHECKPOINT = "checkpoint"
GENERATOR = "generator"


def make_record(
    kind: str, *, name: str, path: Path, digest: str, images_seen: int, dataset: str
) -> dict[str, str | int]:
    """Return the record of a parent.

    Args:
        kind: CHECKPOINT or GENERATOR.
        name: Its model name.
        path: The file.
        digest: The sha256 of a checkpoint file, or the digest of a generator file.
        images_seen: Real images that its own training showed.
        dataset: Its `data.source`.
    """
    return {
        "kind": kind,
        "name": name,
        "path": str(path.absolute()),
        "digest": digest,
        "images_seen": images_seen,
        "dataset": dataset,
    }


def describe(record: Mapping[str, Any]) -> str:
    """Return one line about a parent."""
    seen = record.get("images_seen")
    kimg = f"{seen / 1000:,g} kimg" if isinstance(seen, int) else "?"
    digest = str(record.get("digest", "?"))[:12]
    name, dataset = record.get("name", "?"), record.get("dataset", "?")
    return f"{name}, {kimg} of {dataset} ({short_path(record)}, sha256 {digest}…)"


def short_path(record: Mapping[str, Any]) -> str:
    """Return the name of a parent's file, of a checkpoint with that of its run folder."""
    path = PurePath(str(record.get("path", "?")))
    return f"{path.parent.name}/{path.name}" if record.get("kind") == CHECKPOINT else path.name


def to_public_json(record: Mapping[str, Any], dataset: str) -> str:
    """Return a record for a file that is shared: without the folders of this machine.

    Args:
        record: The record.
        dataset: Its dataset, without folders.
    """
    return json.dumps({**record, "path": short_path(record), "dataset": dataset}, ensure_ascii=False, default=str)
