"""The metrics of the same features beside torch-fidelity's: a sub-benchmark of evaluation.py."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from benchmarks.evaluation_frechet import FEATURES, correlated
from benchmarks.rounds import in_turns, times_as_fast, told

IMAGES, CLASSES = 3000, 1008
METRICS = ("fid", "kid", "is", "prc")


def metrics(rounds: int, num_images: int = IMAGES) -> dict[str, Any]:
    """Seconds of FID, KID, IS, precision and recall with each one's defaults, from float32 features to the figure.

    The features are correlated noise of Inception's width, the logits noise; both tools get the same arrays.
    """
    import torch
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    from evaluation.metrics.frechet import FeatureStatistics, frechet_distance
    from evaluation.metrics.inception_score import inception_score
    from evaluation.metrics.kid import kid
    from evaluation.metrics.prdc import precision_recall_density_coverage

    fake, real = (np.abs(correlated(seed, num_images)).astype(np.float32) for seed in (1, 2))
    logits = np.random.default_rng(3).normal(0, 3, (num_images, CLASSES)).astype(np.float32)
    fake_tensor, real_tensor, logits_tensor = (torch.from_numpy(array) for array in (fake, real, logits))

    def fid() -> float:
        a, b = (FeatureStatistics.from_features(rows) for rows in (fake, real))
        return frechet_distance(a.mu, a.sigma, b.mu, b.sigma)

    def its_fid() -> float:
        both = [fid_features_to_statistics(rows) for rows in (fake_tensor, real_tensor)]
        return fid_statistics_to_metric(*both, verbose=False)[KEY_METRIC_FID]

    def its_prc() -> tuple[float, float]:
        found = prc_features_to_metric(fake_tensor, real_tensor, verbose=False)
        return found["precision"], found["recall"]

    def prc() -> tuple[float, float]:
        found = precision_recall_density_coverage(fake, real)
        return found["precision"], found["recall"]

    functions = {
        ("ours", "fid"): fid,
        ("torch_fidelity", "fid"): its_fid,
        ("ours", "kid"): lambda: kid(fake, real).mean,
        ("torch_fidelity", "kid"): lambda: kid_features_to_metric(fake_tensor, real_tensor, verbose=False)[
            KEY_METRIC_KID_MEAN
        ],
        ("ours", "is"): lambda: inception_score(logits).mean,
        ("torch_fidelity", "is"): lambda: isc_features_to_metric(logits_tensor)[KEY_METRIC_ISC_MEAN],
        ("ours", "prc"): prc,
        ("torch_fidelity", "prc"): its_prc,
    }
    keyed, values = in_turns({f"{who} {what}": one for (who, what), one in functions.items()}, rounds)
    seconds = {who: {what: keyed[f"{who} {what}"] for what in METRICS} for who in ("ours", "torch_fidelity")}
    for taken in seconds.values():
        taken["together"] = [sum(each) for each in zip(*(taken[what] for what in METRICS), strict=True)]
    found = {
        what: {
            "ours_s": round(statistics.median(seconds["ours"][what]), 3),
            "torch_fidelity_s": round(statistics.median(seconds["torch_fidelity"][what]), 3),
            "times_as_fast": {"torch_fidelity": times_as_fast(seconds["ours"][what], seconds["torch_fidelity"][what])},
        }
        for what in (*METRICS, "together")
    }
    for what in METRICS:
        pair = (np.atleast_1d(values[f"{who} {what}"]) for who in ("ours", "torch_fidelity"))
        found[what] |= {
            "values": {who: value.tolist() for who, value in zip(("ours", "torch_fidelity"), pair, strict=True)}
        }
    print(
        f"metrics of {num_images} images' features, times as fast as torch-fidelity: "
        + ", ".join(f"{what} {told(part['times_as_fast']['torch_fidelity'])}" for what, part in found.items()),
        flush=True,
    )
    return {"images": num_images, "features": FEATURES, "classes": CLASSES, **found}
