"""The file that keeps the statistics of real images, and the features and logits beside it.

`NAME.npz` holds `mu` and `sigma`, as pytorch-fid and clean-fid read and write them, with `n`, `labels` where there are
any, and the provenance as JSON; `NAME.features.npy` and `NAME.logits.npy` are float32 [N, d], memory-mapped.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from artifacts.arrays import count_of, drop_page_cache, read_npy, read_npz
from evaluation.atomic import written_whole
from evaluation.errors import EvaluationError
from evaluation.metrics.frechet import FeatureStatistics, invalid_statistics_reason

FORMAT_VERSION = 1
ROWS = ("features", "logits")


class _Extractor(BaseModel):
    """What is read of a provenance's extractor; what else it tells is kept as it is."""

    model_config = ConfigDict(strict=True)

    digest: str | None = None
    name: str | None = None
    path: str | None = None


class _ImageSet(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str | None = None
    source: str | None = None
    split: str | None = None
    resolution: int = Field(ge=1, le=65536)
    channels: int | None = Field(default=None, ge=1, le=3)
    modes: dict[str, int] | None = None
    class_names: list[str] = Field(default_factory=list)


class _Provenance(BaseModel):
    """All that is read of one is of the type that its readers rely on."""

    model_config = ConfigDict(strict=True)

    extractor: _Extractor
    image_set: _ImageSet
    warnings: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Reference:
    """Statistics of a real image set: mu [d], sigma [d, d], n, and where they come from.

    features float32 [n, d] and logits float32 [n, classes] are memory-mapped, labels int64 [n]; None where not kept.
    """

    mu: np.ndarray
    sigma: np.ndarray
    n: int
    provenance: dict[str, Any]
    path: Path | None = None
    labels: np.ndarray | None = None
    features: np.ndarray | None = field(default=None, repr=False)
    logits: np.ndarray | None = field(default=None, repr=False)

    @property
    def image_set(self) -> dict[str, Any]:
        """Where the images are from: source, split, resolution, channels, resize, fingerprint."""
        return {"source": None, "split": None, "channels": None} | self.provenance["image_set"]

    @property
    def sha256(self) -> str | None:
        """Of the file, None when there is none."""
        return None if self.path is None else hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def statistics_sha256(self) -> str:
        """Return the sha256 over n, mean and covariance: equal for the same statistics in any file."""
        digest = hashlib.sha256(str(self.n).encode())
        for array in (self.mu, self.sigma):
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()


def beside(path: Path, what: str) -> Path:
    """Where a reference file's features or logits lie."""
    return path.with_name(f"{path.name.removesuffix('.npz')}.{what}.npy")


def save_reference(
    path: Path,
    statistics: FeatureStatistics,
    provenance: dict[str, Any],
    *,
    labels: np.ndarray | None = None,
    rows: dict[str, Path] | None = None,
) -> None:
    """Write `.npz` with `mu` and `sigma`, `n`, `labels` and `provenance`; `rows` are npy files moved beside it."""
    document = {"format_version": FORMAT_VERSION, **provenance}
    for what in ROWS:  # the old ones first: a file of other statistics beside would be worse than none
        beside(path, what).unlink(missing_ok=True)
    for what, file in (rows or {}).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, beside(path, what))
    more: Any = {} if labels is None else {"labels": labels.astype(np.int64)}
    with written_whole(path) as handle:
        np.savez(
            handle,
            mu=statistics.mu,
            sigma=statistics.sigma,
            n=np.int64(statistics.n),
            provenance=np.array(json.dumps(document, ensure_ascii=False)),
            **more,
        )


def load_reference(path: Path | str) -> Reference:
    """Read a reference file. Raises EvaluationError, in one line, if it is absent, damaged or foreign."""
    path = Path(path)
    if not path.is_file():
        raise EvaluationError(f"there are no reference statistics at {path}; `evaluation reference` makes them")
    try:
        stored = read_npz(path, ("mu", "sigma", "n", "provenance", "labels"), text=("provenance",))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} is not a reference file, or is truncated ({error})") from error
    if lacking := {"mu", "sigma", "n", "provenance"} - set(stored):
        raise EvaluationError(
            f"{path} lacks {', '.join(sorted(lacking))}: which extractor made it is not known, so nothing can "
            f"be compared with it; make it with `evaluation reference`, or say what it is with `evaluation "
            f"reference {shlex.quote(str(path))} --import-as NAME`"
        )
    mu, sigma, labels = stored["mu"], stored["sigma"], stored.get("labels")
    try:
        n = count_of(stored["n"])
        provenance = json.loads(str(stored["provenance"]))
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path} is not a reference file ({str(error)[:100]})") from error
    if not (mu.ndim == 1 and len(mu) and sigma.shape == (*mu.shape, *mu.shape) and n >= 2):
        raise EvaluationError(f"{path} is not a sound reference file: mu {mu.shape}, sigma {sigma.shape}, n {n}")
    if labels is not None and (labels.shape != (n,) or labels.dtype.kind not in "iu"):
        raise EvaluationError(f"{path}: its labels are {labels.dtype} {list(labels.shape)}, not those of {n} images")
    _check_provenance(path, provenance)
    mu, sigma = mu.astype(np.float64), sigma.astype(np.float64)
    if fault := invalid_statistics_reason(mu, sigma):
        raise EvaluationError(f"{path} is not a sound reference file: {fault}")
    features, logits = (_rows(path, what, n) for what in ROWS)
    if features is not None:
        _same_means(path, features, mu)
    return Reference(mu, sigma, n, provenance, path, labels, features, logits)


def _check_provenance(path: Path, provenance: Any) -> None:
    known = isinstance(provenance, dict) and provenance.get("format_version") == FORMAT_VERSION
    if not known or not {"extractor", "image_set"} <= set(provenance):
        raise EvaluationError(f"{path} has another format; make it again with `evaluation reference`")
    try:
        _Provenance.model_validate(provenance)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EvaluationError(
            f"{path} is damaged: {where}: {first['msg']}; make it again with `evaluation reference`"
        ) from error


def _rows(path: Path, what: str, n: int) -> np.ndarray | None:
    file = beside(path, what)
    if not file.is_file():
        return None
    try:
        rows = read_npy(file, "f")
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file} is damaged ({error}); make {path} again") from error
    if rows.ndim != 2 or len(rows) != n:
        raise EvaluationError(
            f"{file} is {list(rows.shape)}, not the {what} of the {n} images of {path}; make it again"
        )
    return rows


def _same_means(path: Path, features: np.ndarray, mu: np.ndarray) -> None:
    """Refuse features of other images or another extractor: their mean is another."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(features), 4096):
        total += features[start : start + 4096].sum(axis=0, dtype=np.float64)
        drop_page_cache(features)
    if features.shape[1] != len(mu) or not np.allclose(total / len(features), mu, rtol=1e-6, atol=1e-9):
        raise EvaluationError(f"{beside(path, 'features')} are not the features of {path}; make it again")
