"""The evaluation beside its peers, on the same inputs and machine, in one run.

    python benchmarks/evaluation.py frechet inception score memory [--rounds 3] [--images 50000]

`frechet`: the distance at 2048 features beside pytorch-fid's, at full rank and at singular covariances (1,000 images,
and 2,000, which is the slowest case). There the right answer comes from the features themselves, and identical inputs
should give 0.
`inception`: features with seeded random weights in both, 32 px images: pytorch-fid's network as its
`get_activations` calls it (batches of 50, images already decoded, which spares it the reading of files), beside an
extractor file with the `torch` resize; how far apart the features are; and, in the same turns, a plain float32 matrix
product: what share of the machine's arithmetic either reaches, which is what bounds the ratio.
`score`: scoring 10,000 images of a service with a classifier, beside generating and extracting each alone.
`memory`: the peak of a job's memory, with the Fréchet distance alone and with every metric (--images of 64 px).

The two take turns, so that a machine whose speed drifts changes both alike; the ratio is that of medians.
Each sub-benchmark replaces its own part of benchmarks/results/evaluation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

# A script's folder comes first among Python's paths, and there `evaluation` is this file.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

RESULTS = Path(__file__).with_name("results") / "evaluation.json"
FEATURES = 2048


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def machine() -> dict[str, Any]:
    packages = ("numpy", "scipy", "onnxruntime", "torch", "pytorch-fid")
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "load_average_before": round(os.getloadavg()[0], 1),
    }


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def frechet(rounds: int) -> dict[str, Any]:
    """Seconds of either distance, their ratio, and their errors where the covariance is singular."""
    from pytorch_fid.fid_score import calculate_frechet_distance

    from evaluation.metrics.frechet import frechet_distance

    warnings.simplefilter("ignore")  # pytorch-fid's of the singular matrix
    found: dict[str, Any] = {"features": FEATURES}
    for case, n in (("full_rank", 6000), ("singular", 1000), ("nearly_full_rank", 2000)):
        rows = [correlated(seed, n) for seed in (1, 2)]
        inputs = [part for x in rows for part in (x.mean(0), np.cov(x.T))]
        expected = from_features(*rows) if n < FEATURES else None
        times: dict[str, list[float]] = {"ours": [], "pytorch_fid": []}
        values: dict[str, float] = {}
        for _ in range(rounds):
            for name, function in (("ours", frechet_distance), ("pytorch_fid", calculate_frechet_distance)):
                seconds, value = timed(partial(function, *inputs))
                times[name].append(seconds)
                values[name] = float(value)
        ours, theirs = (statistics.median(times[name]) for name in times)
        part: dict[str, Any] = {
            "images": n,
            "ours_s": round(ours, 3),
            "pytorch_fid_s": round(theirs, 3),
            "ours_of_theirs": round(ours / theirs, 4),
            "rounds": {name: [round(seconds, 3) for seconds in taken] for name, taken in times.items()},
            "relative_difference": abs(values["ours"] / values["pytorch_fid"] - 1),
        }
        if expected is not None:
            part["relative_error"] = {name: abs(value / expected - 1) for name, value in values.items()}
            part["identical_inputs"] = frechet_distance(*inputs[:2], *inputs[:2])
        found[case] = part
        print(
            f"frechet, {case.replace('_', ' ')}: ours {ours:.2f} s, pytorch-fid {theirs:.2f} s: 1/{theirs / ours:.1f}"
            + (f"; errors {part['relative_error']}, identical {part['identical_inputs']}" if expected else ""),
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


def inception(rounds: int) -> dict[str, Any]:
    """Images a second of either, their ratio, and the features' difference."""
    import torch
    from pytorch_fid import inception as peer
    from torch.utils.flop_counter import FlopCounterMode

    from evaluation.extractors import load_extractor
    from evaluation.extractors.graph import centred_relative_error
    from evaluation.extractors.inception import build_inception
    from tests.evaluation.helpers import random_inception

    with tempfile.TemporaryDirectory() as folder:
        weights, path = Path(folder) / "random.pth", Path(folder) / "inception.onnx"
        state = random_inception()
        torch.save(state, weights)
        build_inception(weights, "torch", path, expected_sha256_prefix=None)
        extractor = load_extractor(path)
    peer.load_state_dict_from_url = lambda *_, **__: state
    network = peer.InceptionV3([3]).eval()
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)
    images = images.repeat(4, axis=1).repeat(4, axis=2)
    batch = torch.from_numpy(images[:50]).permute(0, 3, 1, 2).float() / 255

    def theirs() -> np.ndarray:
        with torch.no_grad():
            return network(batch)[0].squeeze(3).squeeze(2).numpy()

    def ours() -> np.ndarray:
        return extractor(images[:50]).features

    square = torch.rand(4096, 4096)
    with FlopCounterMode(display=False) as counter:
        theirs()
    gflop = counter.get_total_flops() / 50 / 1e9  # an image

    theirs(), ours(), square @ square
    rates: dict[str, list[float]] = {"ours": [], "pytorch_fid": [], "matrix_gflop": []}
    for _ in range(rounds):
        for name, function in (("ours", ours), ("pytorch_fid", theirs)):
            seconds, _ = timed(function)
            rates[name].append(50 / seconds)
        seconds, _ = timed(lambda: square @ square)
        rates["matrix_gflop"].append(2 * len(square) ** 3 / seconds / 1e9)
    mine, its, matrix = (statistics.median(rates[name]) for name in rates)
    difference = centred_relative_error(ours(), theirs())
    print(
        f"inception: ours {mine:.1f} img/s, pytorch-fid {its:.1f} img/s, ratio {mine / its:.2f}; "
        f"features differ by {difference:.1e}; of {matrix:.0f} GFlop/s in a matrix product ours reaches "
        f"{mine * gflop / matrix:.0%}, pytorch-fid {its * gflop / matrix:.0%}",
        flush=True,
    )
    return {
        "device": "cuda" if "CUDA" in extractor.session.get_providers()[0] else "cpu",
        "torch_threads": torch.get_num_threads(),
        "ours_images_per_s": round(mine, 2),
        "pytorch_fid_images_per_s": round(its, 2),
        "ratio": round(mine / its, 2),
        "features_differ": difference,
        "gflop_an_image": round(gflop, 2),
        "matrix_product_gflop_per_s": round(matrix, 1),
        "share_of_matrix_product": {
            "ours": round(mine * gflop / matrix, 2),
            "pytorch_fid": round(its * gflop / matrix, 2),
        },
        "rounds": {name: [round(rate, 2) for rate in taken] for name, taken in rates.items()},
    }


def score(rounds: int) -> dict[str, Any]:
    from benchmarks import evaluation_job

    return evaluation_job.score(rounds)


BENCHMARKS = {"frechet": frechet, "inception": inception, "score": score}
NAMES = [*BENCHMARKS, "memory"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000, help="of `memory`")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    chosen = arguments.benchmarks or NAMES
    if strange := set(chosen) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(strange))}; there are {', '.join(NAMES)}")
    document: dict[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    for name in chosen:
        about = machine()
        if name == "memory":
            from benchmarks.evaluation_job import memory

            found = memory(arguments.images)
        else:
            found = BENCHMARKS[name](arguments.rounds)
        document[name] = {"machine": about, **found}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    print(f"→ {arguments.output}")


if __name__ == "__main__":
    main()
