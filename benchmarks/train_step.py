"""Images a second of the trainer's loop beside plain ones and beside other people's scripts, at the same networks.

    python -m benchmarks.train_step --data-root data
    python -m benchmarks.train_step --peer kunal/code/gan/train_gan.py --peer pytorch-examples/dcgan/main.py

The plain loops are in train_loops.py. `--peer` takes a script as its authors have it and runs it unmodified: source
000's code/gan/train_gan.py and train_dcgan.py (Kunal627/kunal627.github.io, with model.py and common.py beside them),
and PyTorch's examples/dcgan/main.py. Then three take turns: the peer, our plain loop at its settings, and the
trainer; a plain loop that is not within 10% of the peer is no fair stand-in for it, and the result says so.

A round gives each a turn of a few seconds, so that a machine whose speed drifts changes all alike; ratios are taken
round by round.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.turns import Loop, taking_turns
from imagesets import ImageSetError, load_image_set
from trainer import config as configuration
from trainer import hardware
from trainer.config import Config

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "train_step.json"
FILES = 2000  # PNGs in a folder for the loops that decode files


@dataclass(frozen=True)
class Case:
    """Settings to compare loops at; `peer` is the script whose own they are."""

    preset: str
    style: str  # of the plain loop
    sets: tuple[str, ...] = ()
    peer: str | None = None


CASES = {
    "mnist-dcgan": Case("mnist-dcgan", "documents"),
    "mnist-gan": Case("mnist-gan", "documents", peer="train_gan.py"),
    "mnist-dcgan-3g": Case(
        "mnist-dcgan", "documents", ("optim.batch_size=128", "optim.g_steps=3", "optim.d_lr=1e-4"), "train_dcgan.py"
    ),
    "examples-dcgan": Case("celeba-dcgan", "examples", ("optim.batch_size=64",), "main.py"),
    "examples-dcgan-128": Case("celeba-dcgan", "examples"),  # for a GPU
}
BY_PEER = {case.peer: name for name, case in CASES.items() if case.peer}


def load_images(config: Config, data_root: Path) -> tuple[np.ndarray, str]:
    """The config's image set uint8 [N, H, W, C] and its name; another of that size where it is not on this machine."""
    data = config.data
    for source in (data.source, "cifar10", "digits"):
        try:
            found = load_image_set(source, resolution=data.resolution, channels=data.channels, data_root=data_root)
        except ImageSetError:
            continue
        return np.asarray(found.images), source
    raise SystemExit(f"no images in {data_root}")


def lay_out(images: np.ndarray, folder: Path, style: str) -> None:
    """The images in the three forms that the loops read: an array, MNIST's own files, or a folder of PNGs."""
    np.save(folder / "images.npy", images)
    if style == "documents":
        raw = folder / "data" / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for prefix in ("train", "t10k"):
            for name, array in (("images-idx3", images[..., 0]), ("labels-idx1", np.zeros(len(images), np.uint8))):
                header = np.array([0x0800 + array.ndim, *array.shape], dtype=">u4").tobytes()
                (raw / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())
                with gzip.open(raw / f"{prefix}-{name}-ubyte.gz", "wb", compresslevel=1) as file:
                    file.write(header)
    else:
        (folder / "folder" / "one").mkdir(parents=True)
        for index, image in enumerate(images[:FILES]):
            Image.fromarray(image).save(folder / "folder" / "one" / f"{index:05d}.png")


def told(line: str) -> int | None:
    """`step N` of train_loops.py."""
    match = re.search(r"step (\d+)$", line)  # perhaps behind a progress bar
    return int(match[1]) if match else None


def bar(line: str) -> int | None:
    """tqdm's `Epoch 2/50: 10%|# | 94/938 [` of 000's scripts."""
    match = re.search(r"Epoch \[?(\d+)/\d+\]?: .* (\d+)/(\d+) \[", line)
    return (int(match[1]) - 1) * int(match[3]) + int(match[2]) if match else None


def bracketed(line: str) -> int | None:
    """`[epoch/epochs][step/steps] Loss_D: …` of the PyTorch example."""
    match = re.match(r"\[(\d+)/\d+\]\[(\d+)/(\d+)\] Loss_D", line)
    return int(match[1]) * int(match[3]) + int(match[2]) if match else None


