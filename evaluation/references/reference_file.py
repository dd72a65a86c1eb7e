"""The reference file: statistics of real images, with features and logits next to them.

`NAME.npz` holds `mu` and `sigma`, as pytorch-fid and clean-fid read and write them, with `n`, `labels` if any,
and the provenance as JSON; `NAME.features.npy` and `NAME.logits.npy` are float32 [n, d], memory-mapped.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from artifacts.arrays import count_of, drop_page_cache, read_npy, read_npz
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.features.store import FeatureSet
from evaluation.json_files import first_error
from evaluation.metrics.frechet import FeatureStatistics, invalid_statistics_reason
from evaluation.output_files import atomic_output

FORMAT_VERSION = 1
ROWS = ("features", "logits")


# HEIGHTxWIDTH of a resolution; the side of squares is a number.
RECTANGLE = r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$"


class _Model(BaseModel):
    """A part of the provenance; keys that are not listed are kept as they are."""

    model_config = ConfigDict(strict=True)


class _Extractor(_Model):
    digest: str | None = None
    name: str | None = None
    path: str | None = None


class _ImageSet(_Model):
    name: str | None = None
    source: str | None = None
    split: str | None = None
    resolution: Annotated[int, Field(ge=1, le=65536)] | Annotated[str, Field(pattern=RECTANGLE)]
    channels: int | None = Field(default=None, ge=1, le=4)
    modes: dict[str, int] | None = None
    class_names: list[str] = Field(default_factory=list)


class _Provenance(_Model):
    extractor: _Extractor
    image_set: _ImageSet
    warnings: list[str] = Field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Reference(FeatureSet):
    """The features of real images, with provenance (extractor, image set, warnings) and the file.

    Its other attributes are a `FeatureSet`'s: `mu`, `sigma` and `n`, and `features`, `logits` and `labels` or None.
    """

    provenance: dict[str, Any]
    path: Path

    @property
    def image_set(self) -> dict[str, Any]:
        """The description of the images: source, split, resolution, channels, resize, fingerprint."""
        return {"source": None, "split": None, "channels": None, **self.provenance["image_set"]}

    @property
    def sha256(self) -> str:
        """The sha256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def statistics_sha256(self) -> str:
        """The sha256 over n, mean and covariance: equal for the same statistics in any file."""
        digest = hashlib.sha256(str(self.n).encode())
        for array in (self.mu, self.sigma):
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()


def sidecar_path(path: Path, name: str) -> Path:
    """Return the path of a reference file's `features` or `logits`."""
    return path.with_name(f"{path.name.removesuffix('.npz')}.{name}.npy")


def save_reference(
    path: Path,
    statistics: FeatureStatistics,
    provenance: dict[str, Any],
    *,
    labels: np.ndarray | None = None,
    rows: dict[str, Path] | None = None,
) -> None:
    """Write a reference file.

    Args:
        path: The `.npz` to write.
        statistics: Mean, covariance and n.
        provenance: Extractor, image set, warnings and versions.
        labels: Labels int64 [n].
        rows: npy files of those of `ROWS` that were kept, which are moved next to `path`.
    """
    document = {"format_version": FORMAT_VERSION, **provenance}
    for name in ROWS:  # the old ones first: rows of other statistics next to the file would be worse than none
        sidecar_path(path, name).unlink(missing_ok=True)
    for name, file in (rows or {}).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, sidecar_path(path, name))
    optional: Any = {} if labels is None else {"labels": labels.astype(np.int64)}
    with atomic_output(path) as handle:
        np.savez(
            handle,
            mu=statistics.mu,
            sigma=statistics.sigma,
            n=np.int64(statistics.n),
            provenance=np.array(json.dumps(document, ensure_ascii=False)),
            **optional,
        )


