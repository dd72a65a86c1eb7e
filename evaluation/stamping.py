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
    """Write each score as `evaluation.<name>`, and what they were made of as `evaluation.protocol` (JSON).

    The file is replaced whole. A score of the same name is replaced, others stay. Raises EvaluationError for a file
    of another digest than the document's.
    """
    check_stampable(path, document["digest"])
    model = read_model(path, "generator file")
    first = document["results"][0]
    protocol = {
        "extractor": first["extractor"],
        "resize": first["resize"],
        "reference": first["reference"],
        "resolution": first["resolution"],
        "n": document["n"],
        "seeds": document["seeds"],
        "truncation": document["truncation"],
        "created": document["created"],
    }
    values = {f"evaluation.{name}": json.dumps(value) for name, value in document["scores"].items()}
    values["evaluation.protocol"] = json.dumps(protocol, ensure_ascii=False)
    kept = metadata_of(model) | values
    del model.metadata_props[:]
    for key, value in kept.items():
        model.metadata_props.add(key=key, value=value)
    if digest_of(model, unsealed) != document["digest"]:
        raise EvaluationError(f"{path}: stamping it would change its digest; it was left as it is")
    with written_whole(path) as handle:
        handle.write(model.SerializeToString())