def peer_command(case: Case, script: Path, config: Config, folder: Path) -> tuple[list[str], Callable[..., int | None]]:
    """How to run a peer's script as it is, in a working folder that holds the data where it looks for it."""
    if case.style == "documents":
        for made in ("images", "out"):  # 000's scripts save pictures there
            (folder / made).mkdir(exist_ok=True)
        return [sys.executable, str(script)], bar
    arguments = ["--dataset", "folder", "--dataroot", str(folder / "folder"), "--outf", str(folder)]
    arguments += ["--batchSize", str(config.optim.batch_size)]
    if config.run.device == "cuda":
        arguments.append("--accel")
    return [sys.executable, str(script), *arguments], bracketed


def compare(name: str, peer: Path | None, data_root: Path, rounds: int, seconds: float) -> dict[str, object]:
    case = CASES[name]
    config = hardware.choose(configuration.resolve(case.preset, case.sets))
    images, shown = load_images(config, data_root)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay_out(images, folder, case.style)
        (folder / "config.json").write_text(configuration.to_json(config))
        contenders = {} if peer is None else {"peer": peer_command(case, peer, config, folder)}
        for kind, loop in (("plain", case.style), ("trainer", "ours")):
            code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from benchmarks.train_loops import main; main()"
            contenders[kind] = (
                [sys.executable, "-c", code, loop, str(folder / "config.json"), str(folder)],
                told,
            )
        loops = []
        for kind, (command, step_of) in contenders.items():
            (folder / kind).mkdir()
            cwd = folder if kind == "peer" else folder / kind
            loops.append(Loop(command, step_of, config.optim.batch_size, cwd))
        with taking_turns(loops, warm_up_s=min(seconds, 2.0)) as turn:
            measured = [dict(zip(contenders, turn(seconds), strict=True)) for _ in range(rounds)]

    result: dict[str, object] = {
        "case": name,
        "preset": case.preset,
        "set": list(case.sets),
        "plain_loop": case.style,
        "peer": None if peer is None else f"{peer.parent.name}/{peer.name}, unmodified",
        "images": shown,
        "batch_size": config.optim.batch_size,
        "device": config.run.device,
        "precision": config.run.precision,
        "threads": config.run.threads,
        "images_per_second": {
            kind: round(statistics.median(each[kind] for each in measured), 1) for kind in contenders
        },
        "ratio_to_plain": spread([each["trainer"] / each["plain"] for each in measured]),
    }
    if peer is not None:
        result["ratio_to_peer"] = spread([each["trainer"] / each["peer"] for each in measured])
        result["plain_to_peer"] = spread([each["plain"] / each["peer"] for each in measured])
    result |= {
        "rounds": [{kind: round(rate, 1) for kind, rate in each.items()} for each in measured],
        "seconds_a_turn": seconds,
        "load_average": [round(before, 1), round(os.getloadavg()[0], 1)],
    }
    print(told_in_a_line(result), flush=True)
    return result


def spread(ratios: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(ratios), 2),
        "min": round(min(ratios), 2),
        "max": round(max(ratios), 2),
    }


def told_in_a_line(result: dict[str, object]) -> str:
    speeds = ", ".join(f"{kind} {rate:.0f}" for kind, rate in result["images_per_second"].items())  # type: ignore[attr-defined]
    line = f"{result['case']}: {speeds} img/s"
    for what in ("ratio_to_plain", "ratio_to_peer", "plain_to_peer"):
        if what in result:
            ratio = result[what]
            line += f"; {what.replace('_', ' ')} {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"  # type: ignore[index]
    if "plain_to_peer" in result and not 0.9 <= result["plain_to_peer"]["median"] <= 1.1:  # type: ignore[index]
        line += " [the plain loop is not within 10% of the peer: read the peer's ratio]"
    return f"{line} ({result['images']}, batch {result['batch_size']}, {result['device']} {result['precision']})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, help="default: mnist-dcgan, mnist-gan, examples-dcgan")
    parser.add_argument("--peer", action="append", type=Path, default=[], help="a script to run beside: see above")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn, two steps at least")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    peers = {}
    for script in arguments.peer:
        if script.name not in BY_PEER or not script.is_file():
            parser.error(f"--peer takes an existing {', '.join(BY_PEER)}, not {script}")
        peers[BY_PEER[script.name]] = script.resolve()
    names = arguments.case or ["mnist-dcgan", "mnist-gan", "examples-dcgan", *peers]
    results = [
        compare(name, peers.get(name), arguments.data_root, arguments.rounds, arguments.seconds)
        for name in dict.fromkeys(names)
    ]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"machine": hardware.describe(), "results": results}, indent=2) + "\n")
    print(f"→ {arguments.output}")


if __name__ == "__main__":
    main()
