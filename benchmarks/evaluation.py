"""The evaluation compared with its peers, pytorch-fid and torch-fidelity, on the same inputs and machine, in one run.

    python -m benchmarks.evaluation frechet inception metrics command score memory [--rounds 3] [--images 50000]

frechet    The distance of 2048 features, at full rank and with singular covariances (1,000 images, and 2,000, the
           slowest case). The right result then follows from the features themselves, and equal inputs should give 0.
inception  Features with the same seeded random weights, of 32 px images in memory: pytorch-fid's network against an
           extractor file with the `torch` resize, torch-fidelity's against one with `tf1`, the features' difference,
           and a plain float32 matrix product: what share of the machine's arithmetic each reaches bounds the ratio.
metrics    FID, KID, IS, precision and recall of the same 3,000 images' features, against torch-fidelity's.
command    The whole `evaluation score` against torch-fidelity's `fidelity`, on the same two folders of PNGs with the
           same random weights: five metrics, start-up included.
score      Scoring 10,000 images of a service with a classifier, against generating and extracting separately.
memory     A job's peak memory, with only the Fréchet distance and with every metric (--images of 64 px).

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

from benchmarks.harness import (
    ROOT,
    alternate,
    at_least_one,
    attempt,
    describe_machine,
    format_spread,
    load_average,
    make_parser,
    read,
    times_as_fast,
    write,
)

FEATURES = 2048
FRECHET_CASES = (("full_rank", 6000), ("singular", 1000), ("nearly_full_rank", 2000))
BATCH, SQUARE = 50, 4096
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
SIDE, CLASSES = 64, 10  # of `memory`
ALL_METRICS = "fid,kid,is,precision,recall,density,coverage,fid_infinity,per_class,memorization"
# The command's own peak: a child's ru_maxrss includes the size of its parent.
COMMAND = """
import sys
from evaluation.cli import app
app(sys.argv[1:], standalone_mode=False)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("peak:", int(status["VmHWM"].split()[0]) / 1024)
"""


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
    for case, n in FRECHET_CASES:
        rows = [correlated(seed, n) for seed in (1, 2)]
        inputs = [part for x in rows for part in (x.mean(0), np.cov(x.T))]
        seconds, values = alternate({name: partial(one, *inputs) for name, one in functions.items()}, rounds)
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
                f"{format_spread(part['times_as_fast'][name])} times as fast as {name.replace('_', '-')}"
                for name in peers
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


def inception(rounds: int) -> dict[str, Any]:
    """Images a second of each, how many times as fast ours is, and how far the features are apart.

    Each peer's own network as it calls it, on uint8 images in memory, against an extractor file with its resize.
    """
    import torch
    from pytorch_fid import inception as pytorch_fid
    from torch.utils.flop_counter import FlopCounterMode
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
    square = torch.rand(SQUARE, SQUARE, device=device)

    def of_pytorch_fid() -> np.ndarray:
        with torch.no_grad():
            return network(nchw.to(device).float() / 255)[0].squeeze(3).squeeze(2).cpu().numpy()

    def of_torch_fidelity() -> np.ndarray:
        with torch.no_grad():
            return fidelity(nchw.to(device))[0].cpu().numpy()

    with FlopCounterMode(display=False) as counter:
        of_pytorch_fid()
    gflop = counter.get_total_flops() / BATCH / 1e9  # an image
    functions = {
        "ours_torch": lambda: ours["pytorch_fid"](images).features,
        "pytorch_fid": of_pytorch_fid,
        "ours_tf1": lambda: ours["torch_fidelity"](images).features,
        "torch_fidelity": of_torch_fidelity,
        "matrix": lambda: (square @ square)[0, 0].item(),
    }
    alternate(functions, 1)
    seconds, values = alternate(functions, rounds)
    rates = {name: BATCH / statistics.median(seconds[name]) for name in functions if name != "matrix"}
    matrix = 2 * SQUARE**3 / statistics.median(seconds["matrix"]) / 1e9
    ratios = {peer: times_as_fast(seconds[f"ours_{resize}"], seconds[peer]) for peer, resize in INCEPTION_PEERS.items()}
    differences = {
        peer: centered_relative_error(values[f"ours_{resize}"], values[peer])
        for peer, resize in INCEPTION_PEERS.items()
    }
    shares = {name: round(rate * gflop / matrix, 2) for name, rate in rates.items()}
    for peer, resize in INCEPTION_PEERS.items():
        print(
            f"inception, {resize} resize: ours {rates[f'ours_{resize}']:.1f} img/s, {peer.replace('_', '-')} "
            f"{rates[peer]:.1f} img/s, {format_spread(ratios[peer])} times as fast; "
            f"features differ by {differences[peer]:.1e}; of {matrix:.0f} GFlop/s in a matrix product ours reaches "
            f"{shares[f'ours_{resize}']:.0%}, theirs {shares[peer]:.0%}",
            flush=True,
        )
    return {
        "device": device,
        "torch_threads": torch.get_num_threads(),
        "ours_images_per_s": round(rates["ours_torch"], 2),
        "ours_tf1_images_per_s": round(rates["ours_tf1"], 2),
        **{f"{peer}_images_per_s": round(rates[peer], 2) for peer in INCEPTION_PEERS},
        "times_as_fast": ratios,
        "features_differ": differences,
        "gflop_an_image": round(gflop, 2),
        "matrix_product_gflop_per_s": round(matrix, 1),
        "share_of_matrix_product": shares,
        "rounds": {name: [round(each, 3) for each in taken] for name, taken in seconds.items()},
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
    keyed, values = alternate({f"{who} {what}": one for (who, what), one in functions.items()}, rounds)
    seconds = {who: {what: keyed[f"{who} {what}"] for what in FEATURE_METRICS} for who in ("ours", "torch_fidelity")}
    for taken in seconds.values():
        taken["together"] = [sum(each) for each in zip(*(taken[what] for what in FEATURE_METRICS), strict=True)]
    found = {
        what: {
            "ours_s": round(statistics.median(seconds["ours"][what]), 3),
            "torch_fidelity_s": round(statistics.median(seconds["torch_fidelity"][what]), 3),
            "times_as_fast": {"torch_fidelity": times_as_fast(seconds["ours"][what], seconds["torch_fidelity"][what])},
        }
        for what in (*FEATURE_METRICS, "together")
    }
    for what in FEATURE_METRICS:
        pair = (np.atleast_1d(values[f"{who} {what}"]) for who in ("ours", "torch_fidelity"))
        found[what] |= {
            "values": {who: value.tolist() for who, value in zip(("ours", "torch_fidelity"), pair, strict=True)}
        }
    print(
        f"metrics of {num_images} images' features, times as fast as torch-fidelity: "
        + ", ".join(f"{what} {format_spread(part['times_as_fast']['torch_fidelity'])}" for what, part in found.items()),
        flush=True,
    )
    return {"images": num_images, "features": FEATURES, "classes": 1008, **found}


def command(rounds: int, num_images: int = 128) -> dict[str, Any]:
    """Seconds of `evaluation score` and of `fidelity`: start-up, files, Inception with the `tf1` resize, five metrics.

    Nothing is kept from one round to the next: features of the reference are computed again each time, by both.
    """
    subset = min(100, num_images)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        weights = random_weights(root / "random.pth")
        extractor = build(weights, "tf1")
        for seed, side in enumerate(("fake", "real")):
            write_folder(root / side, num_images, seed)
        fake, real = root / "fake", root / "real"
        starts = iter(range(10**6))
        answers: dict[str, dict[str, float]] = {}

        def ours() -> None:
            work = root / f"round-{next(starts)}"
            work.mkdir()
            words = ("score", fake, "--reference", f"folder:{real}", "--extractor", extractor, "--no-baseline")
            words = (
                *words,
                "--metrics",
                ",".join(COMMAND_METRICS),
                "--num-images",
                num_images,
                "--kid-subset-size",
                subset,
            )
            evaluation(work, *words, "--output", "score.json")
            results = json.loads((work / "score.json").read_text(encoding="utf-8"))["results"]
            answers["ours"] = {what: one["value"] for what, one in zip(COMMAND_METRICS, results, strict=True)}

        def torch_fidelity() -> None:
            words = ["--input1", str(fake), "--input2", str(real), "--isc", "--fid", "--kid", "--prc", "--json"]
            words += ["--feature-extractor", "inception-v3-compat", "--kid-subset-size", str(subset), "--silent"]
            words += ["--feature-extractor-weights-path", str(weights), "--no-cache"]
            import onnxruntime

            if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
                words += ["--gpu", "0"]
            found = json.loads(output_of([sys.executable, "-c", FIDELITY, *words]))
            answers["torch_fidelity"] = {what: found[key] for what, key in COMMAND_METRICS.items()}

        seconds, _ = alternate({"ours": ours, "torch_fidelity": torch_fidelity}, rounds)
    mine, its = (statistics.median(seconds[who]) for who in ("ours", "torch_fidelity"))
    ratio = times_as_fast(seconds["ours"], seconds["torch_fidelity"])
    print(
        f"command, {num_images} images against {num_images}: ours {mine:.1f} s, torch-fidelity {its:.1f} s: "
        f"{format_spread(ratio)} times as fast; ours {answers['ours']}, torch-fidelity {answers['torch_fidelity']}",
        flush=True,
    )
    return {
        "images_a_side": num_images,
        "metrics": list(COMMAND_METRICS),
        "kid_subset_size": subset,
        "ours_s": round(mine, 2),
        "torch_fidelity_s": round(its, 2),
        "times_as_fast": {"torch_fidelity": ratio},
        "values": answers,
        "rounds": {name: [round(each, 2) for each in taken] for name, taken in seconds.items()},
    }


def write_folder(folder: Path, n: int, seed: int) -> None:
    from PIL import Image

    folder.mkdir()
    for index, image in enumerate(small_images(n, seed)):
        Image.fromarray(image).save(folder / f"{index:05d}.png")


def output_of(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"torch-fidelity failed:\n{done.stderr}")
    return done.stdout


def evaluation(folder: Path, *words: Any) -> tuple[float, float]:
    """Run the command line in a separate process: seconds, and its peak of resident memory in MB (Linux)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATELIER_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", COMMAND, *map(str, words)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"evaluation {' '.join(command[3:])} failed: {done.stderr[-2000:]}")
    return seconds, float(done.stdout.rpartition("peak:")[2])


