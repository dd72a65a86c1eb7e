"""The evaluation compared with its peers, pytorch-fid and torch-fidelity, on the same inputs and machine, in one run.

    python -m benchmarks.evaluation frechet inception efficientnet metrics command score [--rounds 3]

frechet    The distance of 2048 features, at full rank and with singular covariances (1,000 images, and 2,000, the
           slowest case).
inception  Features with the same seeded random weights, of 32 px images in memory: pytorch-fid's network against an
           extractor file with the `torch` resize, torch-fidelity's against one with `tf1`, and their difference.
efficientnet  Features of 32 px images in memory: EfficientNet-Lite0's package in torch against an extractor file.
metrics    FID, KID, IS, precision and recall of the same 3,000 images' features, against torch-fidelity's.
command    The whole `evaluation score` against torch-fidelity's `fidelity`, on the same two folders of PNGs with the
           same random weights: five metrics, start-up included.
score      Scoring 10,000 images of a service with a classifier, against generating and extracting separately.

What is compared alternates, so that a machine whose speed drifts changes all alike; ratios are taken per round. Each
part replaces its own entry of the result file. A part that cannot be run is reported in one line, and the others
continue. Exit 1: one could not be run.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, report

FEATURES = 2048
FRECHET_CASES = (("full_rank", 6000), ("singular", 1000), ("nearly_full_rank", 2000))
BATCH = 50
EFFICIENTNET_BATCH, EFFICIENTNET_SIDE = 16, 224
INCEPTION_PEERS = {"pytorch_fid": "torch", "torch_fidelity": "tf1"}  # and their resize
FEATURE_METRICS = ("fid", "kid", "is", "prc")
COMMAND_METRICS = {  # and torch-fidelity's name
    "fid": "frechet_inception_distance",
    "kid": "kernel_inception_distance_mean",
    "is": "inception_score_mean",
    "precision": "precision",
    "recall": "recall",
}
FIDELITY = "from torch_fidelity.fidelity import main; main()"
Seconds = dict[str, list[float]]  # of each contender, per round


def frechet(rounds: int) -> dict[str, Any]:
    """Seconds of each, how many times as fast ours is, and how far the values are apart."""
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    from evaluation.metrics.frechet import frechet_distance

    def torch_fidelity(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
        both = ({"mu": mu1, "sigma": sigma1}, {"mu": mu2, "sigma": sigma2})
        return fid_statistics_to_metric(*both, verbose=False)[KEY_METRIC_FID]

    functions = {"ours": frechet_distance, "pytorch_fid": calculate_frechet_distance, "torch_fidelity": torch_fidelity}
    peers = ("pytorch_fid", "torch_fidelity")
    warnings.simplefilter("ignore")  # pytorch-fid's of the singular matrix
    found: dict[str, Any] = {"features": FEATURES}
    for case, n in FRECHET_CASES:
        rows = [correlated(seed, n) for seed in (1, 2)]
        inputs = [part for x in rows for part in (x.mean(0), np.cov(x.T))]
        seconds, values = harness.alternate({name: partial(one, *inputs) for name, one in functions.items()}, rounds)
        differences = {name: abs(float(values["ours"]) / float(values[name]) - 1) for name in peers}
        found[case] = {"images": n, **compare(seconds, *peers), "relative_difference": differences}
    return found


def compare(seconds: Seconds, *peers: str) -> dict[str, Any]:
    """Return each one's median seconds, how many times as fast as each peer ours is, and all rounds."""
    return {
        **{f"{name}_s": statistics.median(taken) for name, taken in seconds.items()},
        "times_as_fast": {name: harness.times_as_fast(seconds["ours"], seconds[name]) for name in peers},
        "rounds": seconds,
    }


def correlated(seed: int, n: int) -> np.ndarray:
    """float64 [n, 2048] with variances over four orders of magnitude, as Inception's features have."""
    mix = np.linalg.qr(np.random.default_rng(99).normal(size=(FEATURES, FEATURES)))[0]
    return (np.random.default_rng(seed).normal(size=(n, FEATURES)) * np.exp(-np.linspace(0, 4.6, FEATURES))) @ mix


