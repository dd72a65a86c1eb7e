"""Longer measurements of training: quality of the fast path, memory over 10,000 steps, and a GPU.

    python -m benchmarks.training_runs quality [--set run.total_kimg=40]
    python -m benchmarks.training_runs memory
    python -m benchmarks.training_runs gpu --peer pytorch-examples/dcgan/main.py
    python -m benchmarks.training_runs gpu --part whole --run-dir runs/cifar10-best

quality  Whether the fast path costs quality: one preset, trained fast and plainly with each of three seeds, and scored.
         The plain path is float32, default memory format, Adam parameter by parameter, and separate forwards for reals
         and fakes. The fast path is `trainer train`: bfloat16, channels-last, fused Adam, one forward where possible.
memory   Whether a long run grows: a process's memory from step 500 to step 10,000, with what it must hold (images,
         networks, averages, optimizer state).
gpu      `compare`: 64 px, batch 128: the peer, our plain loop in its manner, and the trainer, alternating.
         `rates`: `cifar10-best` in images/s, plainly and as `trainer train` does it, without what happens per tick.
         `whole`: all of `trainer train --preset cifar10-best`, in minutes. `lengths`: what finished runs (--runs) took,
         and their final quality. The first two run by default; noise replaces images that are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import training
from benchmarks.harness import (
    RESULTS,
    ROOT,
    at_least_one,
    describe_machine,
    existing_file,
    file_to_write,
    read,
    user_errors,
    write,
)
from imagesets import ImageSetError, load_image_set
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.training import checkpoint, devices
from trainer.training import loop as trainers
from trainer.training.state import TrainState

METRICS = ("fid", "precision", "recall", "density", "coverage")
MEMORY_CASES = {
    "mnist-gan": ("mnist-gan", ()),
    # conditional, with R1 (a gradient of a gradient), a convolution wherever the preset has one
    "digits-dcgan, narrow": ("digits-dcgan", ("model.g_widths=[16,8,8]", "model.d_widths=[8,8,16]")),
}
MIB = 2**20
GPU_PRESET = "cifar10-best"


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


def quality(args: argparse.Namespace) -> None:
    """Train fast and plainly with several seeds, and score both."""
    config = devices.resolve_auto(loading.resolve(args.preset, args.set))
    devices.configure_process(config)
    source, root = config.data.source, ("--data-root", str(args.data_root))
    runs: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        extractor = Path(temporary) / "classifier.onnx"
        evaluation("extractor", "classifier", "--images", source, "--output", str(extractor), *root)
        for seed in range(args.seeds):
            for path in PATHS:
                folder = Path(temporary) / f"{path}-{seed}"
                folder.mkdir()
                seeded = loading.override(config, [f"run.seed={seed}"])
                trained, seconds = train(seeded, path, args.data_root, folder)
                scored = folder / "score.json"
                evaluation(
                    *("score", str(trained), "--reference", source, "--extractor", str(extractor)),
                    *("--metrics", ",".join(METRICS), "--num-images", str(args.num_images), "--no-baseline"),
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
        "machine": describe_machine(),
        "preset": args.preset,
        "set": args.set,
        "kimg": config.run.total_kimg,
        "fast_precision": config.run.precision,
        "threads": config.run.threads,
        "num_images": args.num_images,
        "runs": runs,
        "summary": summary,
    }
    write(args.output, document)


def resident() -> float:
    """MiB of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def train_and_measure(case: str, steps: int, data_root: Path) -> dict[str, object]:
    """Trains in this process."""
    preset, sets = MEMORY_CASES[case]
    config = devices.resolve_auto(loading.resolve(preset, sets))
    devices.configure_process(config)
    images, source = training.load_images(config, data_root)
    before = resident()
    labels = None
    if config.model.conditional:
        labels = torch.arange(len(images)).remainder(len(config.data.class_names)).numpy()
    state = TrainState.create(config)
    batches = Batches(images, config.optim.batch_size, seed=0, device=state.device, labels=labels)
    marks = sorted({500, 1000, 2000, 5000, steps} & set(range(steps + 1)))
    found, allocated = {}, {}
    while state.steps < steps:
        trainers.train_iteration(state, batches)
        if state.steps % 500 == 0:
            trainers.check_finite(state)
            trainers.pop_means(state)
        if state.steps in marks:
            found[state.steps] = round(resident(), 2)
            if state.device.type == "cuda":
                allocated[state.steps] = round(torch.cuda.memory_allocated() / MIB, 2)
    tensors = [*state.G.state_dict().values(), *state.D.state_dict().values(), *state.G_ema.state_dict().values()]
    for optimizer in (state.g_optimizer, state.d_optimizer):
        tensors += [slot for slots in optimizer.state.values() for slot in slots.values() if torch.is_tensor(slot)]
    first, last = found[marks[0]], found[marks[-1]]
    return {
        "case": case,
        "set": list(sets),
        "images": source,
        "batch_size": config.optim.batch_size,
        "precision": config.run.precision,
        "threads": config.run.threads,
        "before_training_mib": round(before, 1),
        "image_set_mib": round(images.nbytes / MIB, 1),
        "networks_and_optimizers_mib": round(sum(tensor.nbytes for tensor in tensors) / MIB, 1),
        "resident_mib_at_step": found,
        **({"allocated_on_gpu_mib_at_step": allocated} if allocated else {}),
        "growth_mib": round(last - first, 2),
        "growth_percent": round(100 * (last / first - 1), 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def memory(args: argparse.Namespace) -> None:
    """Train each case in a process, and compare its memory early and late."""
    if args.steps < 500:
        raise SystemExit("--steps: at least 500, the first reading")
    if args.only:
        print(json.dumps(train_and_measure(args.only, args.steps, args.data_root)))
        return
    results = []
    for case in MEMORY_CASES:
        command = [sys.executable, "-m", "benchmarks.training_runs", "memory", "--only", case]
        command += ["--steps", str(args.steps), "--data-root", str(args.data_root.resolve())]
        answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        result = json.loads(answer.splitlines()[-1])
        results.append(result)
        at = ", ".join(f"{step}: {mib}" for step, mib in result["resident_mib_at_step"].items())
        print(f"{case}: MiB at step {at}; growth {result['growth_mib']} MiB ({result['growth_percent']}%)", flush=True)
    write(args.output, {"machine": describe_machine(), "results": results})


def stepper(config: Config, path: str, data_root: Path) -> tuple[TrainState, Callable[[], None]]:
    """A state to train along `path` (train_quality.py), and what does a step of it."""
    data = config.data
    try:
        found = load_image_set(data.source, resolution=data.resolution, channels=data.channels, data_root=data_root)
        images, names = np.asarray(found.images), found.class_names
    except ImageSetError:
        shape = (50_000, data.resolution, data.resolution, data.channels)
        images, names = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), tuple("0123456789")
    labels = None
    if config.model.conditional:
        config = config.model_copy(update={"data": data.model_copy(update={"class_names": names})})
        labels = np.arange(len(images)) % len(names)
    if path == "plain":
        config = loading.override(config, ["run.cuda_graphs=off"])
    devices.configure_process(config)
    state = PATHS[path](config)
    batches = Batches(images, config.optim.batch_size, seed=0, device=state.device, labels=labels, flip=data.flip)
    return state, lambda: trainers.train_iteration(state, batches)


def images_per_second(config: Config, path: str, data_root: Path, seconds: float) -> float:
    state, step = stepper(config, path, data_root)
    for _ in range(20):
        step()
    synchronize(state)
    started, before = time.perf_counter(), state.images_seen
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            step()
        synchronize(state)
    return (state.images_seen - before) / (time.perf_counter() - started)


def synchronize(state: TrainState) -> None:
    if state.device.type == "cuda":
        torch.cuda.synchronize()


def compare(args: argparse.Namespace) -> dict[str, object]:
    peer = args.peer.resolve() if args.peer else None
    return training.compare("examples-dcgan-128", peer, args.data_root, args.rounds, args.seconds)


def rates(args: argparse.Namespace) -> dict[str, object]:
    config = devices.resolve_auto(loading.resolve(GPU_PRESET))
    found = {path: images_per_second(config, path, args.data_root, args.seconds) for path in PATHS}
    print(f"{GPU_PRESET}: " + ", ".join(f"{path} {rate:.0f} img/s" for path, rate in found.items()), flush=True)
    return {
        "preset": GPU_PRESET,
        "batch_size": config.optim.batch_size,
        "n_critic": config.optim.n_critic,
        "precision": config.run.precision,
        "cuda_graphs": config.run.cuda_graphs,
        "images_per_second": {path: round(rate, 1) for path, rate in found.items()},
    }


def whole(args: argparse.Namespace) -> dict[str, object]:
    """`trainer train` from its start to its end, in a separate process. Raises SystemExit when it fails."""
    sets = [f"data.source={args.source}", *args.set]
    command = [sys.executable, "-m", "trainer", "train", "--preset", GPU_PRESET]
    command += ["--run-dir", str(args.run_dir.resolve()), "--data-root", str(args.data_root.resolve())]
    for setting in sets:
        command += ["--set", setting]
    started = time.perf_counter()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        raise SystemExit(code)
    last = json.loads((args.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    result = {
        "preset": GPU_PRESET,
        "set": sets,
        "images": last["images_seen"],
        "minutes_of_training": round(last["seconds"] / 60, 2),
        "minutes_of_the_command": round((time.perf_counter() - started) / 60, 2),
        "images_per_second": round(last["images_seen"] / last["seconds"], 1),
    }
    print(f"whole: {result}", flush=True)
    return result


def lengths(args: argparse.Namespace) -> dict[str, object]:
    """The ends of finished runs, from their own metrics.jsonl and made_by.json."""
    found = []
    for run in sorted(args.runs.glob("*/metrics.jsonl")):
        ticks = [json.loads(line) for line in run.read_text(encoding="utf-8").splitlines()]
        made_by = json.loads((run.parent / "made_by.json").read_text(encoding="utf-8"))
        if "quality/frechet" in ticks[-1]:
            found.append(
                {
                    "preset": run.parent.name,
                    "gpu": made_by["machine"]["gpu"],
                    "kimg": ticks[-1]["images_seen"] / 1000,
                    "seconds": round(ticks[-1]["seconds"], 1),
                    "quality": [
                        {key: tick[f"quality/{key}"] for key in ("frechet", "recall")}
                        | {"kimg": tick["images_seen"] / 1000}
                        for tick in ticks
                        if "quality/frechet" in tick
                    ],
                }
            )
    return {"runs": found}


GPU_PARTS = {"compare": compare, "rates": rates, "whole": whole, "lengths": lengths}


def gpu(args: argparse.Namespace) -> None:
    """Run the requested parts, and add them to the result file."""
    if "whole" in args.part and (args.run_dir is None or args.run_dir.exists()):
        raise SystemExit("`whole` trains into a new folder: --run-dir")
    if "lengths" in args.part and (args.runs is None or not args.runs.is_dir()):
        raise SystemExit("`lengths` reads runs: --runs FOLDER")
    document = read(args.output)
    for name in args.part:
        machine = describe_machine()
        document["beside" if name == "compare" else name] = {"machine": machine, **GPU_PARTS[name](args)}
        write(args.output, document)


PARTS = {"quality": quality, "memory": memory, "gpu": gpu}


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", choices=PARTS)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="for both paths")
    parser.add_argument("--preset", default="digits-dcgan", help="of quality")
    parser.add_argument("--seeds", type=at_least_one, default=3, help="of quality")
    parser.add_argument("--num-images", type=at_least_one, default=5000, help="of each generator, for its score")
    parser.add_argument("--steps", type=at_least_one, default=10_000, help="of memory")
    parser.add_argument("--only", choices=MEMORY_CASES, help=argparse.SUPPRESS)  # one case, as JSON on stdout
    parser.add_argument("--part", nargs="+", choices=GPU_PARTS, default=["compare", "rates"], help="of gpu")
    parser.add_argument("--peer", type=existing_file, help="PyTorch's examples/dcgan/main.py, for gpu")
    parser.add_argument("--rounds", type=at_least_one, default=5, help="of gpu")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn and measurement of gpu")
    parser.add_argument("--run-dir", type=Path, help="where `whole` trains; a new folder")
    parser.add_argument("--source", default="cifar10", help="the images of `whole`, such as folder:PATH@train")
    parser.add_argument("--runs", type=Path, help="the run folders of `lengths`")
    parser.add_argument("--output", type=file_to_write, help="the result file")
    args = parser.parse_args()
    args.output = args.output or RESULTS / f"train_{args.measurement}.json"
    with user_errors(parser):
        PARTS[args.measurement](args)
    if not args.only:
        print(f"→ {args.output}")


if __name__ == "__main__":
    main()
