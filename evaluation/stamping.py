"""Scores written into the generator file that they are of, where the service shows them. Its digest stays the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluation.atomic import written_whole
from evaluation.errors import EvaluationError
from evaluation.onnx_files import digest_of, metadata_of, read_model
from evaluation.sources.generator import unsealed


def check_stampable(path: Path, digest: str | None) -> None:
    """Raise EvaluationError, before any work, for a file that is not the generator that is scored."""
    found = metadata_of(read_model(path, "generator file")).get("digest")
    if not digest or found != digest:
        raise EvaluationError(f"--stamp {path}: its digest is {str(found)[:12]}, the scored model's {str(digest)[:12]}")


def stamp(path: Path, document: dict[str, Any]) -> None:
    """Write each score as `evaluation.<name>`, and what it was made of as `evaluation.<name>.protocol` (JSON).

    The file is replaced whole. A score of the same name is replaced with its protocol, others keep theirs. Raises
    EvaluationError for a file of another digest than the document's.
    """
    check_stampable(path, document["digest"])
    model = read_model(path, "generator file")
    kept = metadata_of(model)
    # One protocol for all scores, as files were stamped before: of the last one only, so of no use to the others.
    kept.pop("evaluation.protocol", None)
    for result in document["results"]:
        key = f"evaluation.{result['name']}"
        kept[key] = json.dumps(result["value"])
        kept[f"{key}.protocol"] = json.dumps(_protocol(result, document), ensure_ascii=False)
    del model.metadata_props[:]
    for key, value in kept.items():
        model.metadata_props.add(key=key, value=value)
    if digest_of(model, unsealed) != document["digest"]:
        raise EvaluationError(f"{path}: stamping it would change its digest; it was left as it is")
    with written_whole(path) as handle:
        handle.write(model.SerializeToString())


def _protocol(result: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """All that decides a score, and what else its reader needs; what does not apply is left out."""
    reference = document["reference"]
    interval = result["interval"]
    told = {
        "metric": result["metric"],
        "extractor": result["extractor"],
        "extractor_digest": result["extractor_digest"],
        "resize": result["resize"],
        "reference": result["reference"],
        "split": result["split"],
        "n_reference": result["n_reference"],
        "reference_sha256": reference["sha256"],
        "reference_fingerprint": reference["image_set"].get("fingerprint"),
        "resolution": result["resolution"],
        "n": result["n"],
        "seeds": document["seeds"],
        "truncation": document["truncation"],
        "labels": document["labels"],
        "std": result["std"],
        "interval": interval and {key: interval[key] for key in ("low", "high", "level")},
        "details": {key: value for key, value in result["details"].items() if isinstance(value, int | float | str)},
        "created": document["created"],
    }
    return {key: value for key, value in told.items() if value not in (None, {})}
