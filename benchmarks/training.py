"""Images/s of the trainer's loop against plain loops and against the authors' own scripts, at the same networks.

    python -m benchmarks.training [--data-root data] [--peer …/train_gan.py] [--peer …/dcgan/main.py] [--set …]

training_loops.py describes the plain loops, one per source and one in the manner of PyTorch's example. `--peer` runs a
script unmodified: Kunal627's code/gan/train_gan.py and train_dcgan.py (with model.py and common.py next to them), and
PyTorch's examples/dcgan/main.py. Then three alternate: the peer, our plain loop at its settings, and the trainer. A
plain loop that is not within 10% of the peer does not represent it fairly, and the result says so.

On a CPU each round also measures the machine: the matrix products of the trainer's step and nothing else, each in the
fastest way that PyTorch has for its shape (matrix_products.py), on as many threads as the trainer. `--set
run.precision=fp32` measures the trainer and its products in float32 where bfloat16 is the default.

Each loop is a process that is stopped outside its turns, and its speed is read only from its output, so that none
shares an allocator or a thread pool with another. A round gives each a turn; ratios are taken per round. A case that
cannot be run is reported in one line, and the others continue. Exit 1: a case could not be run.
"""

from __future__ import annotations

import gzip
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import harness, report
from benchmarks.matrix_products import StepProducts
from imagesets import ImageSetError, load_image_set
from trainer import devices
from trainer.config import loading
from trainer.config.schema import Config
from trainer.errors import TrainerError

FILES = 2000  # PNGs in a folder for the loops that decode files
STORED = 10_000  # images for the loops that enlarge them
START_S = 180.0  # to wait for a loop's first step
SETTLE_S = 0.3  # at the start of a turn, not counted


@dataclass(frozen=True)
class Case:
    """The settings of a comparison; `peer` is the script that has them."""

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
RATIOS = {
    "ratio_to_plain": ("trainer", "plain"),
    "ratio_to_peer": ("trainer", "peer"),
    "plain_to_peer": ("plain", "peer"),
    "share_of_products": ("trainer", "products"),
}
BY_PEER = {case.peer: name for name, case in CASES.items() if case.peer}


def load_images(config: Config, data_root: Path, stored: int | None) -> tuple[dict[str, np.ndarray], str]:
    """Return the config's images, uint8 [N, H, W, C], and their name; another set of that size where it is missing.

    With `stored`, their first ones also at that side, as they are before the plain loop enlarges them.
    """
    data = config.data
    sides = {"images": data.resolution} | ({"stored": stored} if stored else {})
    for source in (data.source, "cifar10", "digits"):
        with suppress(ImageSetError):
            sets = {
                name: load_image_set(source, resolution=side, channels=data.channels, data_root=data_root).images
                for name, side in sides.items()
            }
            return {name: np.asarray(images[: STORED if stored else None]) for name, images in sets.items()}, source
    raise SystemExit(f"no images in {data_root}")


def write_images(arrays: dict[str, np.ndarray], folder: Path, style: str) -> None:
    """Write the images as the loops read them: arrays, and MNIST's own files or a folder of PNGs."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    images = arrays["images"]
    if style == "documents":
        raw = folder / "data" / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for prefix in ("train", "t10k"):
            for name, array in (("images-idx3", images[..., 0]), ("labels-idx1", np.zeros(len(images), np.uint8))):
                header = np.array([0x0800 + array.ndim, *array.shape], dtype=">u4").tobytes()
                (raw / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())
                with gzip.open(raw / f"{prefix}-{name}-ubyte.gz", "wb", compresslevel=1) as file:
                    file.write(header)
    elif style == "examples":
        (folder / "folder" / "one").mkdir(parents=True)
        for index, image in enumerate(images[:FILES]):
            Image.fromarray(image).save(folder / "folder" / "one" / f"{index:05d}.png")


def parse_step(line: str) -> int | None:
    """Return the step that a line of output reports, or None.

    `step N` is of training_loops.py, possibly after a progress bar; `Epoch 2/50: 10%|# | 94/938 [` is tqdm's, of
    Kunal627's scripts; `[epoch/epochs][step/steps] Loss_D: …` is of the PyTorch example, which counts epochs from 0.
    """
    if match := re.search(r"step (\d+)$", line):
        return int(match[1])
    if match := re.search(r"Epoch \[?(\d+)/\d+\]?: .* (\d+)/(\d+) \[", line):
        return (int(match[1]) - 1) * int(match[3]) + int(match[2])
    if match := re.match(r"\[(\d+)/\d+\]\[(\d+)/(\d+)\] Loss_D", line):
        return int(match[1]) * int(match[3]) + int(match[2])
    return None


def peer_command(case: Case, script: Path, config: Config, folder: Path) -> list[str]:
    """Return the command of a peer's script, unmodified."""
    if case.style == "documents":
        for name in ("images", "out"):  # its scripts save pictures there
            (folder / name).mkdir(exist_ok=True)
        return [sys.executable, str(script)]
    arguments = ["--dataset", "folder", "--dataroot", str(folder / "folder"), "--outf", str(folder)]
    arguments += ["--batchSize", str(config.optim.batch_size)]
    if config.run.device == "cuda":
        arguments.append("--accel")
    return [sys.executable, str(script), *arguments]