def score(rounds: int, num_images: int = 10_000) -> dict[str, Any]:
    """Measure scoring images of a service with a classifier, against fetching and extracting separately.

    The generator is an untrained `mnist-dcgan` and the classifier a barely trained one at its size: they are as fast
    as good ones. The job is the whole command with its start-up; its reference was made before.
    """
    from benchmarks.servers import atelier, make_generator
    from evaluation.extractors import load_extractor
    from evaluation.sources import SeedRange
    from evaluation.sources.service import ServiceSource

    times: dict[str, list[float]] = {"generating": [], "extracting": [], "scoring": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        make_generator("mnist-dcgan", folder / "models")
        small = ("--resolution", 28)
        evaluation(folder, "extractor", "classifier", "--images", "digits", *small, "--epochs", 1, "--output", "c.onnx")
        known = ("--extractor", "c.onnx")
        evaluation(folder, "reference", "digits@test", *known, *small, "--output", "r.npz")
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
                scored, _ = evaluation(folder, *job, "--output", f"report-{i}", "--no-baseline")
                times["generating"].append(generated - began)
                times["extracting"].append(extracted - generated)
                times["scoring"].append(scored)
    generating, extracting, scoring = (statistics.median(times[name]) for name in times)
    ratio = scoring / (generating + extracting)
    parts = [a + b for a, b in zip(times["generating"], times["extracting"], strict=True)]
    print(
        f"score: generating {generating:.1f} s, extracting {extracting:.1f} s, scoring {scoring:.1f} s: "
        f"{ratio:.2f} of the two",
        flush=True,
    )
    return {
        "images": num_images,
        "generating_s": round(generating, 2),
        "extracting_s": round(extracting, 3),
        "scoring_s": round(scoring, 2),
        "scoring_of_the_two": round(ratio, 3),
        "times_as_fast": {"the_two": times_as_fast(times["scoring"], parts)},
        "rounds": {name: [round(seconds, 3) for seconds in taken] for name, taken in times.items()},
    }


def memory(num_images: int) -> dict[str, Any]:
    """Measure peaks of resident memory: only the Fréchet distance at two N, and every metric at `num_images`.

    64 px in colour, 2048 features. The images and the features are cheap to make, the metrics are computed in full:
    `num_images` of a conditional generator against as many training images, and a fifth of it held out.
    """
    import onnx

    from tests.support.tiny_generator import tiny_generator

    found: dict[str, Any] = {"images": num_images, "features": FEATURES, "side": SIDE}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind = {"z_dim": 64, "size": SIDE, "channels": 3, "num_classes": CLASSES}
        onnx.save(tiny_generator(**kind), folder / "g.onnx")  # type: ignore[arg-type]
        write_extractor(folder / "e.onnx")
        write_pictures(folder / "pictures", {"train": num_images, "test": num_images // 5})
        words = ("score", "g.onnx", "--extractor", "e.onnx", "--reference", "folder:pictures@train", "--no-baseline")
        for n in (num_images // 5, num_images):
            seconds, peak = evaluation(folder, *words, "--num-images", n, "--output", f"fid-{n}")
            found[f"frechet_alone_{n}_mb"] = round(peak)
            print(f"memory: only Fréchet, {n} images: {peak:.0f} MB in {seconds:.0f} s", flush=True)
        words = (*words, "--metrics", ALL_METRICS)
        seconds, peak = evaluation(folder, *words, "--num-images", num_images, "--output", "all")
        print(f"memory: every metric, {num_images} images: {peak:.0f} MB in {seconds:.0f} s", flush=True)
    return found | {"all_metrics_mb": round(peak), "all_metrics_s": round(seconds)}


def write_pictures(root: Path, counts: dict[str, int]) -> None:
    """Folders of random PNGs by split and class."""
    from PIL import Image

    for seed, (split, n) in enumerate(counts.items()):
        random = np.random.default_rng(seed)
        mix = random.normal(0, 8, (64, SIDE * SIDE * 3)).astype(np.float32)
        for label in range(CLASSES):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            for first in range(label, n, 500 * CLASSES):
                numbers = range(first, min(first + 500 * CLASSES, n), CLASSES)
                pixels = random.normal(label / 4, 1, (len(numbers), 64)).astype(np.float32) @ mix + 128
                images = pixels.clip(0, 255).astype(np.uint8).reshape(-1, SIDE, SIDE, 3)
                for i, image in zip(numbers, images, strict=True):
                    Image.fromarray(image).save(folder / f"{i}.png", compress_level=0)


def write_extractor(path: Path) -> None:
    """2048 features that are cheap and vary in every direction: a random layer over pixels pooled to 16 x 16."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from evaluation.extractors.extractor_export import seal

    random, inside = np.random.default_rng(0), 16 * 16 * 3
    constants = {
        "scale": np.array(64, np.float32),
        "W": random.normal(0, inside**-0.5, (inside, FEATURES)).astype(np.float32),
        "b": random.normal(0, 1, FEATURES).astype(np.float32),
        "V": random.normal(0, FEATURES**-0.5, (FEATURES, CLASSES)).astype(np.float32),
    }
    pool = {"kernel_shape": [4, 4], "strides": [4, 4]}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["nchw"], ["pooled"], **pool),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "W", "b"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["features"]),
        helper.make_node("MatMul", ["features", "V"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", "C"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
            for name, width in (("features", FEATURES), ("logits", CLASSES))
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    metadata = {"name": "random", "network": "random", "metric": "fd_random", "weights_sha256": "0" * 64}
    seal(model, metadata | {"resize": "none", "class_names": [str(label) for label in range(CLASSES)]})
    onnx.save(model, path)


PARTS = {
    "frechet": frechet,
    "inception": inception,
    "metrics": metrics,
    "command": command,
    "score": score,
    "memory": memory,
}


def main() -> None:
    """Measure the requested parts."""
    parser = make_parser(__doc__, "evaluation")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument("--images", type=at_least_one, default=10_000, help="of `memory`")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    document = read(args.output)
    document["failed"] = failed = {}
    for name in args.parts or PARTS:
        with attempt(name, failed):
            machine = describe_machine()
            found = PARTS[name](args.images if name == "memory" else args.rounds)
            load = [machine["load_average_before"], load_average()]
            document[name] = {"machine": machine, **found, "load_average": load}
        write(args.output, document)
    print(f"→ {args.output}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
