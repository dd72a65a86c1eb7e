"""The Fréchet distance of 2048 features beside pytorch-fid's and torch-fidelity's: a sub-benchmark of evaluation.py."""

from __future__ import annotations

import statistics
import warnings
from functools import partial
from typing import Any

import numpy as np

from benchmarks.rounds import in_turns, times_as_fast, told

FEATURES = 2048
CASES = (("full_rank", 6000), ("singular", 1000), ("nearly_full_rank", 2000))


def frechet(rounds: int) -> dict[str, Any]:
    """Seconds of each, how many times as fast ours is, and all errors where the covariance is singular."""
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    from evaluation.metrics.frechet import frechet_distance

    def torch_fidelity(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
        both = ({"mu": mu1, "sigma": sigma1}, {"mu": mu2, "sigma": sigma2})
        return fid_statistics_to_metric(*both, verbose=False)[KEY_METRIC_FID]

    functions = {"ours": frechet_distance, "pytorch_fid": calculate_frechet_distance, "torch_fidelity": torch_fidelity}
    warnings.simplefilter("ignore")  # pytorch-fid's of the singular matrix
    found: dict[str, Any] = {"features": FEATURES}
    for case, n in CASES:
        rows = [correlated(seed, n) for seed in (1, 2)]
        inputs = [part for x in rows for part in (x.mean(0), np.cov(x.T))]
        seconds, values = in_turns({name: partial(one, *inputs) for name, one in functions.items()}, rounds)
        ours, peers = float(values["ours"]), [name for name in functions if name != "ours"]
        part: dict[str, Any] = {
            "images": n,
            **{f"{name}_s": round(statistics.median(taken), 3) for name, taken in seconds.items()},
            "times_as_fast": {name: times_as_fast(seconds["ours"], seconds[name]) for name in peers},
            "rounds": {name: [round(each, 3) for each in taken] for name, taken in seconds.items()},
            "relative_difference": {name: abs(ours / float(values[name]) - 1) for name in peers},
        }
        if n < FEATURES:
            expected = from_features(*rows)
            part["relative_error"] = {name: abs(float(value) / expected - 1) for name, value in values.items()}
            part["identical_inputs"] = {name: float(one(*inputs[:2], *inputs[:2])) for name, one in functions.items()}
        found[case] = part
        print(
            f"frechet, {case.replace('_', ' ')}: {part['ours_s']:.2f} s; "
            + ", ".join(
                f"{told(part['times_as_fast'][name])} times as fast as {name.replace('_', '-')}" for name in peers
            )
            + (f"; errors {part['relative_error']}, identical {part['identical_inputs']}" if n < FEATURES else ""),
            flush=True,
        )
    return found


def correlated(seed: int, n: int) -> np.ndarray:
    """float64 [n, 2048] with variances over four orders of magnitude, as Inception's features have."""
    mix = np.linalg.qr(np.random.default_rng(99).normal(size=(FEATURES, FEATURES)))[0]
    return (np.random.default_rng(seed).normal(size=(n, FEATURES)) * np.exp(-np.linspace(0, 4.6, FEATURES))) @ mix


def from_features(x: np.ndarray, y: np.ndarray) -> float:
    """The distance without a covariance's root: tr (Σ₁Σ₂)^½ is the nuclear norm of X₁X₂ᵀ / √((n₁ - 1)(n₂ - 1))."""
    x_centred, y_centred = x - x.mean(0), y - y.mean(0)
    root = np.linalg.svd(x_centred @ y_centred.T, compute_uv=False).sum() / np.sqrt((len(x) - 1) * (len(y) - 1))
    traces = (x_centred**2).sum() / (len(x) - 1) + (y_centred**2).sum() / (len(y) - 1)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + traces - 2 * root)
