"""The whole command beside torch-fidelity's, on the same two folders of PNGs: a sub-benchmark of evaluation.py."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime as ort

from benchmarks.evaluation_inception import build, random_weights, small_images
from benchmarks.evaluation_job import evaluation
from benchmarks.rounds import in_turns, times_as_fast, told

IMAGES, SUBSET = 128, 100  # a side; of the kernel distance
METRICS = ("fid", "kid", "is", "precision", "recall")
ITS = {
    "fid": "frechet_inception_distance",
    "kid": "kernel_inception_distance_mean",
    "is": "inception_score_mean",
    "precision": "precision",
    "recall": "recall",
}
FIDELITY = "from torch_fidelity.fidelity import main; main()"


def command(rounds: int, num_images: int = IMAGES) -> dict[str, Any]:
    """Seconds of `evaluation score` and of `fidelity`: start-up, files, Inception with the `tf1` resize, five metrics.

    Nothing is kept from one round to the next: features of the reference are made anew each time, by both.
    """
    subset = min(SUBSET, num_images)
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
            words = (*words, "--metrics", ",".join(METRICS), "--num-images", num_images, "--kid-subset-size", subset)
            evaluation(work, *words, "--output", "score.json")
            results = json.loads((work / "score.json").read_text(encoding="utf-8"))["results"]
            answers["ours"] = {what: one["value"] for what, one in zip(METRICS, results, strict=True)}

        def torch_fidelity() -> None:
            words = ["--input1", str(fake), "--input2", str(real), "--isc", "--fid", "--kid", "--prc", "--json"]
            words += ["--feature-extractor", "inception-v3-compat", "--kid-subset-size", str(subset), "--silent"]
            words += ["--feature-extractor-weights-path", str(weights), "--no-cache"]
            if "CUDAExecutionProvider" in ort.get_available_providers():
                words += ["--gpu", "0"]
            found = json.loads(output_of([sys.executable, "-c", FIDELITY, *words]))
            answers["torch_fidelity"] = {what: found[key] for what, key in ITS.items()}

        seconds, _ = in_turns({"ours": ours, "torch_fidelity": torch_fidelity}, rounds)
    mine, its = (statistics.median(seconds[who]) for who in ("ours", "torch_fidelity"))
    ratio = times_as_fast(seconds["ours"], seconds["torch_fidelity"])
    print(
        f"command, {num_images} images against {num_images}: ours {mine:.1f} s, torch-fidelity {its:.1f} s: "
        f"{told(ratio)} times as fast; ours {answers['ours']}, torch-fidelity {answers['torch_fidelity']}",
        flush=True,
    )
    return {
        "images_a_side": num_images,
        "metrics": list(METRICS),
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
