"""Whether the fast path costs quality: one preset, trained fast and plainly at each of three seeds, and scored.

    python -m benchmarks.train_quality

The plain path is float32 throughout, with memory laid out as it comes, Adam parameter by parameter, and a forward of
its own for reals and for fakes. The fast path is what `trainer train` does here: bfloat16, channels-last, fused Adam,
one forward where there can be one. `evaluation score` judges both on the same seeds, in the features of a classifier
that `evaluation extractor classifier` trains on the same image set.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.arguments import at_least_one, file_to_write, mistakes
from benchmarks.machine import describe
from imagesets import load_image_set
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.training import checkpoint, devices
from trainer.training import loop as trainers
from trainer.training.state import TrainState

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "train_quality.json"
METRICS = ("fid", "precision", "recall", "density", "coverage")


def fast_state(config: Config) -> TrainState:
    return TrainState.create(config)


def plain_state(config: Config) -> TrainState:
    """The same weights and the same algorithm, without anything that is there for speed."""
    config = loading.override(config, ["run.precision=fp32"])
    state = TrainState.create(config)
    for network in (state.G, state.D, state.G_ema):
        network.to(memory_format=torch.contiguous_format)
    state.D.mixes_images = True  # a forward for reals, a forward for fakes
    state.g_optimizer = plain_adam(state.G, config.optim.g_lr, config)
    state.d_optimizer = plain_adam(state.D, config.optim.d_lr, config)
    return state


def plain_adam(network: nn.Module, lr: float, config: Config) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=lr, betas=config.optim.betas, foreach=False, fused=False)


PATHS = {"fast": fast_state, "plain": plain_state}


def train(config: Config, path: str, data_root: Path, folder: Path) -> tuple[Path, float]:
    """A checkpoint of the config trained to its end, and the seconds that took."""
    data = config.data
    images = load_image_set(data.source, resolution=data.resolution, channels=data.channels, data_root=data_root)
    labels = images.labels if config.model.conditional else None
    state = PATHS[path](config)
    batches = Batches(
        images.images,
        config.optim.batch_size,
        seed=config.run.seed,
        device=state.device,
        labels=labels,
        flip=data.flip,
    )
    started = time.perf_counter()
    while not state.finished:
        trainers.train_iteration(state, batches)
    trainers.check_finite(state)
    seconds = time.perf_counter() - started
    return checkpoint.save(state, folder, keep=1), seconds


def evaluation(*arguments: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "evaluation", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise SystemExit(f"evaluation {' '.join(arguments)}:\n{finished.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="digits-dcgan")
    parser.add_argument("--set", action="append", default=[], help="section.field=value, for both paths")
    parser.add_argument("--seeds", type=at_least_one, default=3)
    parser.add_argument("--num-images", type=int, default=5000, help="of each generator, to score it by")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--output", type=file_to_write, default=RESULTS)
    arguments = parser.parse_args()
    with mistakes(parser):
        config = devices.resolve_auto(loading.resolve(arguments.preset, arguments.set))
    devices.configure_process(config)
    source, root = config.data.source, ("--data-root", str(arguments.data_root))
    runs: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        extractor = Path(temporary) / "classifier.onnx"
        evaluation("extractor", "classifier", "--images", source, "--output", str(extractor), *root)
        for seed in range(arguments.seeds):
            for path in PATHS:
                folder = Path(temporary) / f"{path}-{seed}"
                folder.mkdir()
                seeded = loading.override(config, [f"run.seed={seed}"])
                trained, seconds = train(seeded, path, arguments.data_root, folder)
                scored = folder / "score.json"
                evaluation(
                    *("score", str(trained), "--reference", source, "--extractor", str(extractor)),
                    *("--metrics", ",".join(METRICS), "--num-images", str(arguments.num_images), "--no-baseline"),
                    *("--output", str(scored), *root),
                )
                results = json.loads(scored.read_text(encoding="utf-8"))["results"]
                scores = {result["name"]: result["value"] for result in results}
                runs.append({"path": path, "seed": seed, "seconds": round(seconds, 1), **scores})
                print(json.dumps(runs[-1]), flush=True)

    names = [name for name in runs[0] if name not in ("path", "seed")]
    summary = {}
    for name in names:
        values = {path: [float(str(run[name])) for run in runs if run["path"] == path] for path in PATHS}
        summary[name] = {
            path: {"mean": round(statistics.mean(found), 4), "min": min(found), "max": max(found)}
            for path, found in values.items()
        }
        fast, plain = summary[name]["fast"], summary[name]["plain"]
        print(
            f"{name}: fast {fast['mean']:.4g} ({fast['min']:.4g} to {fast['max']:.4g}), "
            f"plain {plain['mean']:.4g} ({plain['min']:.4g} to {plain['max']:.4g})"
        )
    document = {
        "machine": describe(),
        "preset": arguments.preset,
        "set": arguments.set,
        "kimg": config.run.total_kimg,
        "fast_precision": config.run.precision,
        "threads": config.run.threads,
        "num_images": arguments.num_images,
        "runs": runs,
        "summary": summary,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"→ {arguments.output}")


if __name__ == "__main__":
    main()