def inception(rounds: int) -> dict[str, Any]:
    """Images a second of each, how many times as fast ours is, and how far the features are apart.

    Each peer's own network as it calls it, on uint8 images in memory, against an extractor file with its resize.
    """
    import torch
    from pytorch_fid import inception as pytorch_fid
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    from evaluation.extractors import load_extractor
    from evaluation.extractors.extractor_export import centered_relative_error

    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(Path(folder) / "random.pth")
        ours = {name: load_extractor(build(weights, resize)) for name, resize in INCEPTION_PEERS.items()}
        fidelity = FeatureExtractorInceptionV3(
            "peer", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
        )
        state = torch.load(weights)
    pytorch_fid.load_state_dict_from_url = lambda *_, **__: state
    device = "cuda" if "CUDA" in ours["pytorch_fid"].session.get_providers()[0] else "cpu"
    network, fidelity = pytorch_fid.InceptionV3([3]).eval().to(device), fidelity.to(device)
    images = small_images(BATCH)
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def of_pytorch_fid() -> np.ndarray:
        with torch.no_grad():
            return network(nchw.to(device).float() / 255)[0].squeeze(3).squeeze(2).cpu().numpy()

    def of_torch_fidelity() -> np.ndarray:
        with torch.no_grad():
            return fidelity(nchw.to(device))[0].cpu().numpy()

    functions = {
        "ours_torch": lambda: ours["pytorch_fid"](images).features,
        "pytorch_fid": of_pytorch_fid,
        "ours_tf1": lambda: ours["torch_fidelity"](images).features,
        "torch_fidelity": of_torch_fidelity,
    }
    harness.alternate(functions, 1)
    seconds, values = harness.alternate(functions, rounds)
    rates = {name: BATCH / statistics.median(seconds[name]) for name in functions}
    pairs = {peer: (f"ours_{resize}", peer) for peer, resize in INCEPTION_PEERS.items()}
    return {
        "device": device,
        "torch_threads": torch.get_num_threads(),
        "ours_images_per_s": rates["ours_torch"],
        "ours_tf1_images_per_s": rates["ours_tf1"],
        **{f"{peer}_images_per_s": rates[peer] for peer in INCEPTION_PEERS},
        "times_as_fast": {peer: harness.times_as_fast(seconds[a], seconds[b]) for peer, (a, b) in pairs.items()},
        "features_differ": {peer: centered_relative_error(values[a], values[b]) for peer, (a, b) in pairs.items()},
        "rounds": seconds,
    }


def efficientnet(rounds: int) -> dict[str, Any]:
    """Images a second of EfficientNet-Lite0's extractor file and of its package's network, and how they differ."""
    import torch
    from torch.nn import functional

    from evaluation.extractors import load_extractor
    from evaluation.extractors.extractor_export import centered_relative_error
    from evaluation.extractors.from_torch import build_efficientnet_lite0
    from evaluation.networks.efficientnet_lite import EfficientNetLite0

    with tempfile.TemporaryDirectory() as folder:
        ours = load_extractor(build_efficientnet_lite0(Path(folder) / "e.onnx", EFFICIENTNET_SIDE).path)
    device = "cuda" if "CUDA" in ours.session.get_providers()[0] else "cpu"
    network = EfficientNetLite0(EFFICIENTNET_SIDE).eval().to(device)
    images = small_images(EFFICIENTNET_BATCH)

    def of_the_package() -> np.ndarray:
        with torch.no_grad():
            pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
            size = (EFFICIENTNET_SIDE, EFFICIENTNET_SIDE)
            resized = functional.interpolate(pixels, size, mode="bicubic", antialias=True).clip(0, 255)
            return network((resized - 127) / 128).cpu().numpy()

    functions = {"ours": lambda: ours(images).features, "efficientnet_lite_pytorch": of_the_package}
    harness.alternate(functions, 1)
    seconds, values = harness.alternate(functions, rounds)
    peer = "efficientnet_lite_pytorch"
    return {
        "device": device,
        "torch_threads": torch.get_num_threads(),
        "batch": EFFICIENTNET_BATCH,
        "side": EFFICIENTNET_SIDE,
        **{f"{name}_images_per_s": EFFICIENTNET_BATCH / statistics.median(seconds[name]) for name in functions},
        "times_as_fast": {peer: harness.times_as_fast(seconds["ours"], seconds[peer])},
        "features_differ": {peer: centered_relative_error(values["ours"], values[peer])},
        "rounds": seconds,
    }


