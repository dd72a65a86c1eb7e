"""Import reference statistics of other tools as a reference file that names its origin."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.arrays import read_npy, read_npz
from artifacts.images.resolution import Resolution
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.json_files import now, versions
from evaluation.metrics.frechet import FeatureStatistics, invalid_statistics_reason
from evaluation.references.reference_file import Reference, load_reference, save_reference
from evaluation.references.stylegan_statistics import read_stylegan_statistics


def import_reference(
    path: Path, extractor: Extractor, output: Path, *, name: str, resolution: Resolution, num_images: int | None
) -> Reference:
    """Write the statistics in `path` as a reference file.

    Args:
        path: `.npz` with `mu` and `sigma` (pytorch-fid, clean-fid, torch-fidelity, EDM) or with `feats` or `features`
            float [n, d] (clean-fid's for KID), `.npy` of features, or StyleGAN's `.pkl`.
        extractor: The extractor that made them; no file records it, so the caller's word is taken.
        output: The reference file to write.
        name: Name of the images, such as cifar10@train.
        resolution: Resolution of the images in pixels.
        num_images: Number of images; None if the file records it.

    Raises:
        EvaluationError: If the file is of another format, or does not fit the extractor.
    """
    if path.suffix in (".pt", ".pth"):
        raise EvaluationError(
            f"{path} is a pickle, which runs code when it is read; where it was made, save its statistics with "
            "numpy.savez('reference.npz', mu=mu, sigma=sigma) and import that"
        )
    stored = read_stylegan_statistics(path) if path.suffix in (".pkl", ".pickle") else _read_arrays(path)
    features = next((stored[key] for key in ("features", "feats", "array") if key in stored), None)
    recorded_n = None if features is not None else stored.get("n")
    if recorded_n is not None and num_images not in (None, int(recorded_n)):
        raise EvaluationError(f"{path} is of {int(recorded_n)} images, not of --num-images {num_images}")
    source, _, split = name.partition("@")
    provenance: dict[str, Any] = {
        "extractor": extractor.provenance() | {"path": str(extractor.path)},
        "image_set": {
            "kind": "imported statistics",
            "name": name,
            "source": source,
            "split": split or None,
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
        temporary = output.with_name(f".{output.name}.features.npy")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        np.save(temporary, features.astype(np.float32), allow_pickle=False)
        save_reference(output, statistics, provenance | {"n": statistics.n}, rows={"features": temporary})
        return load_reference(output)
    if not {"mu", "sigma"} <= set(stored):
        raise EvaluationError(f"{path} holds {', '.join(sorted(stored)) or 'nothing'}, not mu and sigma, or features")
    mu, sigma = stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64)
    if mu.shape != (extractor.dim,) or sigma.shape != (extractor.dim, extractor.dim):
        raise EvaluationError(
            f"{path} has mu {list(mu.shape)}, sigma {list(sigma.shape)}; {extractor.name} has {extractor.dim} features"
        )
    n = num_images if recorded_n is None else int(recorded_n)
    if n is None:
        raise EvaluationError(f"{path} does not record its number of images; give --num-images")
    if n < 2:
        raise EvaluationError(f"{path} is of {n} images; statistics need 2 or more")
    if fault := invalid_statistics_reason(mu, sigma):
        raise EvaluationError(f"{path}: {fault}")
    save_reference(output, FeatureStatistics.from_state(n, mu, sigma * (n - 1)), provenance | {"n": n})
    return load_reference(output)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        return read_npz(path, ("mu", "sigma", "features", "feats")) if is_zip else {"array": read_npy(path)}
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} is not a file of statistics, or is truncated ({error})") from error
