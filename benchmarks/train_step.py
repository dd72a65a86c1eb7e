"""Images a second of the trainer's loop beside plain ones and beside other people's scripts, at the same networks.

    python -m benchmarks.train_step --data-root data
    python -m benchmarks.train_step --peer kunal/code/gan/train_gan.py --peer pytorch-examples/dcgan/main.py

The plain loops, one for each source's manner and one for PyTorch's examples', are told in train_loops.py. `--peer`
takes a script as its authors have it and runs it unmodified: source 000's code/gan/train_gan.py and train_dcgan.py
(Kunal627/kunal627.github.io, with model.py and common.py beside them), and PyTorch's examples/dcgan/main.py. Then
three take turns: the peer, our plain loop at its settings, and the trainer; a plain loop that is not within 10% of the
peer is no fair stand-in for it, and the result says so.

A round gives each a turn of a few seconds, so that a machine whose speed drifts changes all alike; ratios are taken
round by round. A case that cannot be run is told in a line, and the others go on; results are written after each.
Exit 1: a case could not be run.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.arguments import at_least_one, file_to_write
from benchmarks.attempts import attempt
from benchmarks.machine import describe, load_average
from benchmarks.rounds import spread
from benchmarks.rounds import told as ratio_told
from benchmarks.turns import Loop, taking_turns
from imagesets import ImageSetError, load_image_set
from trainer.config import loading
from trainer.config.schema import Config
from trainer.training import devices

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "train_step.json"
FILES = 2000  # PNGs in a folder for the loops that decode files
STORED = 10_000  # images for the loops that enlarge them


@dataclass(frozen=True)
class Case:
    """Settings to compare loops at; `peer` is the script whose own they are."""

    preset: str
    style: str  # of the plain loop
    sets: tuple[str, ...] = ()
    peer: str | None = None
    stored: int | None = None  # the side of the images as the plain loop reads them, where it enlarges them itself


CASES = {
    "mnist-dcgan": Case("mnist-dcgan", "documents"),
    "mnist-gan": Case("mnist-gan", "documents", peer="train_gan.py"),
    "mnist-dcgan-3g": Case(
        "mnist-dcgan", "documents", ("optim.batch_size=128", "optim.g_steps=3", "optim.d_lr=1e-4"), "train_dcgan.py"
    ),
    "examples-dcgan": Case("celeba-dcgan", "examples", ("optim.batch_size=64",), "main.py"),
    "cifar10-dcgan": Case("cifar10-dcgan", "dcgan_notebook", stored=32),
    "cifar10-wgan": Case("cifar10-wgan", "wgan_notebook", stored=32),
    "mnist-dcgan-64": Case("mnist-dcgan-64", "digits_notebook", stored=28),
    "examples-dcgan-128": Case("celeba-dcgan", "examples"),  # for a GPU
}
DEFAULT = ("mnist-dcgan", "mnist-gan", "examples-dcgan", "cifar10-dcgan", "cifar10-wgan", "mnist-dcgan-64")
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


def stored_images(config: Config, source: str, side: int, data_root: Path) -> np.ndarray:
    """The images of `load_images` as they are before they are enlarged, uint8 [N, side, side, C]."""
    found = load_image_set(source, resolution=side, channels=config.data.channels, data_root=data_root)
    return np.asarray(found.images[:STORED])


def lay_out(images: np.ndarray, folder: Path, style: str, stored: np.ndarray | None = None) -> None:
    """The images in the forms that the loops read: an array (and one of the images as stored), MNIST's own files, or a
    folder of PNGs."""
    if stored is not None:
        np.save(folder / "images.npy", images[:STORED])
        np.save(folder / "stored.npy", stored)
        return
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
    config = devices.resolve_auto(loading.resolve(case.preset, case.sets))
    images, shown = load_images(config, data_root)
    stored = None if case.stored is None else stored_images(config, shown, case.stored, data_root)
    before = load_average()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay_out(images, folder, case.style, stored)
        (folder / "config.json").write_text(loading.to_json(config), encoding="utf-8")
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
            shown_a_step = config.optim.batch_size * config.optim.n_critic
            names = {"peer": str(peer), "plain": f"the plain loop ({case.style})", "trainer": "the trainer's loop"}
            loops.append(Loop(command, step_of, shown_a_step, cwd, names[kind]))
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
        "load_average": [before, load_average()],
    }
    print(told_in_a_line(result), flush=True)
    return result


def told_in_a_line(result: dict[str, object]) -> str:
    speeds = ", ".join(f"{kind} {rate:.0f}" for kind, rate in result["images_per_second"].items())  # type: ignore[attr-defined]
    line = f"{result['case']}: {speeds} img/s"
    for what in ("ratio_to_plain", "ratio_to_peer", "plain_to_peer"):
        if what in result:
            line += f"; {what.replace('_', ' ')} {ratio_told(result[what])}"  # type: ignore[arg-type]
    if "plain_to_peer" in result and not 0.9 <= result["plain_to_peer"]["median"] <= 1.1:  # type: ignore[index]
        line += " [the plain loop is not within 10% of the peer: read the peer's ratio]"
    return f"{line} ({result['images']}, batch {result['batch_size']}, {result['device']} {result['precision']})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, help=f"default: {', '.join(DEFAULT)}")
    parser.add_argument("--peer", action="append", type=Path, default=[], help="a script to run beside: see above")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn, two steps at least")
    parser.add_argument("--output", type=file_to_write, default=RESULTS)
    arguments = parser.parse_args()
    peers_of = {}
    for script in arguments.peer:
        if script.name not in BY_PEER or not script.is_file():
            parser.error(f"--peer takes an existing {', '.join(BY_PEER)}, not {script}")
        peers_of[BY_PEER[script.name]] = script.resolve()
    names = arguments.case or [*DEFAULT, *peers_of]
    results: list[dict[str, object]] = []
    failed: dict[str, str] = {}
    document = {"machine": describe(), "results": results, "failed": failed}
    for name in dict.fromkeys(names):
        with attempt(name, failed):
            results.append(compare(name, peers_of.get(name), arguments.data_root, arguments.rounds, arguments.seconds))
        if results or not arguments.output.exists():
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"→ {arguments.output}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
