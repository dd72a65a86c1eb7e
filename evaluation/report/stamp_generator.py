"""Write scores into the generator file that was scored, where the service shows them. Its digest stays the same."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifacts.files import lock_handle
from artifacts.generator_file import is_unsealed
from artifacts.onnx_metadata import digest_of, metadata_of
from evaluation.errors import EvaluationError
from evaluation.json_files import without_surrogates
from evaluation.metrics.result_names import current_name
from evaluation.onnx_runtime import read_model
from evaluation.output_files import atomic_output

PREFIX, PROTOCOL = "evaluation.", ".protocol"
# Parts of a protocol that decide a score, and their fields.
_DECISIVE_FIELDS = {
    "extractor": ("extractor_digest",),
    "reference": ("reference_fingerprint", "n_reference"),
    "resolution": ("resolution",),
    "truncation": ("truncation",),
    "labels": ("labels",),
}


def check_stampable(path: Path, digest: str | None) -> None:
    """Raise EvaluationError unless the file is the generator that is scored."""
    found = metadata_of(read_model(path, "generator file")).get("digest")
    if not digest or found != digest:
        raise EvaluationError(f"--stamp {path}: its digest is {str(found)[:12]}, the scored model's {str(digest)[:12]}")


def stamp(path: Path, document: dict[str, Any]) -> list[str]:
    """Write each score as `evaluation.<name>`, and its protocol as `evaluation.<name>.protocol` (JSON).

    The file is replaced whole. A score of the same name is replaced with its protocol; other scores stay. Names of
    earlier versions become the present ones first, because two scores could share one of those. Returns a warning for
    each replaced score of another protocol; raises EvaluationError if the file is not the report's generator.
    """
    with _locked(path):
        return _stamp(path, document)


def _stamp(path: Path, document: dict[str, Any]) -> list[str]:
    check_stampable(path, document["digest"])
    model = read_model(path, "generator file")
    metadata = metadata_of(model)
    # Earlier versions wrote one protocol for all scores, which is only that of the last one.
    metadata.pop("evaluation.protocol", None)
    metadata = _with_current_names(metadata)
    warnings = []
    for result in document["results"]:
        key, protocol = f"{PREFIX}{result['name']}", _protocol(result, document)
        if key in metadata and (differing := _differing(_parse(metadata.get(f"{key}{PROTOCOL}")), protocol)):
            warnings.append(
                f"{path}: {result['name']} replaces the stamped {metadata[key]}, which was made with another "
                f"{' and '.join(differing)}"
            )
        metadata[key] = json.dumps(result["value"])
        metadata[f"{key}{PROTOCOL}"] = without_surrogates(json.dumps(protocol, ensure_ascii=False), "\\\\")
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    if digest_of(model, is_unsealed) != document["digest"]:
        raise EvaluationError(f"{path}: stamping it would change its digest; it was not changed")
    with atomic_output(path) as handle:
        handle.write(model.SerializeToString())
    return warnings


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file at `path`, so that two jobs that end at the same time do not lose each other's scores."""
    with contextlib.ExitStack() as held:
        # If the file is missing, reading it reports why. Without locks, the rename keeps the file whole.
        with contextlib.suppress(OSError):
            for _ in range(100):
                handle = held.enter_context(path.open("rb"))
                lock_handle(handle.fileno(), path)
                # Done unless the file was replaced while this waited.
                if os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                    break
        yield


def _with_current_names(metadata: dict[str, str]) -> dict[str, str]:
    """Return metadata whose scores have their present names; without a protocol a name stays as it is."""
    found: dict[str, str] = {}
    for key, value in metadata.items():
        name, ending = key.removeprefix(PREFIX), ""
        if name.endswith(PROTOCOL):
            name, ending = name.removesuffix(PROTOCOL), PROTOCOL
        protocol = _parse(metadata.get(f"{PREFIX}{name}{PROTOCOL}"))
        metric, n, details = (protocol.get(field) for field in ("metric", "n", "details"))
        if key.startswith(PREFIX) and isinstance(metric, str) and isinstance(n, int):
            size = details.get("subset_size") if isinstance(details, dict) else None
            present = f"{PREFIX}{current_name(name, metric, n, size if isinstance(size, int) else None)}{ending}"
            # A score under its present name is the newer one.
            if present != key and present in metadata:
                continue
            key = present
        found[key] = value
    return found


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the decisive parts that differ between two protocols; none where the old one is not known."""
    return [
        part for part, keys in _DECISIVE_FIELDS.items() if old and any(old.get(key) != new.get(key) for key in keys)
    ]


def _parse(text: str | None) -> dict[str, Any]:
    """Return a stamped protocol, empty where there is none that can be read."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _protocol(result: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that decide a score, and others for its reader, without empty ones."""
    reference = document["reference"]
    interval = result["interval"]
    fields = {key: value for key, value in result.items() if key not in ("name", "title", "value", "better")}
    fields |= {key: document[key] for key in ("seeds", "truncation", "labels", "created")}
    fields |= {
        "reference_sha256": reference["sha256"],
        "reference_fingerprint": reference["image_set"].get("fingerprint"),
        "interval": interval and {key: interval[key] for key in ("low", "high", "level")},
        "details": {key: value for key, value in result["details"].items() if isinstance(value, int | float | str)},
    }
    return {key: value for key, value in fields.items() if value not in (None, {})}
