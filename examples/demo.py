"""Run all components on the embedded digits: train, export, serve, generate, interpolate, score.

Every step is a command that a user would type, printed before it runs. The results are in demo/.

    make demo
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import httpx

from artifacts.processes import interruptible
from artifacts.terminal import prepare_streams
from examples.serving import run, service

NUM_IMAGES = 1500  # as many as in the train split, whose score is shown next to it
NUM_CHECKED = 256


def fetch(url: str, body: dict[str, object], accept: str, path: Path) -> None:
    """POST a JSON body, keep the answer; shown as the curl command that does the same."""
    text = json.dumps(body)
    print(f"\n$ curl {url} -H 'Content-Type: application/json' -H 'Accept: {accept}' -d '{text}' -o {path}", flush=True)
    answer = httpx.post(url, json=body, headers={"Accept": accept}, timeout=60, trust_env=False)
    if answer.status_code != 200:
        sys.exit(f"the service answered {answer.status_code}: {answer.text[:500]}")
    path.write_bytes(answer.content)


def main() -> None:
    prepare_streams()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="folder of the results")
    parser.add_argument("--kimg", type=float, help="length of the training; default: the preset's")
    arguments = parser.parse_args()
    folder, kimg = arguments.folder, arguments.kimg
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--folder takes a writable folder, not {folder} ({error.strerror or error})")
    started = time.monotonic()

    length = ["--set", f"run.total_kimg={kimg}"] if kimg else []
    runs, models = folder / "runs", folder / "models"
    run("trainer", "train", "--preset", "digits-dcgan", *length, "--runs", runs, "--export", models)

    classifier = ("evaluation", "extractor", "classifier", "--images", "digits")
    extractor, checker = folder / "classifier.onnx", folder / "checker.onnx"
    report, shares = folder / "report", folder / "readable.json"
    with service(models, folder / "service.log") as url:
        seeds = {"seed": 0, "n": 64, "scale": 2}
        fetch(f"{url}/v1/generate", seeds, "image/png", folder / "grid.png")
        path = {"keyframes": [1, 2, 3, 4], "labels": [8], "steps": 15, "loop": True, "fps": 20, "scale": 6}
        fetch(f"{url}/v1/interpolate", path, "image/gif", folder / "morph.gif")

        run(*classifier, "--output", extractor)
        words = ("score", url, "--reference", "digits@test", "--extractor", extractor)
        run("evaluation", *words, "--metrics", "fid,precision,recall", "--num-images", NUM_IMAGES, "--output", report)
        run(*classifier, "--seed", "1", "--output", checker)
        words = ("classify", url, "--extractor", checker, "--num-images", NUM_CHECKED)
        run("evaluation", *words, "--sure", "0.9", "--output", shares)

    print(f"\nDone in {time.monotonic() - started:.0f} s. Look at")
    for what, where in {
        "the generator": models / "digits-dcgan.onnx",
        "its training": next(iter(sorted(runs.iterdir(), reverse=True))),
        "64 served images": folder / "grid.png",
        "a served interpolation": folder / "morph.gif",
        "the score": report / "report.html",
        "recognizable images": shares,
    }.items():
        print(f"  {what + ':':<24} {where}")
    print(f"To serve the generator: MODEL_DIR={shlex.quote(str(models))} make serve")


if __name__ == "__main__":
    try:
        with interruptible():
            main()
    except KeyboardInterrupt:
        sys.exit(130)
