"""Scores written into the generator file that they are of, where the service shows them. Its digest stays the same."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifacts.files import lock_handle
from artifacts.generator_file import is_unsealed
from artifacts.onnx_files import digest_of, metadata_of
from evaluation.atomic import written_whole
from evaluation.errors import EvaluationError
from evaluation.metrics.names import renamed
from evaluation.onnx_files import read_model
from evaluation.report.schema import without_surrogates

PREFIX, PROTOCOL = "evaluation.", ".protocol"
# What a score that replaces another of its name may not have in common with it.
_DECIDING = {
    "extractor": ("extractor_digest",),
    "reference": ("reference_fingerprint", "n_reference"),
    "resolution": ("resolution",),
    "truncation": ("truncation",),
    "labels": ("labels",),
}


def check_stampable(path: Path, digest: str | None) -> None:
    """Raise EvaluationError, before any work, for a file that is not the generator that is scored."""
    found = metadata_of(read_model(path, "generator file")).get("digest")
    if not digest or found != digest:
        raise EvaluationError(f"--stamp {path}: its digest is {str(found)[:12]}, the scored model's {str(digest)[:12]}")


def stamp(path: Path, document: dict[str, Any]) -> list[str]:
    """Write each score as `evaluation.<name>`, and what it was made of as `evaluation.<name>.protocol` (JSON).

    The file is replaced whole. A score of the same name is replaced with its protocol, others keep theirs. Names that
    earlier versions gave become the present ones first, because two figures could share one of those.

    Args:
        path: The generator file.
        document: The report.

    Returns:
        A warning for each replaced score that was made in another way, with its value and what differed.

    Raises:
        EvaluationError: If the file has another digest than the document.
    """
    check_stampable(path, document["digest"])
    with _alone(path):
        return _stamp(path, document)


def _stamp(path: Path, document: dict[str, Any]) -> list[str]:
    check_stampable(path, document["digest"])
    model = read_model(path, "generator file")
    kept = metadata_of(model)
    # One protocol for all scores, as files were stamped before: of the last one only, so of no use to the others.
    kept.pop("evaluation.protocol", None)
    kept = _with_present_names(kept)
    warnings = []
    for result in document["results"]:
        key, protocol = f"{PREFIX}{result['name']}", _protocol(result, document)
        if key in kept and (differing := _differing(_parsed(kept.get(f"{key}{PROTOCOL}")), protocol)):
            warnings.append(
                f"{path}: {result['name']} replaces the stamped {kept[key]}, which was made with another "
                f"{' and '.join(differing)}"
            )
        kept[key] = json.dumps(result["value"])
        kept[f"{key}{PROTOCOL}"] = without_surrogates(json.dumps(protocol, ensure_ascii=False), "\\\\")
    del model.metadata_props[:]
    for key, value in kept.items():
        model.metadata_props.add(key=key, value=value)
    if digest_of(model, is_unsealed) != document["digest"]:
        raise EvaluationError(f"{path}: stamping it would change its digest; it was left as it is")
    with written_whole(path) as handle:
        handle.write(model.SerializeToString())
    return warnings


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the file that is at `path` now, so that two jobs that end at once do not lose each other's scores."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # absent, or no lock to be had: reading it says why, or the rename is enough
            for _ in range(100):
                handle = held.enter_context(path.open("rb"))
                lock_handle(handle.fileno(), path)
                if os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                    break  # not replaced while this waited
        yield


def _with_present_names(metadata: dict[str, str]) -> dict[str, str]:
    """Return metadata whose stamped scores have the names of today; without a protocol a name stays as it is."""
    found: dict[str, str] = {}
    for key, value in metadata.items():
        name, ending = key.removeprefix(PREFIX), ""
        if name.endswith(PROTOCOL):
            name, ending = name.removesuffix(PROTOCOL), PROTOCOL
        protocol = _parsed(metadata.get(f"{PREFIX}{name}{PROTOCOL}"))
        metric, n, details = (protocol.get(field) for field in ("metric", "n", "details"))
        if key.startswith(PREFIX) and isinstance(metric, str) and isinstance(n, int):
            size = details.get("subset_size") if isinstance(details, dict) else None
            present = f"{PREFIX}{renamed(name, metric, n, size if isinstance(size, int) else None)}{ending}"
            # A score that has its present name already is the newer one.
            if present != key and present in metadata:
                continue
            key = present
        found[key] = value
    return found


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what decides a score and differs between two protocols."""
    known = {called: [key for key in keys if key in old or key in new] for called, keys in _DECIDING.items()}
    return [called for called, keys in known.items() if old and any(old.get(key) != new.get(key) for key in keys)]


def _parsed(text: str | None) -> dict[str, Any]:
    """Return a stamped protocol, empty where there is none that can be read."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


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