def random_weights(path: Path) -> Path:
    """A file of seeded weights for every network of Inception's here; its features are near 0.7."""
    import torch

    from tests.support.evaluation.inception import random_inception

    torch.save(random_inception(), path)
    return path


def build(weights: Path, resize: str) -> Path:
    """Return the extractor file of these weights and this resize, next to them."""
    from evaluation.extractors.inception import build_inception

    path = weights.with_name(f"{resize}.onnx")
    build_inception(weights, resize, path, expected_sha256_prefix=None)
    return path


def small_images(n: int, seed: int = 0) -> np.ndarray:
    """uint8 [n, 32, 32, 3]: noise of 8 px, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def metrics(rounds: int, num_images: int = 3000) -> dict[str, Any]:
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
    logits = np.random.default_rng(3).normal(0, 3, (num_images, 1008)).astype(np.float32)
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

    ours = {"fid": fid, "kid": lambda: kid(fake, real).mean, "is": lambda: inception_score(logits).mean, "prc": prc}
    its = {
        "fid": its_fid,
        "kid": lambda: kid_features_to_metric(fake_tensor, real_tensor, verbose=False)[KEY_METRIC_KID_MEAN],
        "is": lambda: isc_features_to_metric(logits_tensor)[KEY_METRIC_ISC_MEAN],
        "prc": its_prc,
    }
    found: dict[str, Any] = {"images": num_images, "features": FEATURES, "classes": 1008}
    together: Seconds = {"ours": [0.0] * rounds, "torch_fidelity": [0.0] * rounds}
    for what in FEATURE_METRICS:
        seconds, values = harness.alternate({"ours": ours[what], "torch_fidelity": its[what]}, rounds)
        listed = {who: np.atleast_1d(value).tolist() for who, value in values.items()}
        found[what] = {**compare(seconds, "torch_fidelity"), "values": listed}
        together = {who: [a + b for a, b in zip(together[who], seconds[who], strict=True)] for who in together}
    return found | {"together": compare(together, "torch_fidelity")}


def command(rounds: int, num_images: int = 128) -> dict[str, Any]:
    """Seconds of `evaluation score` and of `fidelity`: start-up, files, Inception with the `tf1` resize, five metrics.

    Nothing is kept from one round to the next: features of the reference are computed again each time, by both.
    """
    import onnxruntime
    from PIL import Image

    subset = min(100, num_images)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        weights = random_weights(root / "random.pth")
        extractor = build(weights, "tf1")
        for seed, side in enumerate(("fake", "real")):
            (root / side).mkdir()
            for index, image in enumerate(small_images(num_images, seed)):
                Image.fromarray(image).save(root / side / f"{index:05d}.png")
        fake, real = root / "fake", root / "real"

        def ours() -> dict[str, float]:
            work = Path(tempfile.mkdtemp(dir=root))
            words = ("score", fake, "--reference", f"folder:{real}", "--extractor", extractor, "--no-baseline")
            words += ("--metrics", ",".join(COMMAND_METRICS), "--num-images", num_images, "--kid-subset-size", subset)
            run(work, "-m", "evaluation", *words, "--output", "score.json")
            results = json.loads((work / "score.json").read_text(encoding="utf-8"))["results"]
            return {what: one["value"] for what, one in zip(COMMAND_METRICS, results, strict=True)}

        def torch_fidelity() -> dict[str, float]:
            words = ["--input1", fake, "--input2", real, "--isc", "--fid", "--kid", "--prc", "--json", "--silent"]
            words += ["--feature-extractor", "inception-v3-compat", "--kid-subset-size", subset]
            words += ["--feature-extractor-weights-path", weights, "--no-cache"]
            if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
                words += ["--gpu", "0"]
            found = json.loads(run(root, "-c", FIDELITY, *words))
            return {what: found[key] for what, key in COMMAND_METRICS.items()}

        seconds, values = harness.alternate({"ours": ours, "torch_fidelity": torch_fidelity}, rounds)
    conditions = {"images_a_side": num_images, "metrics": list(COMMAND_METRICS), "kid_subset_size": subset}
    return {**conditions, **compare(seconds, "torch_fidelity"), "values": values}


def run(folder: Path, *words: Any) -> str:
    """Run Python with these words in a folder, in a separate process, and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(harness.ROOT), "ATELIER_CACHE": str(folder / "cache")}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])} failed: {done.stderr[-2000:]}")
    return done.stdout


