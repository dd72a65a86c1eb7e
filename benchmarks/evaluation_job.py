"""The evaluation's whole job: how long beside its parts alone, and how much memory at its largest.

Two sub-benchmarks of benchmarks/evaluation.py, `score` and `memory`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rounds import times_as_fast

ROOT = Path(__file__).resolve().parent.parent
FEATURES, SIDE, CLASSES = 2048, 64, 10
ALL_METRICS = "fid,kid,is,precision,recall,density,coverage,fid_infinity,per_class,memorization"
# Its own peak, as it ends: what a parent is told of a child (ru_maxrss) has the parent's own size in it.
COMMAND = """
import sys
from evaluation.cli import app
app(sys.argv[1:], standalone_mode=False)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("peak:", int(status["VmHWM"].split()[0]) / 1024)
"""


def evaluation(folder: Path, *words: Any) -> tuple[float, float]:
    """Run the command line in a process of its own: seconds, and its peak of resident memory in MB (Linux)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATELIER_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", COMMAND, *map(str, words)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"evaluation {' '.join(command[3:])} failed: {done.stderr[-2000:]}")
    return seconds, float(done.stdout.rpartition("peak:")[2])


def score(rounds: int, num_images: int = 10_000) -> dict[str, Any]:
    """Scoring images of a service with a classifier, beside fetching them alone and extracting alone.

    The generator is an untrained `mnist-dcgan` and the classifier a barely trained one at its size: they are as fast
    as good ones. The job is the whole command with its start-up; its reference was made before.
    """
    from benchmarks.serving_tools import atelier, make_generator
    from evaluation.extractors import load_extractor
    from evaluation.sources import Draw
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
                return [got.images for got in source.batches(Draw(0, num_images), 0, num_images, 64)]

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
    """Peaks of resident memory: the Fréchet distance alone at two N, and every metric at `num_images`.

    64 px in colour, 2048 features. The images and the features are cheap to make, the metrics are computed in full:
    `num_images` of a conditional generator against as many training images, and a fifth of it held out.
    """
    import onnx

    from tests.tiny_generator import tiny_generator

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
            print(f"memory: Fréchet alone, {n} images: {peak:.0f} MB in {seconds:.0f} s", flush=True)
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

    from evaluation.extractors.builder import seal

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
    told = {"name": "random", "network": "random", "metric": "fd_random", "weights_sha256": "0" * 64, "resize": "none"}
    seal(model, told | {"class_names": [str(label) for label in range(CLASSES)]})
    onnx.save(model, path)
