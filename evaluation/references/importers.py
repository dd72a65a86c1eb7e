"""Reference statistics that another tool made, as a reference file of ours that tells so."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.arrays import read_npy, read_npz
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.metrics.frechet import FeatureStatistics, invalid_statistics_reason
from evaluation.references.file import Reference, load_reference, save_reference
from evaluation.references.stylegan_statistics import read_stylegan_statistics
from evaluation.report.schema import now, versions


def import_reference(
    path: Path, extractor: Extractor, output: Path, *, called: str, resolution: int, num_images: int | None
) -> Reference:
    """Write the statistics in `path` as our reference file `output`.

    Known: `.npz` with mu and sigma (pytorch-fid, clean-fid, torch-fidelity's and EDM's), with `feats` or `features`
    float [N, d] (clean-fid's for KID), `.npy` of features, and StyleGAN's `.pkl`. Which extractor made them is the
    caller's word. Raises EvaluationError for what is not known or does not fit the extractor.
    """
    if path.suffix in (".pt", ".pth"):
        raise EvaluationError(
            f"{path} is a pickle, which runs code when it is read; where it was made, save its statistics with "
            "numpy.savez('reference.npz', mu=mu, sigma=sigma) and import that"
        )
    stored = read_stylegan_statistics(path) if path.suffix in (".pkl", ".pickle") else _arrays(path)
    features = next((stored[key] for key in ("features", "feats", "array") if key in stored), None)
    told = None if features is not None else stored.get("n")
    if told is not None and num_images not in (None, int(told)):
        raise EvaluationError(f"{path} is of {int(told)} images, not of --num-images {num_images}")
    provenance: dict[str, Any] = {
        "extractor": extractor.provenance() | {"path": str(extractor.path)},
        "image_set": {
            "kind": "imported statistics",
            "name": called,
            "source": called.partition("@")[0],
            "split": called.partition("@")[2] or None,
            "resolution": resolution,
            "channels": None,
        },
        "imported": {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        "warnings": [],
        "versions": versions(),
        "created": now(),
    }
    if features is not None:
        if features.ndim != 2 or features.shape[1] != extractor.dim:
            raise EvaluationError(
                f"{path} has features {list(features.shape)}; {extractor.name}'s are [N, {extractor.dim}]"
            )
        if num_images not in (None, len(features)):
            raise EvaluationError(
                f"{path} has the features of {len(features)} images, not of --num-images {num_images}"
            )
        if len(features) < 2 or not np.isfinite(features).all():
            raise EvaluationError(f"{path}: its {len(features)} features are too few, or not finite")
        statistics = FeatureStatistics.from_features(features)
        packed = output.with_name(f".{output.name}.features.npy")
        packed.parent.mkdir(parents=True, exist_ok=True)
        np.save(packed, features.astype(np.float32), allow_pickle=False)
        save_reference(output, statistics, provenance | {"n": statistics.n}, rows={"features": packed})
        return load_reference(output)
    if not {"mu", "sigma"} <= set(stored):
        raise EvaluationError(
            f"{path} holds {', '.join(sorted(stored)) or 'nothing'}; mu and sigma, or features, are known"
        )
    mu, sigma = stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64)
    if mu.shape != (extractor.dim,) or sigma.shape != (extractor.dim, extractor.dim):
        raise EvaluationError(
            f"{path} has mu {list(mu.shape)}, sigma {list(sigma.shape)}; {extractor.name} has {extractor.dim} features"
        )
    n = num_images if told is None else int(told)
    if n is None:
        raise EvaluationError(f"{path} does not tell how many images it is of; say so with --num-images")
    if n < 2:
        raise EvaluationError(f"{path} is of {n} images; statistics need 2 or more")
    if fault := invalid_statistics_reason(mu, sigma):
        raise EvaluationError(f"{path}: {fault}")
    save_reference(output, FeatureStatistics.from_state(n, mu, sigma * (n - 1)), provenance | {"n": n})
    return load_reference(output)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"PK"
        return read_npz(path, ("mu", "sigma", "features", "feats")) if packed else {"array": read_npy(path)}
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} is not a file of statistics, or is truncated ({error})") from error