def score(rounds: int, num_images: int = 10_000) -> dict[str, Any]:
    """Measure scoring images of a service with a classifier, against fetching and extracting separately.

    The generator is an untrained `mnist-dcgan` and the classifier a barely trained one at its size: they are as fast
    as good ones. The job is the whole command with its start-up; its reference was made before.
    """
    from benchmarks.servers import atelier, make_generator
    from evaluation.extractors import load_extractor
    from evaluation.sources import SeedRange
    from evaluation.sources.service import ServiceSource

    times: Seconds = {"generating": [], "extracting": [], "scoring": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        make_generator("mnist-dcgan", folder / "models")
        small = ("--resolution", 28)
        barely = ("--images", "digits", *small, "--epochs", 1)
        run(folder, "-m", "evaluation", "extractor", "classifier", *barely, "--output", "c.onnx")
        known = ("--extractor", "c.onnx")
        run(folder, "-m", "evaluation", "reference", "digits@test", *known, *small, "--output", "r.npz")
        extractor = load_extractor(folder / "c.onnx")
        with atelier(folder / "models") as (_, port, _):
            url = f"http://127.0.0.1:{port}"
            source = ServiceSource(url, None)
            job = ("score", url, *known, "--reference", "r.npz", "--num-images", num_images)

            def fetched() -> list[np.ndarray]:
                return [got.images for got in source.batches(SeedRange(0, num_images), 0, num_images, 64)]

            fetched()  # its batches are measured and its memory is grown
            for i in range(rounds):
                began = time.perf_counter()
                images = fetched()
                generated = time.perf_counter()
                for batch in images:
                    extractor(batch)
                extracted = time.perf_counter()
                run(folder, "-m", "evaluation", *job, "--output", f"report-{i}", "--no-baseline")
                times["generating"].append(generated - began)
                times["extracting"].append(extracted - generated)
                times["scoring"].append(time.perf_counter() - extracted)
    medians = {f"{name}_s": statistics.median(taken) for name, taken in times.items()}
    separately = [a + b for a, b in zip(times["generating"], times["extracting"], strict=True)]
    ratios = {"the_two": harness.times_as_fast(times["scoring"], separately)}
    return {"images": num_images, **medians, "times_as_fast": ratios, "rounds": times}


PARTS = {
    "frechet": frechet,
    "inception": inception,
    "efficientnet": efficientnet,
    "metrics": metrics,
    "command": command,
    "score": score,
}


def main() -> None:
    """Measure the requested parts."""
    parser = harness.make_parser(__doc__, "evaluation")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=harness.at_least_one, default=3)
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    document = harness.read(args.output)
    document["failed"] = failed = {}
    for name in args.parts or PARTS:
        with harness.attempt(name, failed):
            machine = harness.describe_machine()
            found = PARTS[name](args.rounds)
            load = [machine["load_average_before"], harness.load_average()]
            document[name] = {"machine": machine, **found, "load_average": load}
            report.print_rows({"evaluation": {name: document[name]}})
        harness.write(args.output, document)
    print(f"→ {args.output}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