def compare(
    name: str, peer: Path | None, data_root: Path, rounds: int, seconds: float, sets: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure a case: the peer if there is one, the plain loop, the trainer, and on a CPU its matrix products."""
    case = CASES[name]
    config = devices.resolve_auto(loading.resolve(case.preset, (*case.sets, *sets)))
    arrays, shown = load_images(config, data_root, case.stored)
    images = config.optim.batch_size * config.optim.n_critic  # per step
    devices.configure_process(config)
    products = StepProducts(config) if config.run.device == "cpu" else None
    gflop = products.flops / images / 1e9 if products else 0.0  # per image
    before = harness.load_average()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_images(arrays, folder, case.style)
        (folder / "config.json").write_text(loading.to_json(config), encoding="utf-8")
        code = (
            f"import sys; sys.path.insert(0, {str(harness.ROOT)!r}); from benchmarks.training_loops import main; main()"
        )
        commands = {} if peer is None else {"peer": peer_command(case, peer, config, folder)}
        for kind, style in (("plain", case.style), ("trainer", "ours")):
            commands[kind] = [sys.executable, "-c", code, style, str(folder / "config.json"), str(folder)]
        names = {"peer": str(peer), "plain": f"the plain loop ({case.style})", "trainer": "the trainer's loop"}
        loops = []
        for kind, command in commands.items():
            (folder / kind).mkdir()
            cwd = folder if kind == "peer" else folder / kind
            loops.append(Loop(command, images, cwd, names[kind]))
        with alternate_loops(loops, warm_up_s=min(seconds, 2.0)) as turn:
            measured = []
            for _ in range(rounds):
                measured.append(dict(zip(commands, turn(seconds), strict=True)))
                if products:
                    measured[-1]["products"] = products.measure(seconds) / gflop / 1e9

    result: dict[str, Any] = {
        "case": name,
        "preset": case.preset,
        "set": [*case.sets, *sets],
        "plain_loop": case.style,
        "peer": None if peer is None else f"{peer.parent.name}/{peer.name}, unmodified",
        "images": shown,
        "batch_size": config.optim.batch_size,
        "device": config.run.device,
        "precision": config.run.precision,
        "threads": config.run.threads,
        "images_per_second": {kind: statistics.median(each[kind] for each in measured) for kind in measured[0]},
    }
    for what, (ours, theirs) in RATIOS.items():
        if theirs in measured[0]:
            result[what] = harness.spread([each[ours] / each[theirs] for each in measured])
    if products:
        rates = result["images_per_second"]
        result["gflop_per_image"] = gflop
        result["gflop_per_second"] = {kind: rates[kind] * gflop for kind in ("trainer", "products")}
    if peer is not None and not 0.9 <= result["plain_to_peer"]["median"] <= 1.1:
        print(f"{name}: the plain loop is not within 10% of the peer: read the peer's ratio", flush=True)
    return result | {"rounds": measured, "seconds_a_turn": seconds, "load_average": [before, harness.load_average()]}


class Loop:
    """A process that trains, stopped but for its turns; `name` is what an error calls it."""

    def __init__(self, command: Sequence[str], batch: int, cwd: Path, name: str = "loop") -> None:
        self.batch, self.name = batch, name
        self.log = cwd / "output.txt"
        self.seen: list[tuple[float, int]] = []  # when a step ended, and how many steps had by then
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"}
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # with its loader's workers; the session stays, and with it our priority
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        with self.log.open("wb") as log:
            while chunk := os.read(self.process.stdout.fileno(), 65536):
                log.write(chunk)
                log.flush()
                *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
                for line in lines:
                    step = parse_step(line.decode(errors="replace"))
                    if step is not None and (not self.seen or step > self.seen[-1][1]):
                        self.seen.append((time.perf_counter(), step))

    def warm_up(self, seconds: float) -> None:
        """Let it train for `seconds` after its first step, then stop it."""
        self._signal(signal.SIGCONT)
        self._wait_for(lambda: bool(self.seen))
        time.sleep(seconds)
        self._wait_for(lambda: len(self.seen) >= 2)
        self._signal(signal.SIGSTOP)

    def turn(self, seconds: float) -> float:
        """Images a second over about `seconds`, two steps at least."""
        self._signal(signal.SIGCONT)
        time.sleep(SETTLE_S)
        first = len(self.seen)
        self._wait_for(lambda: len(self.seen) > first + 1)
        left = seconds - (time.perf_counter() - self.seen[first][0])
        time.sleep(max(left, 0))
        self._signal(signal.SIGSTOP)
        (began, before), (ended, after) = self.seen[first], self.seen[-1]
        return (after - before) * self.batch / (ended - began)

    def end(self) -> None:
        if self.process.poll() is None:
            self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            raise SystemExit(f"{self.name} ended by itself; its output:\n{self._tail()}") from None

    def _wait_for(self, happened: Callable[[], bool], seconds: float = START_S) -> None:
        deadline = time.perf_counter() + seconds
        while not happened():
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended by itself; its output:\n{self._tail()}")
            if time.perf_counter() > deadline:
                raise SystemExit(f"{self.name} printed no step in {seconds:.0f} s:\n{self._tail()}")
            time.sleep(0.01)

    def _tail(self) -> str:
        return self.log.read_text(errors="replace", encoding="utf-8")[-2000:]


@contextmanager
def alternate_loops(loops: Sequence[Loop], warm_up_s: float) -> Iterator[Callable[[float], list[float]]]:
    """Gives a function: one round, a turn of so many seconds each → images a second of each."""
    try:
        for loop in loops:
            loop._signal(signal.SIGSTOP)
        for loop in loops:
            loop.warm_up(warm_up_s)
        yield lambda seconds: [loop.turn(seconds) for loop in loops]
    finally:
        for loop in loops:
            loop.end()


def main() -> None:
    """Measure the requested cases."""
    parser = harness.make_parser(__doc__, "train_step")
    parser.add_argument("--case", nargs="+", choices=CASES, help=f"default: {', '.join(DEFAULT)}")
    parser.add_argument(
        "--peer", action="append", type=harness.existing_file, default=[], help="a script to compare with"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="for every case")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=harness.at_least_one, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn, which has at least two steps")
    args = parser.parse_args()
    peers: dict[str, Path] = {}
    for script in args.peer:
        if script.name not in BY_PEER:
            parser.error(f"--peer requires {', '.join(BY_PEER)}, not {script}")
        peers[BY_PEER[script.name]] = script.resolve()
    chosen = list(dict.fromkeys(args.case or [*DEFAULT, *peers]))
    try:
        for name in chosen:
            loading.resolve(CASES[name].preset, (*CASES[name].sets, *args.set))
    except TrainerError as error:
        parser.error(str(error))
    results: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    document = {"machine": harness.describe_machine(), "results": results, "failed": failed}
    for name in chosen:
        with harness.attempt(name, failed):
            results.append(compare(name, peers.get(name), args.data_root, args.rounds, args.seconds, args.set))
            report.print_rows({"train_step": {"results": results[-1:]}})
        if results or not args.output.exists():
            harness.write(args.output, document)
    print(f"→ {args.output}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