def load_reference(path: Path | str) -> Reference:
    """Read a reference file; raise EvaluationError if it is absent, damaged or of another format."""
    path = Path(path)
    if not path.is_file():
        raise EvaluationError(f"there are no reference statistics at {path}; `evaluation reference` makes them")
    try:
        stored = read_npz(path, ("mu", "sigma", "n", "provenance", "labels"), text=("provenance",))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} is not a reference file, or is truncated ({error})") from error
    if missing := {"mu", "sigma", "n", "provenance"} - set(stored):
        raise EvaluationError(
            f"{path} lacks {', '.join(sorted(missing))}: which extractor made it is not known, so nothing can "
            f"be compared with it; make it with `evaluation reference`, or import it with `evaluation "
            f"reference {shlex.quote(str(path))} --import-as NAME`"
        )
    mu, sigma, labels = stored["mu"], stored["sigma"], stored.get("labels")
    try:
        n = count_of(stored["n"])
        provenance = json.loads(str(stored["provenance"]))
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path} is not a reference file ({str(error)[:100]})") from error
    if not (mu.ndim == 1 and len(mu) and sigma.shape == (*mu.shape, *mu.shape) and n >= 2):
        raise EvaluationError(f"{path} is not a valid reference file: mu {mu.shape}, sigma {sigma.shape}, n {n}")
    if labels is not None and (labels.shape != (n,) or labels.dtype.kind not in "iu"):
        raise EvaluationError(f"{path}: its labels are {labels.dtype} {list(labels.shape)}, not those of {n} images")
    _check_provenance(path, provenance)
    mu, sigma = mu.astype(np.float64), sigma.astype(np.float64)
    if fault := invalid_statistics_reason(mu, sigma):
        raise EvaluationError(f"{path} is not a valid reference file: {fault}")
    features, logits = (_read_sidecar(path, name, n) for name in ROWS)
    if features is not None:
        _check_mean(path, features, mu)
    return Reference(mu, sigma, n, features, logits, labels, provenance=provenance, path=path)


def load_statistics(path: str, extractor: Extractor) -> Reference:
    """Read a reference file; raise EvaluationError if another extractor made it: other weights, or another resize."""
    reference = load_reference(path)
    made_by = reference.provenance["extractor"]
    if made_by.get("digest") != extractor.digest:
        raise EvaluationError(
            f"the reference was made with extractor {made_by.get('name')} ({str(made_by.get('digest'))[:12]}), "
            f"not with {extractor.name} ({extractor.digest[:12]}); their features cannot be compared"
        )
    if len(reference.mu) != extractor.dim:
        raise EvaluationError(f"the reference has {len(reference.mu)} features, the extractor {extractor.dim}")
    return reference


def _check_provenance(path: Path, provenance: Any) -> None:
    known = isinstance(provenance, dict) and provenance.get("format_version") == FORMAT_VERSION
    if not known or not {"extractor", "image_set"} <= set(provenance):
        raise EvaluationError(f"{path} has another format; make it again with `evaluation reference`")
    try:
        _Provenance.model_validate(provenance)
    except ValidationError as error:
        raise EvaluationError(
            f"{path} is damaged: {first_error(error)}; make it again with `evaluation reference`"
        ) from error


def _read_sidecar(path: Path, name: str, n: int) -> np.ndarray | None:
    file = sidecar_path(path, name)
    if not file.is_file():
        return None
    try:
        rows = read_npy(file, "f")
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file} is damaged ({error}); make {path} again") from error
    if rows.ndim != 2 or len(rows) != n:
        raise EvaluationError(
            f"{file} is {list(rows.shape)}, not the {name} of the {n} images of {path}; make it again"
        )
    return rows


def _check_mean(path: Path, features: np.ndarray, mu: np.ndarray) -> None:
    """Reject features of other images or another extractor, whose mean differs."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(features), 4096):
        total += features[start : start + 4096].sum(axis=0, dtype=np.float64)
        drop_page_cache(features)
    if features.shape[1] != len(mu) or not np.allclose(total / len(features), mu, rtol=1e-6, atol=1e-9):
        raise EvaluationError(f"{sidecar_path(path, 'features')} are not the features of {path}; make it again")
